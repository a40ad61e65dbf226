"""What each proxy computes, on networks small enough to do it by hand; and what every proxy must do on every space."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raynas import seeds
from raynas.architecture import Architecture
from raynas.config import DataSettings
from raynas.costs.macs import macs as macs_cost
from raynas.costs.parameters import parameters as parameters_cost
from raynas.data import load, split
from raynas.evaluation import Evaluation
from raynas.members import family, load_member
from raynas.proxies.complexity import complexity
from raynas.proxies.expressivity import expressivity
from raynas.proxies.grad_norm import grad_norm
from raynas.proxies.jacob_cov import jacob_cov
from raynas.proxies.macs import macs
from raynas.proxies.naswot import naswot
from raynas.proxies.nn_degree import nn_degree
from raynas.proxies.parameters import parameters
from raynas.proxies.progressivity import progressivity
from raynas.proxies.snip import snip
from raynas.proxies.synflow import synflow
from raynas.proxies.trainability import trainability
from raynas.proxies.trainable_layers import trainable_layers
from raynas.proxies.zen import PERTURBATION, zen
from raynas.proxies.zico import zico
from raynas.proxy_evaluator import Proxy, ProxyEvaluator
from raynas.supernet import seeded
from raynas.testing import CLASSES, IMAGE_CHW, check_proxy_is_a_pure_function_of_network_images_and_seed
from search_spaces import nas_bench_201

PROXIES = family("raynas.proxies")
NONE = (nas_bench_201.NONE,) * 6
ISOMORPHIC = ((1, 4, 4, 0, 4, 1), (4, 4, 1, 0, 1, 1)), ((0, 2, 0, 0, 2, 1), (0, 0, 1, 2, 0, 1))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(seeds.generator(seed, "drawn").standard_normal(shape, dtype=np.float32))


def linear(*matrices: Tensor) -> nn.Linear:
    """The layer of this weight, without bias."""
    (weight,) = matrices
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight)
    return layer


def pointwise(weight: Tensor, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1, stride, bias=False)
    layer.weight = nn.Parameter(weight[:, :, None, None])
    return layer


def score(proxy: Proxy, network: nn.Module, images_NCHW: Tensor, labels_N: Tensor | None = None) -> float:
    return proxy(
        network, images_NCHW, torch.zeros(len(images_NCHW)).long() if labels_N is None else labels_N, rng=rng()
    )


IMAGES = drawn(8, 1, 2, 2)
LABELS = torch.arange(8) % 3
WEIGHT = drawn(3, 4, seed=1)


def gradient(images: slice = slice(None)) -> Tensor:
    """Of the mean cross-entropy of one linear layer, written out: (softmax - one-hot)' x / N."""
    inputs_NF, labels_N = IMAGES[images].flatten(1), LABELS[images]
    wrong_NK = functional.softmax(inputs_NF @ WEIGHT.T, 1) - functional.one_hot(labels_N, 3)
    return wrong_NK.T @ inputs_NF / len(inputs_NF)


def test_grad_norm_sums_the_norms_of_the_layers() -> None:
    network = nn.Sequential(nn.Flatten(), linear(WEIGHT))
    assert score(grad_norm, network, IMAGES, LABELS) == pytest.approx(float(gradient().norm()), rel=1e-5)
    deeper = nn.Sequential(nn.Flatten(), linear(drawn(4, 4)), nn.ReLU(), linear(WEIGHT))
    functional.cross_entropy(deeper(IMAGES), LABELS).backward()
    expected = sum(float(layer.weight.grad.norm()) for layer in (deeper[1], deeper[3]))
    assert score(grad_norm, deeper, IMAGES, LABELS) == pytest.approx(expected, rel=1e-5)


def test_snip_sums_weight_times_gradient() -> None:
    network = nn.Sequential(nn.Flatten(), linear(WEIGHT))
    expected = float((gradient() * WEIGHT).abs().sum())
    assert score(snip, network, IMAGES, LABELS) == pytest.approx(expected, rel=1e-5)


