"""Optuna's TPE behind ask and tell: what it learns from, and what it leaves alone."""

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
from raynas.strategies import optuna_tpe
from raynas.strategies.optuna_tpe import OptunaTpe

SPACE = SearchSpace("wide", tuple(ChoiceBlock("same name", tuple("abcdefghij")) for _ in range(6)))


def scored(architectures):
    return [Evaluation(one, (float(sum(one)), 0.0)) for one in architectures]


def random_architectures(count, seed=0):
    return [tuple(row) for row in np.random.default_rng(seed).integers(0, 10, size=(count, 6)).tolist()]


def test_it_learns_from_whatever_it_is_told():
    strategy = OptunaTpe(SPACE, seed=0)
    strategy.tell(scored(random_architectures(100)))  # never asked for
    assert np.mean(strategy.ask(16)) < 3  # 4.5 at random


def test_failures_teach_nothing_and_start_nothing():
    strategies = [OptunaTpe(SPACE, seed=0) for _ in range(2)]
    failed = [Evaluation(one, (), "constraint: macs") for one in random_architectures(100)]
    strategies[0].tell(failed)
    strategies[1].tell([Evaluation(one.architecture, (float("nan"),)) for one in failed])
    fresh = OptunaTpe(SPACE, seed=0).ask(8)
    assert strategies[0].ask(8) == strategies[1].ask(8) == fresh


def test_awaited_architectures_push_the_next_away():
    spread = []
    for told in (False, True):
        strategy = OptunaTpe(SPACE, seed=0)
        strategy.tell(scored(random_architectures(60)))
        batches = [strategy.ask(8) for _ in range(6)]
        if told:  # failures are no longer awaited, and count for nothing
            strategy.tell([Evaluation(one, (), "failed") for batch in batches for one in batch])
        spread.append(strategy.ask(8))
    assert spread[0] != spread[1]


def test_the_history_is_bounded_and_keeps_the_best(monkeypatch):
    monkeypatch.setattr(optuna_tpe, "HISTORY", 60)
    best, rest = (0,) * 6, random_architectures(500)
    strategy = OptunaTpe(SPACE, seed=0)
    strategy.tell(scored([best]))
    for start in range(0, len(rest), 10):
        strategy.tell(scored(rest[start : start + 10]))
    smaller = OptunaTpe(SPACE, seed=0)
    smaller.tell(scored([best]))
    smaller.tell(scored(rest[:60]))
    assert len(pickle.dumps(strategy._history)) < 1.2 * len(pickle.dumps(smaller._history))
    assert strategy._history[0] == (best, 0.0)
    assert [one for one, _ in strategy._history[-30:]] == rest[-30:]


def test_every_ask_has_draws_of_its_own(monkeypatch):
    seeds, sampler = [], optuna.samplers.TPESampler
    monkeypatch.setattr(
        optuna.samplers, "TPESampler", lambda *, seed, **settings: seeds.append(seed) or sampler(seed=seed, **settings)
    )
    strategy = OptunaTpe(SPACE, seed=0)
    for _ in range(5):
        strategy.ask(1)
    assert len(set(seeds)) == 5


def test_nothing_is_logged_and_the_verbosity_stays(capfd):
    for verbosity in (optuna.logging.INFO, optuna.logging.ERROR):
        optuna.logging.set_verbosity(verbosity)
        try:
            strategy = OptunaTpe(SPACE, seed=0)
            strategy.tell(scored(strategy.ask(12)))
            strategy.ask(2)
            assert optuna.logging.get_verbosity() == verbosity
        finally:
            optuna.logging.set_verbosity(optuna.logging.INFO)
    assert capfd.readouterr() == ("", "")


def test_asks_do_not_depend_on_the_process():
    code = """
from raynas.evaluation import Evaluation
from tests.test_optuna_tpe import SPACE, OptunaTpe, scored
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


@pytest.mark.parametrize("settings", [{"startup": 0}, {"candidates": 0}], ids=str)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError, match="at least 1"):
        OptunaTpe(SPACE, seed=0, **settings)
