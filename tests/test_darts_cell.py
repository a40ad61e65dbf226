"""What is special about the DARTS cell space: its two encodings, its notation, and its evaluation network."""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raynas.checkpoint import load_state, save_state
from raynas.config import check
from raynas.costs.parameters import parameters
from raynas.data import Split, load, split
from raynas.errors import UserError
from raynas.plan import build_supernet, load_space, make_plan
from raynas.retraining import StandAloneTraining
from raynas.seeds import generator
from raynas.storage import Folder
from raynas.supernet import Supernet, seeded
from raynas.testing import (
    BuildSupernet,
    check_blocks_are_those_of_the_supernet,
    check_canonical_form_is_the_same_network,
    check_notation_is_read_back,
    check_one_hot_weights_are_the_path,
    check_subnet_is_its_path,
)
from search_spaces import darts_cell, darts_cell_pairs
from search_spaces._darts_operations import NONE, OPERATIONS, SKIP, FactorizedReduction, Noise, Zero
from search_spaces.darts_cell import EDGES, Variant, drop_paths, edge_operations
from search_spaces.darts_cell_pairs import derive, slot_pairs, to_edges

SMALL = {"channels": 4, "cells": 3}
SECOND_ORDER = (  # DARTS's own, found by the second-order search
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)
VARIANTS: tuple[Variant, ...] = ("s1", "s2", "s3", "s4")
ENCODINGS = (darts_cell, darts_cell_pairs)


def small(module: Any = darts_cell, **settings: Any) -> Supernet:
    return seeded(module.supernet, 0, **{"in_channels": 3, "classes": 5, "resolution": 8, **SMALL, **settings})


def images() -> Tensor:
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def pairs_of_different_inputs() -> tuple[int, ...]:
    return derive([generator(0, "weights", block).random(8) for block in range(2 * len(EDGES))])


# --- the space ----------------------------------------------------------------------------------------------------


def test_the_sizes_are_those_of_the_papers() -> None:
    assert darts_cell.SPACE.size == 8**28
    assert darts_cell_pairs.SPACE.size == math.prod((7 * inputs) ** 2 for inputs in range(2, 6)) ** 2
    assert slot_pairs("darts")[0] == tuple((name, source) for source in (0, 1) for name in OPERATIONS[1:])


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["edges", "pairs"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "check_",
    [
        check_blocks_are_those_of_the_supernet,
        check_subnet_is_its_path,
        check_one_hot_weights_are_the_path,
        check_canonical_form_is_the_same_network,
        check_notation_is_read_back,
    ],
)
def test_restricted_spaces(check_: Callable[..., None], variant: Variant, encoding: Any) -> None:
    def build(**settings: Any) -> Supernet:
        return encoding.supernet(variant=variant, **settings)  # type: ignore[no-any-return]

    built: BuildSupernet = build
    check_(encoding.space(variant=variant), built)


def test_restricted_spaces_offer_what_robust_darts_does() -> None:
    assert {len(operations) for operations in edge_operations("s1")} == {2}
    assert set(edge_operations("s2")) == {("skip_connect", "sep_conv_3x3")}
    assert set(edge_operations("s3")) == {("none", "skip_connect", "sep_conv_3x3")}
    assert set(edge_operations("s4")) == {("noise", "sep_conv_3x3")}


def test_a_run_names_its_variant_in_the_settings_of_the_space() -> None:
    config = check({"space": {"name": "darts_cell", "settings": {"variant": "s2", **SMALL}}})
    assert load_space(config.space).blocks == darts_cell.space(variant="s2").blocks
    with pytest.raises(UserError, match="s5"):
        load_space(check({"space": {"name": "darts_cell", "settings": {"variant": "s5"}}}).space)


# --- two encodings of one network ---------------------------------------------------------------------------------


def test_pairs_and_edges_are_one_network() -> None:
    """The same weights under the same names, and the same logits."""
    pairs, edges = small(darts_cell_pairs), small(darts_cell)
    with torch.no_grad():
        for parameter in pairs.parameters():
            parameter.add_(0.01)
    edges.load_state_dict(pairs.state_dict())
    architecture = pairs_of_different_inputs()
    torch.testing.assert_close(edges(images(), to_edges(architecture)), pairs(images(), architecture))
    assert darts_cell.SPACE.print(to_edges(architecture)) == darts_cell_pairs.SPACE.print(architecture)


