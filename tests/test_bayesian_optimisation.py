"""The Gaussian process: its gradient, its draws against the textbook's formulas, and what it makes of a batch."""

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies import bayesian_optimisation
from raynas.strategies.bayesian_optimisation import JITTER, BayesianOptimisation, draw, fit

SPACE = SearchSpace("wide", tuple(ChoiceBlock(f"b{b}", tuple("abcde")) for b in range(6)))
RNG = np.random.default_rng(0)
KNOWN, NEW = RNG.integers(0, 5, (40, 6)), RNG.integers(0, 5, (7, 6))
SCORES = KNOWN[:, 0] - 2.0 + 0.1 * RNG.standard_normal(40)  # only the first block matters


def scored(architectures, score=sum):
    return [Evaluation(one, (float(score(one)),)) for one in architectures]


def test_the_gradient_is_that_of_the_loss(monkeypatch):
    kept = {}

    def minimize(loss, begin, **settings):
        kept.update(loss=loss, begin=begin)
        return type("Ended", (), {"x": begin})

    monkeypatch.setattr(bayesian_optimisation, "minimize", minimize)
    fit(KNOWN, SCORES)
    at = kept["begin"] + np.linspace(-0.5, 0.5, 7)
    slope = approx_fprime(at, lambda point: kept["loss"](point)[0], 1e-6)
    np.testing.assert_allclose(kept["loss"](at)[1], slope, rtol=1e-3, atol=1e-3)


def test_the_block_that_matters_gets_the_weight():
    weights = fit(KNOWN, SCORES)[:-1]
    assert weights.argmax() == 0
    assert weights[0] > weights[1:].max() + 1


def test_draws_have_the_posterior_of_the_process():
    fitted = np.append(np.full(6, math.log(0.4)), math.log(0.1))
    signal = lambda one, other: np.exp(-0.4 * (one[:, None] != other[None]).sum(-1))  # noqa: E731
    inverse = np.linalg.inv(signal(KNOWN, KNOWN) + (0.1 + JITTER) * np.eye(40))
    mean = signal(NEW, KNOWN) @ inverse @ SCORES
    covariance = signal(NEW, NEW) - signal(NEW, KNOWN) @ inverse @ signal(KNOWN, NEW) + JITTER * np.eye(7)
    variance = SCORES @ inverse @ SCORES / 40
    at_zero = draw(KNOWN, SCORES, NEW, fitted, np.zeros((7, 1)))
    np.testing.assert_allclose(at_zero[:, 0], mean)
    root = draw(KNOWN, SCORES, NEW, fitted, np.eye(7)) - at_zero
    np.testing.assert_allclose(root @ root.T, variance * covariance, atol=1e-9)


def test_it_learns_from_whatever_it_is_told():
    strategy = BayesianOptimisation(SPACE, seed=0)
    strategy.tell(scored([tuple(row) for row in KNOWN.tolist()]))
    assert np.mean(strategy.ask(16)) < 1.2  # 2 at random


def test_only_the_order_of_the_values_matters():
    asked = []
    for score in (sum, lambda one: math.exp(sum(one)) - 5):
        strategy = BayesianOptimisation(SPACE, seed=0)
        for _ in range(3):
            strategy.tell(scored(batch := strategy.ask(20), score))
        asked.append(batch)
    assert asked[0] == asked[1]


def test_equal_values_are_no_reason_to_fail():
    strategy = BayesianOptimisation(SPACE, seed=0)
    for _ in range(3):
        strategy.tell(scored(batch := strategy.ask(20), lambda one: 1.0))
    assert len(set(batch)) == 20


def test_the_history_is_bounded_and_keeps_the_best_and_the_last(monkeypatch):
    monkeypatch.setattr(bayesian_optimisation, "HISTORY", 30)
    strategy = BayesianOptimisation(SPACE, seed=0)
    told = list(dict.fromkeys(tuple(row) for row in np.random.default_rng(1).integers(0, 5, (200, 6)).tolist()))
    strategy.tell(scored([(0,) * 6]))
    for one in told:
        strategy.tell(scored([one]))
    assert len(strategy._history) <= 30
    assert strategy._history[0] == ((0,) * 6, 0.0)
    assert [one for one, _ in strategy._history[-15:]] == told[-15:]


@pytest.mark.parametrize("settings", [{"startup": 1}, {"parents": 0}, {"candidates": 0}], ids=str)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError, match="at least"):
        BayesianOptimisation(SPACE, seed=0, **settings)
