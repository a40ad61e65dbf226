"""SHGO of analytic models: methods.md 4.9; what every strategy must do is in test_strategies.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.nn_degree import AccuracyModel, cost_features, degree
from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategies.shgo import Model, Shgo, rounded, search
from raynas.testing import STAGES
from search_spaces import width_depth

SPACE = width_depth.space(counts=(2,), multiples=(0.5, 1.0, 1.5, 2.0), depths=(1, 2, 3), links=(0, 1, 2), channels=8)
LARGEST = tuple(len(block.choices) - 1 for block in SPACE.blocks)
WEIGHTS = np.array([0, 0, 0, 0, 3e-4, 4e-4, 2e-4, 0, 0.05, 0.01, 0.1])
ACCURACY = AccuracyModel(0.6, 0.5, 1.05)
assert SPACE.cells is not None
CELLS = SPACE.cells


def cost(architecture: Sequence[float]) -> float:
    return float(WEIGHTS @ cost_features(CELLS(architecture)))


def g(architecture: Sequence[float]) -> float:
    return degree(CELLS(architecture))


def evaluate(architectures: Sequence[Architecture], limit: float = math.inf) -> list[Evaluation]:
    return [
        Evaluation(one, (1 - ACCURACY.predict(g(one)), cost(one)))
        if cost(one) <= limit
        else Evaluation(one, (), "constraint: cost")
        for one in architectures
    ]


def model(limit: float = math.inf) -> Model:
    return Model(CELLS, ACCURACY, WEIGHTS[None], np.array([limit]))


def keys() -> list[Architecture]:
    return list(product(*(range(size + 1) for size in LARGEST)))


def limit_of(share: float) -> float:
    """1: the largest network keeps it, 0: the smallest."""
    return (1 - share) * cost((0,) * len(LARGEST)) + share * cost(LARGEST)


def test_between_the_choices_the_minimum_is_the_one_known_by_calculus() -> None:
    """The largest sum of widths whose squares add up to 6 x 2.2 ** 2 has them all alike."""
    assert STAGES.cells is not None
    squares = np.eye(11)[1]
    found = search(Model(STAGES.cells, ACCURACY, squares[None], np.array([6 * 2.2**2])), STAGES)
    np.testing.assert_allclose(found[0], [1.2] * 6, atol=1e-3)


@pytest.mark.parametrize("limit", [limit_of(0.1), limit_of(0.4), limit_of(0.7), math.inf])
def test_what_is_rounded_keeps_the_limit_and_is_near_the_best_of_all_keys(limit: float) -> None:
    planted = model(limit)
    found = rounded(planted, search(planted, SPACE), SPACE, Unasked(SPACE))
    assert all(cost(one) <= limit for one in found)
    ranks = sorted(planted.rank(one) for one in keys())
    assert planted.rank(found[0])[1] <= ranks[0][1] + 0.02  # 2 % of NN-Degree, or of accuracy for cost
    assert len(set(map(SPACE.canonicalise, found))) == len(found)


def test_the_start_is_spread_from_the_smallest_networks_to_the_largest() -> None:
    degrees = sorted(g(one) for one in Shgo(SPACE, seed=0).ask(25))
    least, most = g((0,) * len(LARGEST)), g(LARGEST)
    assert degrees[0] < least + 0.2 * (most - least) and degrees[-1] > most - 0.2 * (most - least)
    assert max(np.diff(degrees)) < 0.25 * (most - least)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_under_a_limit_the_start_becomes_smaller_and_then_the_best_comes_first(share: float) -> None:
    limit = limit_of(share)
    strategy = Shgo(SPACE, seed=0, limits=(math.inf, limit))
    asked, told = 0, 0
    while told < 25:
        answers = evaluate(strategy.ask(5), limit)
        asked += len(answers)
        told += sum(bool(one.objectives) for one in answers)
        strategy.tell(answers)
    assert asked <= 75
    best = max(g(one) for one in keys() if cost(one) <= limit)
    assert max(g(one) for one in strategy.ask(3)) >= 0.98 * best


def test_without_a_limit_the_best_has_the_most_accuracy_for_its_cost() -> None:
    strategy = Shgo(SPACE, seed=0)
    known = strategy.ask(25)
    strategy.tell(evaluate(known))
    (one,) = strategy.ask(1)
    networks = {*map(SPACE.canonicalise, keys())} - {*map(SPACE.canonicalise, known)}
    assert ACCURACY.predict(g(one)) / cost(one) == max(ACCURACY.predict(g(key)) / cost(key) for key in networks)


def test_where_most_of_what_should_keep_a_limit_does_not_it_aims_lower() -> None:
    """As where a latency is higher when the device is busy: here 1.5 times what is told."""
    limit = limit_of(0.5)
    strategy = Shgo(SPACE, seed=0, limits=(math.inf, limit))
    strategy.tell(evaluate(strategy.ask(25)))
    shares = []
    for _ in range(15):
        asked = strategy.ask(4)
        shares.append(sum(1.5 * cost(one) <= limit for one in asked) / len(asked))
        strategy.tell(evaluate(asked, limit / 1.5))
    assert shares[0] < 0.5 and max(shares) == 1


def test_a_space_without_cells_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"shgo expects a space with `cells`.* but plain has none") as mistake:
        Shgo(SearchSpace("plain", (ChoiceBlock("only", ("a", "b")),)), seed=0)
    assert "\n" not in str(mistake.value)


def test_too_short_a_start_is_refused() -> None:
    with pytest.raises(UserError, match=r"startup must be at least 4, .* but got 3"):
        Shgo(SPACE, seed=0, startup=3)
