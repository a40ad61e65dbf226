"""Muon: the direction is that of the nearest orthogonal matrix, the length a share of the kernel's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raynas.config import check
from raynas.errors import UserError
from raynas.muon import Muon, orthogonalised
from raynas.plan import make_plan
from tests.helpers import make_trainer, rule_plan, small_config

SETTINGS = {"lr": 0.05, "turn": 0.02, "momentum": 0.9, "weight_decay": 5e-4}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stepped(kernel: torch.Tensor, *gradients: torch.Tensor, **settings: float) -> torch.Tensor:
    """The kernel after a step along each of these gradients."""
    parameter = nn.Parameter(kernel.clone())
    optimizer = Muon([parameter], **{**SETTINGS, **settings})
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (3, 8, 8)])
def test_singular_vectors_stay_and_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    matrices = randn(*shape).double()
    u, values, vh = torch.linalg.svd(matrices, full_matrices=False)
    found = u.mT @ orthogonalised(matrices) @ vh.mT
    found_values = torch.diagonal(found, dim1=-2, dim2=-1)
    torch.testing.assert_close(found, torch.diag_embed(found_values))
    large = values > 0.15 * torch.linalg.matrix_norm(matrices, keepdim=True).squeeze(-1)
    assert large.any() and ((found_values[large] > 0.6) & (found_values[large] < 1.3)).all()


def test_a_kernel_moves_by_a_share_of_its_norm_whatever_its_scale_and_the_gradients() -> None:
    kernel, gradient = randn(8, 4, 3, 3), randn(8, 4, 3, 3, seed=1)
    moved = kernel - stepped(kernel, gradient)
    assert float(moved.norm()) == pytest.approx(0.02 * float(kernel.norm()), rel=1e-4)
    torch.testing.assert_close(kernel - stepped(kernel, 1000 * gradient), moved, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(10 * kernel - stepped(10 * kernel, gradient), 10 * moved, rtol=1e-3, atol=1e-5)
    direction = orthogonalised(gradient.flatten(1)).view_as(gradient)
    torch.testing.assert_close(moved / moved.norm(), direction / direction.norm(), rtol=1e-3, atol=1e-5)


def test_each_filter_of_a_depthwise_convolution_moves_by_a_share_of_its_own_norm() -> None:
    kernel, gradient = randn(5, 1, 3, 3), randn(5, 1, 3, 3, seed=1)
    moved = (kernel - stepped(kernel, gradient)).flatten(1)
    expected = 0.02 * kernel.flatten(1).norm(dim=1, keepdim=True) * nn.functional.normalize(gradient.flatten(1))
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-6)


def test_momentum_is_nesterovs() -> None:
    kernel, one, two = randn(4, 4, 1, 1), randn(4, 4, 1, 1, seed=1), randn(4, 4, 1, 1, seed=2)
    between = stepped(kernel, one)
    expected = orthogonalised((two + 0.9 * (0.9 * one + two)).flatten(1)).view_as(kernel)
    moved = between - stepped(kernel, one, two)
    torch.testing.assert_close(moved / moved.norm(), expected / expected.norm(), rtol=1e-3, atol=1e-5)


def test_kernels_of_one_shape_are_moved_as_each_alone_and_those_without_a_gradient_are_not() -> None:
    kernels = [randn(8, 4, 3, 3, seed=seed) for seed in range(3)]
    gradients = [randn(8, 4, 3, 3, seed=seed) for seed in (3, 4)]
    parameters = [nn.Parameter(kernel.clone()) for kernel in kernels]
    for parameter, gradient in zip(parameters, gradients, strict=False):
        parameter.grad = gradient
    Muon(parameters, **SETTINGS).step()
    for parameter, kernel, gradient in zip(parameters, kernels, gradients, strict=False):
        torch.testing.assert_close(parameter.detach(), stepped(kernel, gradient))
    assert torch.equal(parameters[2], kernels[2])


def test_all_else_is_moved_by_torchs_own_sgd() -> None:
    found, expected = nn.Linear(5, 3), nn.Linear(5, 3)
    expected.load_state_dict(found.state_dict())
    ours = Muon(found.parameters(), **SETTINGS)
    torchs = torch.optim.SGD(expected.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for seed in range(3):
        for network, optimizer in ((found, ours), (expected, torchs)):
            optimizer.zero_grad()
            network(randn(4, 5, seed=seed)).square().sum().backward()
            optimizer.step()
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_supernet_is_trained_and_its_id_says_so() -> None:
    muon = small_config(training={"optimizer": "muon"})
    trainer = make_trainer("fair", muon)
    trainer.advance()
    assert isinstance(trainer.optimizer, Muon) and trainer.optimizer.turn == 0.02
    other = small_config(training={"optimizer": "muon", "muon_turn": 0.03})
    assert len({rule_plan("fair", config)[1].id for config in (small_config(), muon, other)}) == 3
    assert rule_plan("fair", small_config(training={"optimizer": "sgd"}))[1].id == rule_plan("fair")[1].id


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match='expected optimizer = "muon" where muon_turn is set'):
        check({"training": {"muon_turn": 0.1}})
    with pytest.raises(UserError, match="darts2 looks one step of SGD ahead"):
        make_plan(check({"training": {"optimizer": "muon"}, "members": [{"method": "darts2"}]}))
