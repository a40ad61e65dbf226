from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raynas.architecture import Architecture
from raynas.costs.macs import macs
from raynas.costs.parameters import parameters
from raynas.errors import UserError
from raynas.supernet import seeded
from search_spaces.nas_bench_201 import EDGES, NONE, SPACE, Zero, canonical, from_string, supernet, synonyms, to_string

TABLE = Path(__file__).parents[1].parent / "shared" / "data" / "nb201_cifar10.parquet"
KEYS = list(product(range(5), repeat=6))
COLUMNS = ["arch_str", "op01", "op02", "op12", "op03", "op13", "op23", "iso_rep", "c10_params", "c10_flops"]


@pytest.fixture(scope="module")
def table() -> dict[str, list[Any]]:
    if not TABLE.exists():
        pytest.skip(f"{TABLE} is absent")
    return dict(pq.read_table(TABLE, columns=COLUMNS).to_pydict())


def test_every_key_scores_as_that_synonym_does_whose_convolutions_it_shares() -> None:
    network = seeded(supernet, 0, in_channels=1, classes=10, resolution=8, channels=4, cells_per_stage=1).double()
    images_NCHW = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes: dict[Architecture, list[Architecture]] = {}
    for key in KEYS:
        classes.setdefault(canonical(key), []).append(key)
    assert all(synonyms(first)[0] == first and set(synonyms(first)) <= set(keys) for first, keys in classes.items())
    several = [first for first, keys in classes.items() if len(keys) > len(synonyms(first)) > 1]
    with torch.no_grad():
        for first in several[::60]:
            distinct = torch.stack([network(images_NCHW, key) for key in synonyms(first)])
            for key in classes[first]:
                near = (distinct - network(images_NCHW, key)).abs().amax((1, 2)) < 1e-6
                assert near.sum() == 1, (first, key)


def test_15625_keys_are_6466_networks() -> None:
    assert SPACE.size == len(KEYS) == 15_625
    assert len({canonical(key) for key in KEYS}) == 6_466


def test_networks_are_those_of_the_published_table(table: dict[str, list[Any]]) -> None:
    pairs = {(canonical(from_string(text)), iso) for text, iso in zip(table["arch_str"], table["iso_rep"], strict=True)}
    assert len(pairs) == len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs}) == 6_466


def test_cell_strings_are_those_of_the_published_table(table: dict[str, list[Any]]) -> None:
    codes = zip(*(table[block.name] for block in SPACE.blocks), strict=True)
    for text, key in zip(table["arch_str"], codes, strict=True):
        assert from_string(text) == key
        assert to_string(key) == text


def test_predicted_costs_equal_every_row_of_the_published_table(table: dict[str, list[Any]]) -> None:
    network = supernet(in_channels=3, classes=10, resolution=32)
    predict_parameters, predict_macs = parameters(network, (3, 32, 32)), macs(network, (3, 32, 32))
    for text, count, flops in zip(table["arch_str"], table["c10_params"], table["c10_flops"], strict=True):
        architecture = from_string(text)
        assert predict_parameters(architecture) == count
        assert predict_macs(architecture) + 10 == flops  # the table adds the linear layer's bias, one per class


def test_costs_counted_on_subnets_equal_the_published_table(table: dict[str, list[Any]]) -> None:
    network = supernet(in_channels=3, classes=10, resolution=32)
    for row in np.random.default_rng(0).choice(len(KEYS), 60, replace=False):
        subnet = network.subnet(from_string(table["arch_str"][row]))
        assert sum(parameter.numel() for parameter in subnet.parameters()) == table["c10_params"][row]
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            subnet.eval()(torch.zeros(2, 3, 32, 32))
        assert counter.get_total_flops() == 2 * 2 * (table["c10_flops"][row] - 10)  # 2 images, 2 FLOPs a MAC; the bias


def test_a_disconnected_cell_answers_with_the_bias() -> None:
    network = seeded(supernet, 0, in_channels=3, classes=4, resolution=8, channels=4, cells_per_stage=1)
    linear = next(module for module in network.modules() if isinstance(module, nn.Linear))
    for architecture in ((NONE,) * 6, (3, 3, 3, NONE, NONE, NONE)):
        logits_NK = network(torch.randn(5, 3, 8, 8), architecture)
        torch.testing.assert_close(logits_NK, linear.bias.expand(5, 4))
        logits_NK.square().sum().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


def test_none_is_not_computed_on_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    network = seeded(supernet, 0, in_channels=3, classes=4, resolution=8, channels=4, cells_per_stage=1)
    runs: Counter[str] = Counter()
    for module in network.modules():
        if isinstance(module, Zero):
            module.register_forward_hook(lambda *_: runs.update(["none"]))
    network(torch.randn(2, 3, 8, 8), (NONE, 1, NONE, 2, NONE, 4))
    assert not runs
    network(torch.randn(2, 3, 8, 8), [torch.full((5,), 0.2)] * 6)
    assert runs["none"] == 3 * 6


def test_a_node_sums_its_edges() -> None:
    """With skips alone, the output is 4 times the input: by 03, 01-13, 02-23 and 01-12-23."""
    network = supernet(in_channels=3, classes=4, resolution=8, channels=4, cells_per_stage=1)
    cell = network.stages[0][0]  # type: ignore
    inputs_NCHW = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(cell(inputs_NCHW, (1,) * 6), 4 * inputs_NCHW)


def test_pooling_averages_the_pixels_of_the_image_alone() -> None:
    cell = supernet(in_channels=3, classes=4, resolution=8, channels=4, cells_per_stage=1).stages[0][0]  # type: ignore
    ones_NCHW = torch.ones(2, 4, 8, 8)
    torch.testing.assert_close(cell(ones_NCHW, (0, 0, 0, 4, 0, 0)), ones_NCHW)


@pytest.mark.parametrize("choice", [2, 3])
def test_convolutions_come_after_their_relu_and_before_their_normalisation(choice: int) -> None:
    cell = supernet(in_channels=3, classes=4, resolution=8, channels=4, cells_per_stage=1).stages[0][0]  # type: ignore
    images_NCHW = torch.randn(2, 4, 8, 8)
    assert not cell(-images_NCHW.abs(), (0, 0, 0, choice, 0, 0)).any()
    outputs_NCHW = cell(images_NCHW, (0, 0, 0, choice, 0, 0))
    torch.testing.assert_close(outputs_NCHW.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    assert outputs_NCHW.min() < 0


def test_a_drawing_has_the_edges_that_are_not_none() -> None:
    for key in [(0, 1, 2, 3, 4, 0), (0,) * 6, (4,) * 6]:
        arrows = [(int(arrow.source), int(arrow.target)) for arrow in SPACE.connections(key)]
        assert arrows == [edge for edge, choice in zip(EDGES, key, strict=True) if choice != NONE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|none~0|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2",
        "|none~0|+|none~0|none~1|+|none~0|none~2|none~1|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|sep_conv_3x3~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+|none~0|none~1|none~2|none~3|",
    ],
)
def test_what_is_no_cell_string_is_refused_with_the_form_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a cell \|op~0\|"):
        from_string(text)
    with pytest.raises(UserError, match="no architecture of nas_bench_201"):
        SPACE.parse(text)


def test_settings_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="channels=0"):
        supernet(in_channels=3, classes=4, resolution=8, channels=0)
