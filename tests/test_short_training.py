"""Short trainings from scratch as scores: functions of the network, and the error that such a training ends with."""

from __future__ import annotations

import math

import pytest
import torch

from raynas import seeds
from raynas.architecture import Architecture
from raynas.data import Split, load, split
from raynas.plan import build_supernet
from raynas.retraining import StandAloneTraining
from raynas.short_training import ShortTrainingEvaluator
from search_spaces.nas_bench_201 import NONE, SKIP, SPACE
from tests.helpers import small_config

CONFIG = small_config()
CHAIN = SPACE.parse("0-3-0-0-0-3")  # nothing reaches node 1


@pytest.fixture(scope="module")
def digits() -> Split:
    return split(load("digits"), 0.25, seed=0)


def evaluator(digits: Split, epochs: float = 1) -> ShortTrainingEvaluator:
    return ShortTrainingEvaluator(
        epochs=epochs,
        supernet=build_supernet(CONFIG, digits.dataset, seed=0),
        canonicalise=SPACE.canonicalise,
        split=digits,
        data=CONFIG.data,
        retraining=CONFIG.retraining,
        seed=0,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("epochs", [3, 3.5])
def test_the_score_is_the_validation_error_of_a_training_of_so_many_epochs(digits: Split, epochs: float) -> None:
    network = SPACE.canonicalise(CHAIN)
    training = StandAloneTraining(
        build_supernet(CONFIG, digits.dataset, seed=0).subnet(network),
        digits,
        settings=CONFIG.retraining,
        data=CONFIG.data,
        seed=seeds.integer(0, "short"),
        device=torch.device("cpu"),
        length=epochs,
    )
    points = list(training.epochs())
    assert evaluator(digits, epochs=epochs).measure(CHAIN).objectives == (points[-1]["validation_error"],)
    assert len(points) == math.ceil(epochs)


def test_a_few_steps_tell_networks_apart_though_running_averages_have_not_moved(digits: Split) -> None:
    """After four of them these are still those of a layer that has seen nothing, and most networks guess."""
    keys = ("3-3-3-3-3-3", "0-3-0-0-0-3", "3-1-2-3-4-2", "1-1-1-3-3-3", "2-3-3-1-2-3", "3-3-1-1-3-2")
    found = evaluator(digits, epochs=0.2)
    errors = [found.measure(SPACE.parse(key)).objectives[0] for key in keys]
    assert len(set(errors)) == len(keys) and max(errors) < 0.9


def test_one_network_has_one_score_whatever_its_key_and_what_was_scored_before(digits: Split) -> None:
    first, second = evaluator(digits), evaluator(digits)
    second.measure(SPACE.parse("3-3-3-3-3-3"))
    twin = _twin(CHAIN)
    assert twin != CHAIN
    assert first.measure(CHAIN).objectives == second.measure(twin).objectives


def _twin(key: Architecture) -> Architecture:
    """Another key of the same network."""
    form = SPACE.canonicalise(key)
    return next(
        other
        for place in range(len(key))
        for choice in (NONE, SKIP, 2, 3, 4)
        if (other := (*key[:place], choice, *key[place + 1 :])) != key and SPACE.canonicalise(other) == form
    )


def test_what_cannot_be_trained_has_no_score(digits: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(self: StandAloneTraining) -> None:
        raise RuntimeError("out of memory\nby far")

    monkeypatch.setattr(StandAloneTraining, "epochs", raises)
    found = evaluator(digits).measure(CHAIN)
    assert found.objectives == () and found.failure == "RuntimeError: out of memory"


def test_a_fault_of_the_device_is_not_the_networks(digits: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(self: StandAloneTraining) -> None:
        raise RuntimeError("CUDA error: an illegal access")

    monkeypatch.setattr(StandAloneTraining, "epochs", raises)
    with pytest.raises(RuntimeError, match="an illegal access"):
        evaluator(digits).measure(CHAIN)


def test_a_loss_that_is_not_finite_is_no_score(digits: Split) -> None:
    wild = evaluator(digits)
    wild.settings = wild.settings.model_copy(update={"learning_rate": 1e30})
    found = wild.measure(CHAIN)
    assert found.objectives == () and str(found.failure).startswith("the loss is")