def test_a_node_that_takes_an_input_twice_has_no_edges() -> None:
    with pytest.raises(ValueError, match="node 2 takes node 0 twice"):
        to_edges((0, 1, *pairs_of_different_inputs()[2:]))


def test_the_same_pair_twice_counts_twice() -> None:
    nodes = small(darts_cell_pairs).cells[0].nodes  # type: ignore[index,union-attr]
    inputs = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)]
    skip = slot_pairs("darts")[0].index((SKIP, 1))
    first, second = nodes(inputs, (skip,) * 16)  # type: ignore[operator]
    assert first is inputs[1] and second is inputs[1]


def test_derivation_keeps_the_two_strongest_edges_and_their_strongest_operations() -> None:
    weights = [np.full(8, 0.01) for _ in range(28)]
    for block, (operation, weight) in {
        **{0: (4, 0.5), 1: (7, 0.4)},
        **{2: (3, 0.2), 3: (2, 0.1), 4: (1, 0.3)},
        **{5: (4, 0.2), 6: (0, 0.9), 7: (5, 0.1), 8: (6, 0.3)},  # `none`, however strong, has no say
        **{9: (4, 0.2), 10: (5, 0.3), 11: (6, 0.1), 12: (7, 0.1), 13: (1, 0.4)},
    }.items():
        weights[block][operation] = weights[block + 14][operation] = weight
    nodes = [
        *[("sep_conv_3x3", 0), ("dil_conv_5x5", 1), ("skip_connect", 0), ("max_pool_3x3", 2)],
        *[("sep_conv_3x3", 0), ("dil_conv_3x3", 3), ("sep_conv_5x5", 1), ("max_pool_3x3", 4)],
    ]
    text = darts_cell_pairs.SPACE.print(derive(weights))
    assert text == f"Genotype(normal={nodes}, normal_concat=range(2, 6), reduce={nodes}, reduce_concat=range(2, 6))"


# --- notation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ENCODINGS, ids=["edges", "pairs"])
def test_published_genotypes_are_read(module: Any) -> None:
    architecture = module.SPACE.parse(SECOND_ORDER)
    assert module.SPACE.parse(SECOND_ORDER.replace("range(2, 6)", "[2, 3, 4, 5]")) == architecture
    assert module.SPACE.parse(module.SPACE.print(architecture)) == architecture
    written = ast.parse(module.SPACE.print(architecture), mode="eval").body
    assert isinstance(written, ast.Call) and written.keywords[0].arg == "normal"
    assert sorted(ast.literal_eval(written.keywords[0].value)[:2]) == [("sep_conv_3x3", 0), ("sep_conv_3x3", 1)]


