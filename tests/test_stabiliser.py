"""The stabiliser on skips: linear, merged exactly, there while searching, gone from what is derived."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from raynas.costs.macs import macs
from raynas.costs.parameters import parameters
from raynas.data import load, split
from raynas.scoring_images import draw_images
from raynas.stabiliser import EquivariantStabiliser, merged
from raynas.supernet import Supernet, seeded
from raynas.supernet_evaluator import Costs, SupernetEvaluator
from raynas.testing import SPACE_CHECKS
from search_spaces.nas_bench_macro import SPACE, supernet
from tests.helpers import make_trainer, small_config

SETTINGS = {"channels": 2, "head_channels": 8}
SKIPS = (0, 0, 0, 1, 0, 2, 0, 0)
"""Skips in layers 2, 5, 7 and 8 of stride 1, and the identities of layers 1 and 3, which are convolutions."""


def small(*, stabiliser: bool = True, seed: int = 0) -> Supernet:
    return seeded(supernet, seed, in_channels=1, classes=10, resolution=8, **SETTINGS, stabiliser=stabiliser)


def moved(network: Supernet) -> Supernet:
    """The network with stabilisers that are no longer the identity."""
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in stabilisers(network):
            layer.weight.add_(0.3 * torch.randn_like(layer.weight))
    return network


def stabilisers(network: nn.Module) -> list[EquivariantStabiliser]:
    return [module for module in network.modules() if isinstance(module, EquivariantStabiliser)]


@pytest.fixture(name="trained")
def _trained() -> EquivariantStabiliser:
    torch.manual_seed(0)
    layer = EquivariantStabiliser(6).double()
    nn.init.normal_(layer.weight)
    return layer


@pytest.fixture(name="images_NCHW")
def _images() -> Tensor:
    return torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("check", SPACE_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_space_with_stabilisers_is_a_space(check: object) -> None:
    check(SPACE, partial(supernet, **SETTINGS, stabiliser=True))  # type: ignore[operator]


def test_it_is_linear(trained: EquivariantStabiliser) -> None:
    x, y = torch.randn(2, 3, 6, 5, 4, dtype=torch.float64)
    together = trained(2.5 * x - 0.75 * y)
    torch.testing.assert_close(together, 2.5 * trained(x) - 0.75 * trained(y), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(6, 18, kernel_size=1, bias=False),
        nn.Conv2d(6, 4, kernel_size=1, stride=2),
        nn.Conv2d(6, 4, kernel_size=3, padding=1, dilation=1),
    ],
)
def test_the_next_convolution_takes_it_up_exactly(convolution: nn.Conv2d, trained: EquivariantStabiliser) -> None:
    convolution = convolution.double()
    inputs_NCHW = torch.randn(3, 6, 7, 5, dtype=torch.float64)
    one = merged(convolution, trained)
    torch.testing.assert_close(one(inputs_NCHW), convolution(trained(inputs_NCHW)), rtol=0, atol=1e-12)
    assert not torch.allclose(one(inputs_NCHW), convolution(inputs_NCHW), atol=0.1)


def test_a_grouped_convolution_cannot_take_it_up(trained: EquivariantStabiliser) -> None:
    with pytest.raises(ValueError, match="one group"):
        merged(nn.Conv2d(6, 6, 3, groups=6), trained)


def test_identities_of_stride_1_have_their_own_and_the_others_none() -> None:
    network = small()
    places = [
        choice.block
        for choice in network.choices()
        for option in choice.options
        if isinstance(option, EquivariantStabiliser)
    ]
    assert places == [1, 3, 4, 6, 7]
    assert len({layer.weight.data_ptr() for layer in stabilisers(network)}) == 5
    assert not stabilisers(small(stabiliser=False))


def test_it_starts_as_the_skip_and_changes_no_other_weight(images_NCHW: Tensor) -> None:
    with_it, without = small(), small(stabiliser=False)
    shared = without.state_dict()
    assert all(torch.equal(value, with_it.state_dict()[name]) for name, value in shared.items())
    assert torch.equal(with_it(images_NCHW, SKIPS), without(images_NCHW, SKIPS))


def test_derived_networks_and_costs_are_those_without_it(images_NCHW: Tensor) -> None:
    with_it, without = moved(small()), small(stabiliser=False)
    assert not torch.allclose(with_it(images_NCHW, SKIPS), without(images_NCHW, SKIPS), atol=1e-3)
    derived, plain = with_it.subnet(SKIPS), without.subnet(SKIPS)
    assert not stabilisers(derived)
    assert torch.equal(derived(images_NCHW), plain(images_NCHW))
    assert derived.state_dict().keys() == plain.state_dict().keys()
    for cost in (parameters, macs):
        assert cost(with_it, (1, 8, 8))(SKIPS) == cost(without, (1, 8, 8))(SKIPS)
    program = torch.export.export(derived.eval(), (images_NCHW,))
    assert set(program.state_dict) == set(plain.state_dict())


@pytest.mark.parametrize("mode", ["batch", "recalibrated"])
def test_training_moves_it_and_scores_use_it(mode: str) -> None:
    settings = {"channels": 8, "head_channels": 8, "stabiliser": True}  # 2: oneDNN's strided 1x1 corrupts memory
    space = {"name": "nas_bench_macro", "settings": settings}
    config = small_config(space=space, evaluation={"costs": [], "batch_norm": mode}, selector={"cost": ""})
    trainer = make_trainer("fair", config)
    for _ in range(3):
        trainer.train_step()
    layers = stabilisers(trainer.supernet)
    identities = [torch.eye(len(layer.weight)) for layer in layers]
    assert all(not torch.equal(layer.weight[:, :, 0, 0], eye) for layer, eye in zip(layers, identities, strict=True))
    evaluator = SupernetEvaluator(
        supernet=trainer.supernet,
        space=SPACE,
        images=draw_images(split(load("digits"), 0.25, seed=0), config, torch.device("cpu")),
        settings=config.evaluation,
        costs=Costs((), {}, trainer.supernet, (1, 8, 8)),
        device=torch.device("cpu"),
    )
    stabilised = evaluator.score(SKIPS)
    with torch.no_grad():
        for layer, eye in zip(layers, identities, strict=True):
            layer.weight.copy_(eye[:, :, None, None])
    assert evaluator.score(SKIPS) != stabilised
