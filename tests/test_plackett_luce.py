"""Plackett-Luce: the worths are the likeliest ones, by a likelihood written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from raynas.aggregators.plackett_luce import PRIOR, log_worth, plackett_luce
from raynas.rank_correlation import kendall_tau_b


def log_posterior(log_worth_A: np.ndarray, draws: list[tuple[int, list[int]]]) -> float:
    """draws: who was drawn, and from whom; the prior of each worth is a gamma distribution of shape 1 + PRIOR."""
    worth_A = np.exp(log_worth_A)
    likelihood = sum(log_worth_A[drawn] - math.log(worth_A[left].sum()) for drawn, left in draws)
    return float(likelihood + PRIOR * np.sum(log_worth_A - worth_A))


def draws_of(scores_A: np.ndarray) -> list[tuple[int, list[int]]]:
    """The draws of an order without ties, but for those that come last together."""
    order = [int(a) for a in np.argsort(-scores_A) if not np.isnan(scores_A[a])]
    last = np.nanmin(scores_A)
    return [(a, order[place:]) for place, a in enumerate(order) if scores_A[a] > last]


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("left_over", [1, 3])
def test_worths_are_the_likeliest(missing: float, left_over: int) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        scores_RA = rng.normal(size=(4, 7))
        scores_RA[rng.random(scores_RA.shape) < missing] = np.nan
        scores_RA = np.maximum(scores_RA, np.sort(scores_RA, axis=1)[:, [left_over - 1]])  # so many come last
        draws = [draw for scores_A in scores_RA for draw in draws_of(scores_A)]
        best = minimize(lambda at, draws=draws: -log_posterior(at, draws), np.zeros(7), tol=1e-10)
        np.testing.assert_allclose(log_worth(scores_RA), best.x, atol=2e-3)


def test_worths_have_mean_1_and_are_finite() -> None:
    worths_A = np.exp(log_worth(np.arange(50.0)[None]))
    assert worths_A.mean() == pytest.approx(1) and np.all(np.isfinite(np.log(worths_A)))


def test_those_that_tie_are_worth_the_same() -> None:
    scores_RA = np.array([[5.0, 5, 5, 3, 3, 1], [9.0, 9, 9, 9, 9, 2]])
    log_worth_A = log_worth(scores_RA)
    np.testing.assert_allclose(log_worth_A[:3], log_worth_A[0])
    np.testing.assert_allclose(log_worth_A[3:5], log_worth_A[3])
    assert log_worth_A[0] > log_worth_A[3] > log_worth_A[5]


def test_what_few_have_scored_is_drawn_to_the_mean() -> None:
    once = log_worth(np.array([[3.0, 2, 1, 0]]))
    thrice = log_worth(np.array([[3.0, 2, 1, 0]] * 3))
    assert np.ptp(once) < np.ptp(thrice)


def test_planted_worths_are_found() -> None:
    rng = np.random.default_rng(0)
    log_worth_A = rng.normal(size=200)
    scores_RA = log_worth_A + rng.gumbel(size=(100, 200))  # the orders are then Plackett-Luce's
    assert np.corrcoef(log_worth(scores_RA), log_worth_A)[0, 1] > 0.98
    assert kendall_tau_b(plackett_luce(scores_RA), log_worth_A) > 0.9
