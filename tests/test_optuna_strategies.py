"""Optuna's samplers behind ask and tell: what they learn from, and what they leave alone."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest

from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies._optuna import BEST, trials
from raynas.strategies.optuna_cmaes import OptunaCmaes
from raynas.strategies.optuna_gp import OptunaGp
from raynas.strategies.optuna_nsga2 import OptunaNsga2
from raynas.strategies.optuna_tpe import OptunaTpe

SPACE = SearchSpace("wide", tuple(ChoiceBlock("same name", tuple("abcdefghij")) for _ in range(6)))
ALL = (OptunaCmaes, OptunaGp, OptunaNsga2, OptunaTpe)


def scored(architectures):
    return [Evaluation(one, (float(sum(one)), 0.0)) for one in architectures]


def random_architectures(count, seed=0):
    return [tuple(row) for row in np.random.default_rng(seed).integers(0, 10, size=(count, 6)).tolist()]


@pytest.mark.parametrize(("build", "asks"), [(OptunaTpe, 16), (OptunaNsga2, 16), (OptunaGp, 2)])
def test_it_learns_from_whatever_it_is_told(build, asks):
    strategy = build(SPACE, seed=0)
    strategy.tell(scored(random_architectures(100)))  # never asked for
    assert np.mean(strategy.ask(asks)) < 3.8  # 4.5 at random


@pytest.mark.parametrize("build", [OptunaCmaes, OptunaNsga2, OptunaTpe])
def test_it_goes_towards_the_better(build):
    strategy = build(SPACE, seed=0)
    for _ in range(20):
        strategy.tell(scored(batch := strategy.ask(16)))
    assert np.mean(batch) < 3


@pytest.mark.parametrize("build", ALL)
def test_failures_teach_nothing_and_start_nothing(build):
    strategies = [build(SPACE, seed=0) for _ in range(2)]
    failed = [Evaluation(one, (), "constraint: macs") for one in random_architectures(100)]
    strategies[0].tell(failed)
    strategies[1].tell([Evaluation(one.architecture, (float("nan"),)) for one in failed])
    fresh = build(SPACE, seed=0).ask(8)
    assert strategies[0].ask(8) == strategies[1].ask(8) == fresh


def test_awaited_architectures_push_the_next_away():
    spread = []
    for told in (False, True):
        strategy = OptunaTpe(SPACE, seed=0)
        strategy.tell(scored(random_architectures(60)))
        batches = [strategy.ask(8) for _ in range(3)]
        if told:  # failures are no longer awaited, and count for nothing
            strategy.tell([Evaluation(one, (), "failed") for batch in batches for one in batch])
        spread.append(strategy.ask(8))
    assert spread[0] != spread[1]


@pytest.mark.parametrize("build", ALL)
def test_every_ask_is_a_trial_until_it_is_told(build):
    strategy = build(SPACE, seed=0)
    first = strategy.ask(6)
    strategy.tell(scored(first[:4]))
    second = strategy.ask(5)
    running = [one for one in trials(strategy._study) if one.state == optuna.trial.TrialState.RUNNING]
    assert [strategy.architecture(one.params) for one in running] == [*first[4:], *second]
    strategy.tell([*scored(second), Evaluation(first[4], (), "failed"), Evaluation(first[5], (), "failed")])
    complete = [one for one in trials(strategy._study) if one.state == optuna.trial.TrialState.COMPLETE]
    values = {strategy.architecture(one.params): one.values[0] for one in complete}
    assert values == {one: float(sum(one)) for one in [*first[:4], *second]}


def test_a_process_that_was_fitted_is_pickled_with_the_rest():
    strategy = OptunaGp(SPACE, seed=0)
    strategy.tell(scored(random_architectures(20)))
    strategy.ask(1)
    twin = pickle.loads(pickle.dumps(strategy))  # noqa: S301 (its own bytes)
    assert strategy.ask(2) == twin.ask(2)


def test_the_history_is_bounded_and_keeps_the_best_and_the_awaited(monkeypatch):
    monkeypatch.setattr(OptunaTpe, "history", 120)
    best, rest = (0,) * 6, list(dict.fromkeys(random_architectures(500)))
    strategy = OptunaTpe(SPACE, seed=0)
    strategy.tell(scored([best]))
    awaited = strategy.ask(3)
    for start in range(0, len(rest), 10):
        strategy.tell(scored(rest[start : start + 10]))
        assert len(trials(strategy._study)) <= 120
    kept = [strategy.architecture(one.params) for one in trials(strategy._study)]
    assert {best, *awaited} <= set(kept)
    assert kept[-30:] == rest[-30:]
    assert len(kept) >= BEST


def test_two_objectives_are_both_minimised():
    strategy = OptunaNsga2(SPACE, seed=0)
    for _ in range(30):
        batch = strategy.ask(16)  # the first objective wants choice 0, the second choice 9, in other blocks
        strategy.tell([Evaluation(one, (float(sum(one[:3])), float(27 - sum(one[3:])))) for one in batch])
    assert np.mean([one[:3] for one in batch]) < 3
    assert np.mean([one[3:] for one in batch]) > 6  # 4.5 at random


def test_parameters_of_cmaes_are_read_back():
    space = SearchSpace("uneven", tuple(ChoiceBlock("x", tuple("abc"[:n])) for n in (2, 1, 3)))
    strategy = OptunaCmaes(space, seed=0)
    assert len(strategy.params((0, 0, 0))) == 6
    assert strategy.architecture(strategy.params((1, 0, 2))) == (1, 0, 2)


@pytest.mark.parametrize("build", ALL)
def test_nothing_is_logged_and_the_verbosity_stays(build, capfd):
    for verbosity in (optuna.logging.INFO, optuna.logging.ERROR):
        optuna.logging.set_verbosity(verbosity)
        try:
            strategy = build(SPACE, seed=0)
            strategy.tell(scored(strategy.ask(12)))
            strategy.ask(1)
            assert optuna.logging.get_verbosity() == verbosity
        finally:
            optuna.logging.set_verbosity(optuna.logging.INFO)
    assert capfd.readouterr() == ("", "")


def test_asks_do_not_depend_on_the_process():
    code = """
from tests.test_optuna_strategies import SPACE, OptunaTpe, scored
strategy = OptunaTpe(SPACE, seed=3)
for _ in range(3):
    strategy.tell(scored(batch := strategy.ask(8)))
print(strategy.ask(8))
"""
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[1],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    assert answers.pop().count("(") == 8


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (OptunaTpe, {"startup": 0}),
        (OptunaTpe, {"candidates": 0}),
        (OptunaGp, {"startup": 0}),
        (OptunaNsga2, {"population_size": 1}),
        (OptunaNsga2, {"crossover_probability": 1.5}),
        (OptunaCmaes, {"population_size": 4}),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(build, settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        build(SPACE, seed=0, **settings)
