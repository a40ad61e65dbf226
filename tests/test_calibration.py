"""A path's BatchNorm statistics are averages over its own calls, and belong to whoever recorded them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raynas.calibration import Statistics
from raynas.supernet import BatchNorm, Choices, Supernet, seeded
from search_spaces import nas_bench_macro

BATCHES = [torch.randn(n, 2, 3, 3, generator=torch.Generator().manual_seed(n)) * n for n in (4, 5, 9)]
MACRO = {"in_channels": 2, "classes": 3, "resolution": 8, "channels": 4, "head_channels": 8}
PATHS = [(0, 1, 2, 0, 1, 2, 0, 1), (0, 1, 2, 0, 2, 2, 0, 1), (2,) * 8]


def images(seed: int) -> Tensor:
    return torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> Supernet:
    return seeded(nas_bench_macro.supernet, 0, **MACRO).eval()


@torch.no_grad()
def recorded(network: Supernet, path: Choices) -> Statistics:
    statistics = Statistics()
    with statistics.recorded():
        for seed in range(3):
            network(images(seed), path)
    return statistics


@torch.no_grad()
def logits(network: Supernet, path: Choices, statistics: Statistics) -> Tensor:
    with statistics.used():
        return network(images(9), path)


def test_statistics_are_averages_over_the_batches_and_the_batch_at_hand_has_no_say() -> None:
    layer, statistics = BatchNorm(2), Statistics()
    with statistics.recorded():
        outputs = [layer(batch) for batch in BATCHES]
    assert all(torch.equal(output, layer(batch)) for output, batch in zip(outputs, BATCHES, strict=True))
    mean_C = torch.stack([batch.mean((0, 2, 3)) for batch in BATCHES]).mean(0)
    variance_C = torch.stack([batch.var((0, 2, 3)) for batch in BATCHES]).mean(0)
    with statistics.used():
        output = layer(BATCHES[0][:1])
    torch.testing.assert_close(
        output, (BATCHES[0][:1] - mean_C[:, None, None]) / (variance_C + layer.eps).sqrt()[:, None, None]
    )


def test_a_layer_that_is_called_twice_averages_over_both_calls() -> None:
    layer, once = BatchNorm(2), nn.BatchNorm2d(2, momentum=None)
    statistics = Statistics()
    with statistics.recorded():
        layer(layer(BATCHES[0]) * 3 + 1)
    once(once(BATCHES[0]) * 3 + 1)
    with statistics.used():
        torch.testing.assert_close(layer(BATCHES[1]), once.eval()(BATCHES[1]))


def test_each_width_of_a_layer_has_its_own_statistics() -> None:
    layer, statistics = BatchNorm(2), Statistics()
    with statistics.recorded():
        for batch in BATCHES:
            layer(batch)
            layer(batch[:, :1] + 5)
    alone = Statistics()
    with alone.recorded():
        for batch in BATCHES:
            layer(batch[:, :1] + 5)
    for width, expected in ((1, alone), (2, statistics)):
        with statistics.used():
            found = layer(BATCHES[0][:, :width])
        with expected.used():
            assert torch.equal(found, layer(BATCHES[0][:, :width]))


def test_other_paths_in_between_do_not_leak(network: Supernet) -> None:
    expected = {path: logits(network, path, recorded(network, path)) for path in PATHS}
    mixed = {path: Statistics() for path in PATHS}
    with torch.no_grad():
        for seed in range(3):
            for path in PATHS:  # interleaved, with a path that nobody records after each
                with mixed[path].recorded():
                    network(images(seed), path)
                network(100 * images(seed), PATHS[0])
    for path in reversed(PATHS):
        assert torch.equal(logits(network, path, mixed[path]), expected[path])
    assert len({float(one.sum()) for one in expected.values()}) == len(PATHS)


def test_a_network_outside_the_block_uses_its_batch_whatever_happened_inside(network: Supernet) -> None:
    before_NK = network(images(9), PATHS[0])
    statistics = recorded(network, PATHS[0])
    with pytest.raises(KeyboardInterrupt), statistics.used():
        raise KeyboardInterrupt
    assert torch.equal(network(images(9), PATHS[0]), before_NK)
    assert not torch.equal(logits(network, PATHS[0], statistics), before_NK)


def test_a_path_that_was_not_recorded_is_refused(network: Supernet) -> None:
    statistics = recorded(network, PATHS[0])
    with pytest.raises(RuntimeError, match="expected the path whose statistics were recorded"):
        logits(network, PATHS[2], statistics)