def test_nodes_without_two_edges_are_written_each_with_its_own_list() -> None:
    architecture = (4, *(0,) * 27)
    text = darts_cell.SPACE.print(architecture)
    assert "normal=[[('sep_conv_3x3', 0)], [], [], []]" in text
    assert darts_cell.SPACE.parse(text) == architecture


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(normal=print('run'), normal_concat=range(2, 6), reduce=[], reduce_concat=range(2, 6))",
        "Genotype()",
        SECOND_ORDER.replace("range(2, 6)", "range(2, 5)"),
        SECOND_ORDER.replace("range(2, 6)", "range(2, 10**9)"),
        SECOND_ORDER.replace("'sep_conv_3x3', 0", "'sep_conv_9x9', 0"),
        SECOND_ORDER.replace("'sep_conv_3x3', 0", "'sep_conv_3x3', 2", 1),
        SECOND_ORDER.replace("('sep_conv_3x3', 0), ", "", 1),
        "(" * 500,
    ],
)
def test_other_text_is_refused_in_one_line_and_not_run(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for module in ENCODINGS:
        with pytest.raises(UserError) as mistake:
            module.SPACE.parse(text)
        assert "\n" not in str(mistake.value)
    assert capsys.readouterr().out == ""


# --- the network --------------------------------------------------------------------------------------------------


def test_parameters_are_those_that_darts_published() -> None:
    """1.930618 M of the search network and 3.349342 M of the evaluation network, as its code prints.

    Its search network has a scale and a shift behind the stem, of 48 channels; ours has none anywhere.
    """
    searched = darts_cell.supernet(in_channels=3, classes=10, resolution=32)
    assert sum(parameter.numel() for parameter in searched.parameters()) == 1_930_618 - 2 * 48
    settings = {"channels": 36, "cells": 20, "normalise_pools": False, "drop_path": 0.2, "auxiliary": 0.4}
    evaluated = darts_cell_pairs.supernet(in_channels=3, classes=10, resolution=32, **settings)  # type: ignore[arg-type]
    subnet = evaluated.subnet(darts_cell_pairs.SPACE.parse(SECOND_ORDER))
    assert sum(parameter.numel() for parameter in subnet.finished().parameters()) == 3_349_342
    assert sum(parameter.numel() for parameter in subnet.parameters()) > 3_349_342


def test_a_none_is_not_computed_and_a_node_without_edges_is_zero() -> None:
    network = small()
    runs: Counter[str] = Counter()
    for module in network.modules():
        if isinstance(module, Zero | nn.Conv2d):
            module.register_forward_hook(lambda module, *_: runs.update([type(module).__name__]))
    logits_NK = network(images(), (0,) * 28)
    assert runs["Zero"] == 3 * 4  # one for each empty node, none on the edges
    torch.testing.assert_close(logits_NK, network.head[-1].bias.expand(6, 5))  # type: ignore[index,union-attr]


def test_reduction_by_two_convolutions_sees_every_pixel() -> None:
    reduce = FactorizedReduction(1, 2)
    for side in (7, 8):
        image_NCHW = torch.rand(1, 1, side, side, requires_grad=True)
        reduced_NCHW = reduce(image_NCHW)
        assert reduced_NCHW.shape == (1, 2, (side + 1) // 2, (side + 1) // 2)
        (gradient,) = torch.autograd.grad(reduced_NCHW.sum(), image_NCHW)
        assert (gradient[0, 0, ::2, ::2] != 0).all() and (gradient[0, 0, 1::2, 1::2] != 0).all()


def test_noise_is_standard_normal_and_independent_of_the_input_and_of_other_places() -> None:
    image_NCHW = torch.zeros(64, 8, 8, 8)
    noise, again = Noise(1, place=3)(image_NCHW), Noise(1, place=3)(image_NCHW + 1)
    assert torch.equal(noise, again)
    assert torch.equal(Noise(1, place=3)(image_NCHW[:5]), noise[:5])
    assert abs(float(noise.mean())) < 0.03 and abs(float(noise.std()) - 1) < 0.03
    pairs = torch.stack([noise[0].flatten(), noise[1].flatten(), Noise(1, place=4)(image_NCHW)[0].flatten()])
    assert (torch.corrcoef(pairs) - torch.eye(3)).abs().max() < 0.2
    assert Noise(2, place=3)(image_NCHW).shape == (64, 8, 4, 4)


@pytest.mark.parametrize(
    "settings",
    [{"cells": 2}, {"channels": 0}, {"drop_path": 1.0}, {"auxiliary": -1.0}, {"resolution": 4, "auxiliary": 1.0}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        small(**settings)


# --- stand-alone training -----------------------------------------------------------------------------------------


def test_the_auxiliary_head_is_trained_and_no_part_of_what_is_counted_or_exported() -> None:
    plain, network = small(darts_cell_pairs), small(darts_cell_pairs, auxiliary=0.4)
    architecture = pairs_of_different_inputs()
    subnet = network.subnet(architecture).train()
    (weight, logits_NK), (auxiliary_weight, auxiliary_NK) = subnet.training_logits(
        images(), progress=0.5, rng=torch.Generator()
    )
    assert (weight, auxiliary_weight) == (1, 0.4) and auxiliary_NK.shape == logits_NK.shape == (6, 5)
    finished = subnet.finished()
    assert torch.equal(finished.eval()(images()), subnet.eval()(images()))
    assert {name for name in subnet.state_dict() if "auxiliary" in name}
    assert {name for name in subnet.state_dict() if "auxiliary" not in name} == set(finished.state_dict())
    costs = {parameters(one, (3, 8, 8))(architecture) for one in (plain, network)}
    assert costs == {sum(parameter.numel() for parameter in finished.parameters())}
    assert plain.subnet(architecture).finished().architecture == architecture


def test_drop_path_drops_whole_terms_at_its_rate_and_keeps_their_mean() -> None:
    ones_NCHW = torch.ones(4000, 2, 3, 3)
    dropped_NCHW = drop_paths(ones_NCHW, rate=0.2, rng=torch.Generator().manual_seed(0))
    values_N = dropped_NCHW[:, 0, 0, 0]
    assert torch.equal(dropped_NCHW, values_N[:, None, None, None].expand_as(ones_NCHW))
    assert set(values_N.tolist()) == {0.0, 1.25}
    assert abs(float(values_N.mean()) - 1) < 0.03


def test_drop_path_rises_with_the_progress_and_spares_plain_skips() -> None:
    network = small(drop_path=0.5)
    subnet = network.subnet(to_edges(pairs_of_different_inputs())).train()

    def logits(progress: float, seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        ((_, logits_NK),) = subnet.training_logits(images(), progress=progress, rng=rng)
        return logits_NK

    assert torch.equal(logits(0.0, 0), subnet(images()))
    assert torch.equal(logits(1.0, 0), logits(1.0, 0))
    assert not torch.equal(logits(1.0, 0), logits(1.0, 1))
    cell = network.cells[0]
    inputs = (torch.randn(2, 12, 8, 8),) * 2
    skips, convolutions = (OPERATIONS.index(name) for name in (SKIP, "sep_conv_3x3"))
    assert torch.equal(cell(*inputs, (skips,) * 28, torch.zeros_like), cell(*inputs, (skips,) * 28, None))
    assert not cell(*inputs, (convolutions,) * 28, torch.zeros_like).any()


SETTINGS = {
    "space": {"name": "darts_cell_pairs", "settings": SMALL},
    "training": {"steps": 4, "batch_size": 32},
    "members": [{"method": "random_search"}],
    "retraining": {
        "epochs": 3,
        "batch_size": 32,
        "gradient_clip": 5.0,
        "space_settings": {"cells": 4, "normalise_pools": False, "drop_path": 0.5, "auxiliary": 0.4},
    },
}


def training(parts: Split) -> StandAloneTraining:
    config = check(SETTINGS)
    network = build_supernet(config, parts.dataset, seed=1, stand_alone=True).subnet(pairs_of_different_inputs())
    return StandAloneTraining(
        network, parts, settings=config.retraining, data=config.data, seed=1, device=torch.device("cpu")
    )


def test_resumed_training_with_drop_path_and_auxiliary_head_equals_undisturbed_training(tmp_path: Path) -> None:
    whole = load("digits")
    dataset = replace(whole, train_images_NCHW=whole.train_images_NCHW[:100], train_labels_N=whole.train_labels_N[:100])
    parts = split(dataset, 0.25, seed=0)
    undisturbed, stopped, resumed = training(parts), training(parts), training(parts)
    list(undisturbed.epochs())
    epochs = stopped.epochs()
    next(epochs)  # in the first epoch nothing is dropped yet
    next(epochs)
    save_state(Folder(str(tmp_path)), "state", stopped.state_dict())
    resumed.load_state_dict(load_state(Folder(str(tmp_path)), "state"))
    list(resumed.epochs())
    state = resumed.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in undisturbed.network.state_dict().items())
    assert [point["train_loss"] for point in resumed.curves] == [point["train_loss"] for point in undisturbed.curves]


def test_stand_alone_settings_that_change_the_choices_are_refused() -> None:
    make_plan(check(SETTINGS))
    with pytest.raises(UserError, match="variant"):
        make_plan(check({**SETTINGS, "retraining": {"space_settings": {"variant": "s2"}}}))


def test_none_is_left_out_of_pairs() -> None:
    assert all(NONE not in dict(pairs) for pairs in slot_pairs("s3"))
