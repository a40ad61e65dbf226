"""Hypervolume of points that are all minimised, and the choice of those that add most to it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from raynas import seeds
from raynas.hypervolume import hypervolume, most_hypervolume


def points(count: int, seed: int = 0) -> NDArray[np.float64]:
    """On a grid of eighths, with repeated ones."""
    return seeds.generator(seed, "points").integers(9, size=(count, 2)) / 8


def counted(objectives_A2: NDArray[np.float64]) -> float:
    """The share of the 64 cells of that grid that some point dominates."""
    cells_C2 = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 2) / 8
    return float(np.mean([np.any(np.all(objectives_A2 <= cell, axis=1)) for cell in cells_C2]))


@pytest.mark.parametrize("count", [0, 1, 2, 10])
def test_it_is_the_share_of_what_is_dominated(count: int) -> None:
    for seed in range(5):
        assert hypervolume(points(count, seed)) == pytest.approx(counted(points(count, seed)))


def test_each_choice_adds_more_than_any_other_would() -> None:
    for seed in range(10):
        objectives_A2 = points(12, seed)
        chosen = most_hypervolume(objectives_A2, 12)
        assert chosen[0] == 0 and sorted(chosen) == list(range(12))
        for size in range(1, 12):
            volumes = {row: counted(objectives_A2[[*chosen[:size], row]]) for row in chosen[size:]}
            best = max(volumes.values())
            assert chosen[size] == min(row for row, volume in volumes.items() if volume == best)


def test_fewer_are_the_first_of_more() -> None:
    objectives_A2 = points(12)
    assert most_hypervolume(objectives_A2, 5) == most_hypervolume(objectives_A2, 30)[:5]
    assert most_hypervolume(objectives_A2, 0) == most_hypervolume(points(0), 3) == []