def test_zico_is_the_mean_over_the_deviation_of_the_halves_gradients() -> None:
    network = nn.Sequential(nn.Flatten(), linear(WEIGHT))
    first, second = gradient(slice(0, 4)).double(), gradient(slice(4, 8)).double()
    ratios = ((first.abs() + second.abs()) / 2) / ((first - second).abs() / 2)
    assert score(zico, network, IMAGES, LABELS) == pytest.approx(float(ratios.sum().log()), rel=1e-4)


def test_zico_needs_two_images_a_batch() -> None:
    with pytest.raises(ValueError, match="at least 4 images, but got 3"):
        score(zico, nn.Sequential(nn.Flatten(), linear(WEIGHT)), IMAGES[:3], LABELS[:3])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.GELU])
def test_synflow_sums_the_paths_of_the_linear_network_once_for_each_layer(activation: Callable[[], nn.Module]) -> None:
    first, second = 10 * drawn(3, 4), drawn(2, 3)
    network = nn.Sequential(nn.Flatten(), linear(first), activation(), linear(second))
    flow = float((second.abs().double() @ first.abs().double()).sum())
    assert score(synflow, network, IMAGES) == pytest.approx(2 * flow, rel=1e-9)


def test_synflow_sees_neither_images_nor_batch_norm() -> None:
    convolutions = [nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)]
    plain = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(16, 3, bias=False))
    normed = nn.Sequential(convolutions[0], nn.BatchNorm2d(4, eps=0), *plain[1:])
    assert score(synflow, plain, IMAGES) == score(synflow, normed, 7 * IMAGES) > 0


def test_synflow_stays_finite_in_a_deep_network() -> None:
    network = nn.Sequential(*(linear(drawn(64, 64, seed=number)) for number in range(60)))
    assert 1e50 < score(synflow, network, drawn(2, 64)) < float("inf")


def test_naswot_is_the_log_determinant_of_agreeing_units() -> None:
    codes_NU = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0]])
    images_NCHW = torch.tensor(codes_NU, dtype=torch.float32).reshape(3, 1, 2, 2) - 0.5
    network = nn.Sequential(nn.ReLU(), nn.Flatten(), linear(-torch.eye(4)), nn.ReLU(), linear(WEIGHT))
    both_NU = np.hstack([codes_NU, np.zeros_like(codes_NU)])  # behind the second ReLU's input, which is never above 0
    agreeing_NN = (both_NU[:, None] == both_NU).sum(-1)
    assert score(naswot, network, images_NCHW) == pytest.approx(np.linalg.slogdet(agreeing_NN)[1])


@pytest.mark.parametrize(
    "activate", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.GELU(), nn.Hardswish(), functional.relu, torch.relu]
)
def test_naswot_sees_activations_however_they_are_called(activate: Callable[[Tensor], Tensor]) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear(WEIGHT)

        def forward(self, images_NCHW: Tensor) -> Tensor:
            return self.layer(activate(images_NCHW.clone()).flatten(1))

    assert score(naswot, Network(), IMAGES) == score(naswot, nn.Sequential(nn.ReLU(), nn.Flatten()), IMAGES)


def test_naswot_ranks_images_that_cannot_be_told_apart_last() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Flatten(), linear(WEIGHT))
    alike = score(naswot, network, IMAGES.abs())
    assert -100 < alike < score(naswot, network, IMAGES)


