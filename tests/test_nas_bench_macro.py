from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raynas.costs.macs import macs
from raynas.costs.parameters import parameters
from raynas.errors import UserError
from raynas.supernet import Choice
from search_spaces.nas_bench_macro import SPACE, MobileBlock, canonical, from_string, supernet, synonyms, to_string

TABLE = Path(__file__).parents[1].parent / "shared" / "data" / "nas_bench_macro_1640.parquet"


@pytest.fixture(scope="module")
def table() -> dict[str, list[Any]]:
    if not TABLE.exists():
        pytest.skip(f"{TABLE} is absent")
    return dict(pq.read_table(TABLE, columns=["arch", "params", "flops"]).to_pydict())


def test_6561_keys_are_3969_networks() -> None:
    assert SPACE.size == 6_561
    assert len({canonical(key) for key in product(range(3), repeat=8)}) == 3_969


def test_every_key_is_a_synonym_of_its_canonical_form_alone() -> None:
    networks = {canonical(key) for key in product(range(3), repeat=8)}
    found = [key for network in networks for key in synonyms(network)]
    assert sorted(found) == list(product(range(3), repeat=8))


def test_identities_move_behind_the_other_layers_of_their_stage_but_the_first() -> None:
    assert to_string(canonical(from_string("00102020"))) == "00120020"
    assert to_string(canonical(from_string("21012201"))) == "21012210"


def test_keys_are_digits() -> None:
    assert SPACE.print((2, 2, 2, 1, 2, 2, 2, 0)) == "22212220"
    assert SPACE.parse("22212220") == SPACE.parse("2-2-2-1-2-2-2-0") == (2, 2, 2, 1, 2, 2, 2, 0)


@pytest.mark.parametrize("text", ["", "2221222", "222122200", "22212223", "2221222x", "٢٢٢٢٢٢٢٢"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 8 digits of 0 to 2"):
        from_string(text)
    with pytest.raises(UserError):
        SPACE.parse(text)


def test_predicted_costs_equal_every_row_of_the_published_table(table: dict[str, list[Any]]) -> None:
    network = supernet(in_channels=3, classes=10, resolution=32)
    predict_parameters, predict_macs = parameters(network, (3, 32, 32)), macs(network, (3, 32, 32))
    for text, count, flops in zip(table["arch"], table["params"], table["flops"], strict=True):
        architecture = from_string(text)
        assert predict_parameters(architecture) == count  # scale and shift of BatchNorm included
        assert predict_macs(architecture) == flops  # convolutions and the linear layer without its bias


def test_costs_counted_on_subnets_equal_the_published_table(table: dict[str, list[Any]]) -> None:
    network = supernet(in_channels=3, classes=10, resolution=32)
    for row in np.random.default_rng(0).choice(len(table["arch"]), 60, replace=False):
        subnet = network.subnet(from_string(table["arch"][row]))
        assert sum(parameter.numel() for parameter in subnet.parameters()) == table["params"][row]
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            subnet.eval()(torch.zeros(2, 3, 32, 32))
        assert counter.get_total_flops() == 2 * 2 * table["flops"][row]  # 2 images, 2 FLOPs a MAC


def test_only_the_first_layer_of_a_stage_changes_the_shape() -> None:
    network = supernet(in_channels=3, classes=10, resolution=32, channels=2, head_channels=8)
    shapes = []
    for module in network.modules():
        if isinstance(module, Choice):
            module.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    network(torch.randn(2, 3, 32, 32), (0,) * 8)
    assert shapes == [(4, 16, 16)] * 2 + [(8, 8, 8)] * 3 + [(16, 4, 4)] * 3


def test_a_mobile_block_adds_its_input_where_shapes_allow() -> None:
    for stride, added in ((1, 1.0), (2, 0.0)):
        block = MobileBlock(4, 4, stride, expansion=3, kernel_size=3)
        nn.init.zeros_(block.layers[6].weight)  # type: ignore[arg-type]
        inputs_NCHW = torch.randn(2, 4, 8, 8)
        torch.testing.assert_close(block(inputs_NCHW), added * inputs_NCHW[:, :, ::stride, ::stride])


def test_settings_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="head_channels=0"):
        supernet(in_channels=3, classes=4, resolution=8, head_channels=0)
