"""Progressive search: methods.md 4.7; what every strategy must do is in test_strategies.py."""

from __future__ import annotations

import numpy as np
import pytest
import scipy

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.mean_embedding import MeanEmbedding
from raynas.strategies.progressive import Progressive
from raynas.strategies.random_search import RandomSearch
from search_spaces import pnas_cell

SPACE = pnas_cell.space(blocks=4, growing=True)
LAYOUT = pnas_cell.Layout(4, True)
WORTH = seeds.generator(0, "worth").uniform(size=len(pnas_cell.OPERATIONS))


def error(cell: Architecture) -> float:
    """Planted: larger cells are better, and so are some operations wherever they stand."""
    parts = LAYOUT.split(cell)
    worths = [WORTH[choice % len(WORTH)] for part in parts for choice in part]
    return float(1 - np.mean(worths) - 0.02 * len(parts))


def run(strategy: Progressive | RandomSearch, budget: int, batch: int = 16) -> list[Architecture]:
    asked: list[Architecture] = []
    while len(asked) < budget and (cells := strategy.ask(min(batch, budget - len(asked)))):
        strategy.tell([Evaluation(cell, (error(cell),)) for cell in cells])
        asked += cells
    return asked


def sizes(cells: list[Architecture]) -> list[int]:
    return [len(LAYOUT.split(cell)) for cell in cells]


def test_cells_grow_by_a_part_at_a_time_and_each_level_is_scored_before_the_next() -> None:
    found = sizes(run(Progressive(SPACE, seed=0, first=24, beam=8), 24 + 3 * 8, batch=8))
    assert found == [1] * 24 + [2] * 8 + [3] * 8 + [4] * 8


def test_all_136_cells_of_one_block_are_the_first_level_of_the_paper() -> None:
    cells = run(Progressive(SPACE, seed=0, first=136, beam=4), 140, batch=4)
    assert sizes(cells) == [1] * 136 + [2] * 4
    assert len({SPACE.canonicalise(cell) for cell in cells}) == 140


def test_every_larger_cell_is_one_of_the_level_before_with_a_part_more() -> None:
    cells = run(Progressive(SPACE, seed=1, first=24, beam=8), 40, batch=8)
    for smaller, larger in ((1, 2), (2, 3)):
        parents = [LAYOUT.split(cell) for cell in cells if len(LAYOUT.split(cell)) == smaller]
        grown = {
            SPACE.canonicalise(LAYOUT.join([*parent, (left, right)]))
            for parent in parents
            for left in range(8 * (smaller + 2))
            for right in range(8 * (smaller + 2))
        }
        assert {SPACE.canonicalise(cell) for cell in cells if len(LAYOUT.split(cell)) == larger} <= grown


def test_the_surrogate_extrapolates_to_cells_with_a_block_more() -> None:
    """Fitted to cells of up to two blocks, it ranks random ones of three."""
    rng = seeds.generator(0, "cells")

    def cells(count: int, size: int) -> list[list[tuple[int, int]]]:
        return [LAYOUT.split((size - 1, *SPACE.sample(rng)[1:])) for _ in range(count)]

    def errors(of: list[list[tuple[int, int]]]) -> list[float]:
        return [error(LAYOUT.join(cell)) for cell in of]

    known, new = cells(60, 1) + cells(60, 2), cells(100, 3)
    surrogate = MeanEmbedding([40, 40])
    surrogate.fit(known, 1 - scipy.stats.rankdata(errors(known)) / len(known), rng)
    assert scipy.stats.spearmanr(surrogate.predict(new), errors(new)).statistic < -0.6
    strategy = Progressive(SPACE, seed=0, first=16, beam=8)
    run(strategy, 16 + 2 * 8 + 1, batch=8)
    assert len(strategy.extrapolation) == 2 and all(-1 <= rho <= 1 for rho in strategy.extrapolation)


def test_it_finds_better_cells_than_random_search_with_the_same_budget() -> None:
    ours, others = (
        [min(map(error, run(build(seed), 56, batch=8))) for seed in range(3)]
        for build in (
            lambda seed: Progressive(SPACE, seed=seed, first=32, beam=8),
            lambda seed: RandomSearch(SPACE, seed=seed),
        )
    )
    assert max(ours) < min(others)


def test_with_all_parts_it_goes_on_with_neighbours_of_the_best() -> None:
    cells = run(Progressive(SPACE, seed=0, first=16, beam=8), 16 + 3 * 8 + 8, batch=8)
    last, earlier = cells[-8:], cells[:-8]
    neighbours = {
        SPACE.canonicalise(one) for cell in earlier if len(LAYOUT.split(cell)) == 4 for one in SPACE.neighbours(cell)
    }
    assert {SPACE.canonicalise(cell) for cell in last} <= neighbours


def test_the_mean_embedding_does_not_hang_on_the_order_of_parts_and_fits_what_is_planted() -> None:
    rng = seeds.generator(0, "cells")
    cells = [[tuple(rng.integers(6, size=2)) for _ in range(count)] for count in rng.integers(1, 4, size=120)]
    values = np.array([np.mean([part[0] for part in cell]) / 5 for cell in cells])
    surrogate = MeanEmbedding([6, 6])
    surrogate.fit(cells[:100], values[:100], rng)
    assert scipy.stats.spearmanr(surrogate.predict(cells[100:]), values[100:]).statistic > 0.8
    assert surrogate.predict([cell[::-1] for cell in cells]) == pytest.approx(surrogate.predict(cells), abs=2e-5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="first must be at least 2"):
        Progressive(SPACE, seed=0, first=1)