class Squares(nn.Module):
    """Logits that are linear in the squares of the pixels, so that the derivatives are linear in the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear(WEIGHT)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.layer(images_NCHW.flatten(1).square())


def test_jacob_cov_is_taken_of_the_eigenvalues_of_the_correlations() -> None:
    images_NCHW = IMAGES[:3]
    jacobians_NF = (2 * images_NCHW.flatten(1) * WEIGHT.sum(0)).double().numpy()
    eigenvalues_N = np.linalg.eigvalsh(np.corrcoef(jacobians_NF)) + 1e-5
    expected = -np.sum(np.log(eigenvalues_N) + 1 / eigenvalues_N)
    assert score(jacob_cov, Squares(), images_NCHW) == pytest.approx(expected, rel=1e-4)


def test_jacob_cov_ranks_a_network_that_is_linear_in_its_images_last() -> None:
    alike = score(jacob_cov, nn.Sequential(nn.Flatten(), linear(WEIGHT)), IMAGES[:3])
    eigenvalues_N = np.array([0, 0, 3]) + 1e-5
    assert alike == pytest.approx(-np.sum(np.log(eigenvalues_N) + 1 / eigenvalues_N), rel=1e-6)
    assert alike < score(jacob_cov, Squares(), IMAGES[:3])


def test_zen_measures_how_far_a_perturbation_of_gaussian_images_is_carried() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    draws = rng()
    weight_KF = torch.randn(3, 4, generator=draws)
    _, second_NCHW = (torch.randn(IMAGES.shape, generator=draws) for _ in range(2))
    moved = (PERTURBATION * second_NCHW.flatten(1) @ weight_KF.T).abs().sum(1).mean()
    assert score(zen, network, IMAGES) == pytest.approx(float(moved.log()), rel=1e-4)


def test_zen_looks_before_the_global_pooling() -> None:
    body = [nn.Conv2d(1, 4, 1), nn.Flatten(2), nn.Unflatten(2, (2, 2))]
    flat, pooled = nn.Sequential(*body), nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity())
    assert score(zen, pooled, IMAGES) == score(zen, flat, IMAGES)


def test_zen_undoes_the_levelling_of_batch_norm() -> None:
    images_NCHW = drawn(256, 3, 4, 4)
    plain = nn.Sequential(nn.Conv2d(3, 1, 3))
    normed = nn.Sequential(nn.Conv2d(3, 1, 3), nn.BatchNorm2d(1))
    assert score(zen, normed, images_NCHW) == pytest.approx(score(zen, plain, images_NCHW), abs=1e-2)


def orthogonal(channels: int) -> Tensor:
    return torch.linalg.qr(drawn(channels, channels))[0]


def test_expressivity_and_progressivity_count_the_directions_of_each_blocks_features() -> None:
    spread, again, merge = pointwise(orthogonal(4)), pointwise(orthogonal(4)), pointwise(torch.ones(4, 4))
    images_NCHW = drawn(256, 4, 4, 4)
    one, same, fewer = (nn.Sequential(spread, after) for after in (nn.Flatten(), again, merge))
    assert score(expressivity, one, images_NCHW) == pytest.approx(np.log(4), abs=1e-3)
    assert score(expressivity, same, images_NCHW) == pytest.approx(2 * np.log(4), abs=2e-3)
    assert score(progressivity, one, images_NCHW) == 0
    assert score(progressivity, same, images_NCHW) == pytest.approx(0, abs=1e-4)
    assert score(progressivity, fewer, images_NCHW) == pytest.approx(-np.log(4), abs=1e-3)


@pytest.mark.parametrize(("scale", "stride"), [(1.0, 1), (2.0, 1), (0.5, 1), (2.0, 2)])
def test_trainability_is_best_where_a_block_keeps_the_size_of_gradients(scale: float, stride: int) -> None:
    network = nn.Sequential(pointwise(orthogonal(4)), pointwise(scale * orthogonal(4), stride))
    expected = 2 - scale - 1 / scale
    assert score(trainability, network, drawn(256, 4, 7, 7)) == pytest.approx(expected, abs=0.1)


def test_trainability_ranks_blocks_that_pass_all_or_nothing_last() -> None:
    images_NCHW = drawn(16, 4, 4, 4)
    passing = nn.Sequential(pointwise(orthogonal(4)), nn.Identity())
    stopping = nn.Sequential(pointwise(orthogonal(4)), pointwise(torch.zeros(4, 4)))
    assert score(trainability, passing, images_NCHW) == score(trainability, stopping, images_NCHW) < -1e5


def test_nn_degree_of_a_cell_made_by_hand() -> None:
    class Cells(nn.Module):
        """Two cells: layers of 4, 4 and 8 channels at 4x4 with a sum of 4 and 4 channels in front of 8; 6 at 2x2."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.third, self.down = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1, stride=2)
            self.gate, self.head = nn.Conv2d(6, 6, 1), nn.Linear(6, 3)

        def forward(self, images_NCHW: Tensor) -> Tensor:
            first = self.first(images_NCHW)
            summed = self.second(torch.relu(first)) + first
            features = self.down(self.third(torch.cat([summed, first], 1)))
            gates = self.gate(features.mean((2, 3), keepdim=True)) + 1.0
            return self.head((features * gates).mean((2, 3)))

    assert score(nn_degree, Cells(), drawn(2, 1, 4, 4)) == pytest.approx(16 / 3 + (4 + 4) / 16 + 6)


