"""Fine-tuning moves a path's own copy of its weights, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from raynas.fine_tuning import fine_tuned
from raynas.supernet import BatchNorm, Supernet, seeded, touched
from search_spaces import nas_bench_201, nas_bench_macro

MACRO = {"in_channels": 2, "classes": 3, "resolution": 8, "channels": 4, "head_channels": 8}
PATHS = [(0, 1, 2, 0, 1, 2, 0, 1), (0, 1, 2, 0, 2, 2, 0, 1), (2,) * 8]


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 2, 8, 8, generator=generator), torch.randint(3, (6,), generator=generator)


BATCHES = [batch(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def network() -> Supernet:
    return seeded(nas_bench_macro.supernet, 0, **MACRO).eval()


def test_the_weights_are_those_of_sgd_on_the_path_alone() -> None:
    network = seeded(nas_bench_macro.supernet, 0, **MACRO).double()
    batches = [(images_NCHW.double(), labels_N) for images_NCHW, labels_N in BATCHES]
    for path in PATHS:
        alone = seeded(nas_bench_macro.supernet, 0, **MACRO).double()  # trained in place: no other path matters
        on_path = touched(alone.owners(), [path])
        for images_NCHW, labels_N in batches:
            loss = functional.cross_entropy(alone(images_NCHW, path).float(), labels_N)
            gradients = torch.autograd.grad(loss, on_path)
            norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
            with torch.no_grad():
                for parameter, gradient in zip(on_path, gradients, strict=True):
                    parameter -= 0.1 * gradient * min(1.0, 5.0 / (float(norm) + 1e-6))  # as torch clips
        expected = dict(alone.named_parameters())
        weights = fine_tuned(network, path, batches, 0.1)
        names = {name for name, parameter in expected.items() if any(parameter is one for one in on_path)}
        assert set(weights) == names
        for name, weight in weights.items():
            torch.testing.assert_close(weight, expected[name])
            assert not torch.equal(weight, network.get_parameter(name))


@pytest.mark.parametrize("failing", [False, True])
def test_the_supernet_is_left_as_it_was(network: Supernet, failing: bool) -> None:
    parameters = dict(network.named_parameters())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    if failing:
        bad = (torch.zeros(6, 5, 8, 8), BATCHES[0][1])
        with pytest.raises(RuntimeError, match="channels"):
            fine_tuned(network, PATHS[0], [BATCHES[0], bad], 0.1)
    else:
        fine_tuned(network, PATHS[0], BATCHES, 0.1)
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_order_of_children_has_no_say(network: Supernet) -> None:
    first = {path: fine_tuned(network, path, BATCHES, 0.1) for path in PATHS}
    for path in reversed(PATHS):
        again = fine_tuned(network, path, BATCHES, 0.1)
        assert all(torch.equal(weight, first[path][name]) for name, weight in again.items())


def test_a_few_steps_lower_the_loss_of_the_path() -> None:
    network = seeded(nas_bench_201.supernet, 0, in_channels=2, classes=3, resolution=8, channels=4, cells_per_stage=1)
    path, (images_NCHW, labels_N) = (3, 3, 2, 1, 3, 2), BATCHES[0]
    weights = fine_tuned(network, path, [BATCHES[0]] * 10, 0.1)
    before = functional.cross_entropy(network(images_NCHW, path), labels_N)
    after = functional.cross_entropy(functional_call(network, weights, (images_NCHW, path)), labels_N)
    assert after < 0.8 * before


def test_the_supernets_own_batch_norm_stays_in_place(network: Supernet) -> None:
    run: list[type[nn.Module]] = []
    handles = [
        module.register_forward_hook(lambda module, *_: run.append(type(module)))
        for module in network.modules()
        if isinstance(module, BatchNorm | nn.BatchNorm2d)
    ]
    fine_tuned(network, PATHS[2], BATCHES[:1], 0.1)
    for handle in handles:
        handle.remove()
    assert set(run) == {BatchNorm}
