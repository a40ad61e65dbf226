import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raynas.costs.latency_ms import latency_ms
from raynas.costs.macs import macs
from raynas.costs.parameters import parameters
from raynas.members import family, load_member
from raynas.supernet import BatchNorm, Choice, Choices, Supernet, seeded


class Twice(Supernet):
    """Block 0 is in two places, so that its choice costs twice; block 1 is in one."""

    def __init__(self) -> None:
        super().__init__()
        self.near = Choice(0, [nn.Identity(), nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 3, padding=1)])
        self.far = Choice(0, [nn.Identity(), nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 3, padding=1)])
        self.norm = Choice(1, [nn.Identity(), BatchNorm(3)])
        self.head = nn.Linear(3, 5)

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        features = self.norm(self.far(self.near(images_NCHW, architecture), architecture), architecture)
        return self.head(features.mean((2, 3)))


@pytest.fixture
def network() -> Supernet:
    return seeded(Twice, 0)


@pytest.mark.parametrize("name", family("raynas.costs"))
def test_every_cost_gives_a_finite_number_that_depends_on_the_architecture_alone(name: str, network: Supernet) -> None:
    make: Callable[..., Any] = load_member("raynas.costs", name)
    assert list(inspect.signature(make).parameters)[:2] == ["supernet", "image_shape_CHW"]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    cost = make(network, (3, 8, 8))
    values = [cost((2, 1)), cost((0, 0)), cost((2, 1))]
    assert all(isinstance(value, float) and 0 < value < float("inf") for value in values)
    assert values[0] == values[2]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())


def test_parameters_count_every_place_of_a_block_and_the_scale_of_batch_norm(network: Supernet) -> None:
    cost = parameters(network, (3, 8, 8))
    assert cost((0, 0)) == 3 * 5 + 5
    assert cost((1, 0)) == cost((0, 0)) + 2 * 9
    assert cost((2, 1)) == cost((0, 0)) + 2 * (81 + 3) + 6


def test_macs_count_convolutions_per_pixel_and_neither_bias_nor_batch_norm(network: Supernet) -> None:
    cost = macs(network, (3, 8, 8))
    assert cost((0, 0)) == cost((0, 1)) == 3 * 5
    assert cost((1, 0)) == cost((0, 0)) + 2 * 9 * 64
    assert cost((2, 1)) == cost((0, 0)) + 2 * 81 * 64
    assert macs(network, (3, 16, 16))((1, 0)) == 3 * 5 + 2 * 9 * 256


def test_latency_is_measured_once_per_architecture(network: Supernet, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[Any] = []
    subnet = network.subnet
    monkeypatch.setattr(network, "subnet", lambda architecture: cut.append(architecture) or subnet(architecture))
    cost = latency_ms(network, (3, 8, 8), repeats=3)
    assert cost((1, 1)) == cost((1, 1))
    assert cut == [(1, 1)]


def test_latency_times_the_eval_mode_subnet_on_the_asked_batch(network: Supernet) -> None:
    seen = []

    class Probe(nn.Module):
        def forward(self, features_NCHW: Tensor) -> Tensor:
            seen.append((features_NCHW.shape[0], self.training, torch.is_grad_enabled()))
            return features_NCHW

    network.near.options[0] = Probe()  # type: ignore[union-attr,operator]
    latency_ms(network, (3, 8, 8), batch_size=7, warm_up=2, repeats=3)((0, 0))
    assert seen == [(7, False, False)] * 5