def test_trainable_layers_counts_convolutions_and_linear_layers() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    assert score(trainable_layers, network, IMAGES) == 2


@pytest.fixture(scope="module")
def small() -> Callable[[str], ProxyEvaluator]:
    """An evaluator of a small network of NAS-Bench-201 on eight digits, by the proxy's name."""
    digits = split(load("digits"), 0.25, 0)
    settings = {"in_channels": 1, "classes": 10, "resolution": 8, "channels": 4, "cells_per_stage": 1}

    def build(proxy: str) -> ProxyEvaluator:
        return ProxyEvaluator(
            proxy=proxy,
            supernet=seeded(nas_bench_201.supernet, 0, **settings),
            canonicalise=nas_bench_201.SPACE.canonicalise,
            split=digits,
            data=DataSettings(),
            images=8,
            seed=0,
            device=torch.device("cpu"),
        )

    return build


def measured(evaluator: ProxyEvaluator, architecture: Architecture) -> float:
    (objective,) = evaluator.measure(architecture).objectives
    return -objective


def test_proxies_that_are_costs_are_those_costs(small: Callable[[str], ProxyEvaluator]) -> None:
    supernet, architecture = small("macs").supernet, (3, 2, 3, 1, 4, 0)
    subnet, images_NCHW = supernet.subnet(architecture), drawn(2, 1, 8, 8)
    assert score(parameters, subnet, images_NCHW) == parameters_cost(supernet, (1, 8, 8))(architecture)
    assert score(macs, subnet, images_NCHW) == macs_cost(supernet, (1, 8, 8))(architecture)
    assert score(complexity, subnet, images_NCHW) == score(macs, subnet, images_NCHW)


def test_isomorphic_cells_have_one_score(small: Callable[[str], ProxyEvaluator]) -> None:
    evaluator = small("naswot")
    for one, twin in ISOMORPHIC:
        assert measured(evaluator, one) == measured(evaluator, twin)


def breaks(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    raise RuntimeError("CUDA error: an illegal access")


def test_what_a_proxy_cannot_score_says_why(small: Callable[[str], ProxyEvaluator]) -> None:
    evaluator = small("naswot")
    evaluator.proxy = lambda *_, rng: float("nan")
    assert evaluator.measure(NONE) == Evaluation(NONE, (), "the score is nan")
    evaluator.proxy = breaks
    with pytest.raises(RuntimeError, match="an illegal access"):
        evaluator.measure(NONE)
    evaluator.images_NCHW = evaluator.images_NCHW[:2]
    evaluator.proxy = zico
    assert evaluator.measure(NONE).failure == "ValueError: expected at least 4 images, but got 2; raise their number."


@pytest.mark.parametrize("name", [name for name in PROXIES if name != "nn_degree"])  # which does not look at operations
def test_a_cell_that_lets_nothing_through_is_ranked_last(name: str, small: Callable[[str], ProxyEvaluator]) -> None:
    evaluator, space = small(name), nas_bench_201.SPACE
    others = [space.sample(seeds.generator(number, "cells")) for number in range(3)]
    assert measured(evaluator, NONE) <= min(measured(evaluator, one) for one in others)


@pytest.mark.parametrize("space", family("search_spaces"))
def test_every_proxy_keeps_the_contract_on_every_space(space: str) -> None:
    file = importlib.import_module(f"search_spaces.{space}")
    settings = {"in_channels": IMAGE_CHW[0], "classes": CLASSES, "resolution": IMAGE_CHW[1]}
    supernet = seeded(file.supernet, 0, **settings, **getattr(file, "SMALL", {}))
    network = supernet.subnet(file.SPACE.sample(seeds.generator(0, "architecture")))
    for name in PROXIES:
        check_proxy_is_a_pure_function_of_network_images_and_seed(load_member("raynas.proxies", name), network)
