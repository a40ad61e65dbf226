"""Stand-alone training: resumed == undisturbed, and the test images wait until the end."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from raynas.checkpoint import load_state, save_state
from raynas.config import Precision
from raynas.data import Dataset, Split, load, split
from raynas.plan import build_supernet
from raynas.retraining import StandAloneTraining
from raynas.storage import Folder
from tests.helpers import small_config

EPOCHS = 3
CONFIG = small_config(retraining={"epochs": EPOCHS, "batch_size": 16, "label_smoothing": 0.1})
ARCHITECTURE = (3, 2, 1, 3, 4, 2)


@pytest.fixture(scope="module")
def digits() -> Split:
    """A part of the digits: 270 training, 90 validation and 360 test images."""
    whole = load("digits")
    rows = slice(0, 360)
    dataset = replace(whole, train_images_NCHW=whole.train_images_NCHW[rows], train_labels_N=whole.train_labels_N[rows])
    return split(dataset, 0.25, seed=0)


def training(
    images: Split, seed: int = 0, precision: Precision = "auto", length: float | None = None
) -> StandAloneTraining:
    network = build_supernet(CONFIG, images.dataset, seed=seed).subnet(ARCHITECTURE)
    settings = CONFIG.retraining.model_copy(update={"precision": precision})
    return StandAloneTraining(
        network, images, settings=settings, data=CONFIG.data, seed=seed, device=torch.device("cpu"), length=length
    )


def outcome(trained: StandAloneTraining) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    curves = [{key: value for key, value in point.items() if key != "seconds"} for point in trained.curves]
    return trained.network.state_dict(), curves


def assert_same(first: StandAloneTraining, second: StandAloneTraining) -> None:
    (weights, curves), (other_weights, other_curves) = outcome(first), outcome(second)
    assert curves == other_curves
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


@pytest.fixture(scope="module")
def undisturbed(digits: Split) -> StandAloneTraining:
    trained = training(digits)
    assert len(list(trained.epochs())) == EPOCHS
    return trained


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_resumed_training_equals_undisturbed_training_to_the_bit(
    digits: Split, undisturbed: StandAloneTraining, stop: int, tmp_path: Path
) -> None:
    stopped = training(digits)
    epochs = stopped.epochs()
    for _ in range(stop):
        next(epochs)
    save_state(Folder(str(tmp_path)), "state", stopped.state_dict())
    resumed = training(digits, seed=0)
    resumed.load_state_dict(load_state(Folder(str(tmp_path)), "state"))
    assert len(list(resumed.epochs())) == EPOCHS - stop
    assert_same(resumed, undisturbed)
    assert resumed.error(resumed.test) == undisturbed.error(undisturbed.test)
    assert list(resumed.curves[0]) == list(undisturbed.curves[0])  # the columns of curves.parquet


def test_the_test_images_have_no_say_before_the_end(digits: Split, undisturbed: StandAloneTraining) -> None:
    dataset: Dataset = digits.dataset
    shuffled = replace(
        dataset,
        test_images_NCHW=255 - dataset.test_images_NCHW,
        test_labels_N=(dataset.test_labels_N + 1) % dataset.classes,
    )
    other = training(Split(shuffled, digits.train_rows_N, digits.validation_rows_N))
    list(other.epochs())
    assert_same(other, undisturbed)
    assert other.error(other.test) != undisturbed.error(undisturbed.test)


def test_the_test_images_are_not_looked_at_before_the_end(digits: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = training(digits)
    monkeypatch.setattr(trained.test, "_take", lambda _: pytest.fail("the test images were looked at"))
    list(trained.epochs())
    monkeypatch.undo()
    trained.error(trained.test)


def test_the_validation_images_are_not_trained_on(digits: Split, undisturbed: StandAloneTraining) -> None:
    """Other validation labels change the validation error and nothing else."""
    labels_N = digits.dataset.train_labels_N.clone()
    rows_N = torch.from_numpy(digits.validation_rows_N)
    labels_N[rows_N] = (labels_N[rows_N] + 1) % digits.dataset.classes
    other = training(
        Split(replace(digits.dataset, train_labels_N=labels_N), digits.train_rows_N, digits.validation_rows_N)
    )
    list(other.epochs())
    weights, curves = outcome(other)
    expected, expected_curves = outcome(undisturbed)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert [point["train_loss"] for point in curves] == [point["train_loss"] for point in expected_curves]
    assert [point["validation_error"] for point in curves] != [point["validation_error"] for point in expected_curves]


def test_every_training_image_is_seen_once_an_epoch(digits: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = training(digits)
    seen: list[int] = []
    take = trained.train._take

    def seeing(positions_N: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        seen.extend(positions_N.tolist())
        return take(positions_N)

    monkeypatch.setattr(trained.train, "_take", seeing)
    list(trained.epochs())
    assert [sorted(seen[epoch * 270 : (epoch + 1) * 270]) for epoch in range(EPOCHS)] == [list(range(270))] * EPOCHS


@pytest.mark.parametrize("length, steps", [(0.001, [1]), (0.5, [9]), (2.0, [17, 17]), (1.1, [17, 2])])
def test_a_part_of_an_epoch_is_a_training_with_a_whole_schedule(
    digits: Split, length: float, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """270 images are 17 batches; the learning rate falls from the first step to the last on one cosine."""
    rates: list[float] = []
    step = StandAloneTraining._step

    def noting(self: StandAloneTraining, number: int, learning_rate: float) -> torch.Tensor:
        rates.append(learning_rate)
        return step(self, number, learning_rate)

    monkeypatch.setattr(StandAloneTraining, "_step", noting)
    points = list(training(digits, length=length).epochs())
    total = sum(steps)
    assert rates == [0.05 * (1 + math.cos(math.pi * number / total)) for number in range(total)]
    assert [point["epoch"] for point in points] == [number + 1.0 for number in range(len(steps))]
    assert all(point["train_loss"] < 2 * math.log(10) for point in points)  # a mean over its own steps


def test_a_length_that_the_settings_name_is_theirs(digits: Split, undisturbed: StandAloneTraining) -> None:
    other = training(digits, length=float(EPOCHS))
    list(other.epochs())
    assert_same(other, undisturbed)


def test_the_error_is_the_share_that_is_wrong(undisturbed: StandAloneTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    network = undisturbed.network.eval()
    images_NCHW, labels_N = undisturbed.test.plain(np.arange(len(undisturbed.test)))
    with torch.no_grad():
        wrong = int((network(images_NCHW).argmax(1) != labels_N).sum())
    assert 0 < wrong < len(labels_N)
    for batch in (512, 7, 1000):
        monkeypatch.setattr("raynas.retraining.EVALUATION_BATCH", batch)
        assert undisturbed.error(undisturbed.test) == wrong / len(labels_N)


def test_measuring_leaves_the_network_as_it_was(digits: Split) -> None:
    trained = training(digits)
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    trained.error(trained.validation)
    assert all(torch.equal(before[name], value) for name, value in trained.network.state_dict().items())


def test_the_curve_has_a_point_per_epoch_and_the_learning_rate_falls(undisturbed: StandAloneTraining) -> None:
    assert [point["epoch"] for point in undisturbed.curves] == [1, 2, 3]
    rates = [point["learning_rate"] for point in undisturbed.curves]
    assert rates == sorted(rates, reverse=True)
    steps = EPOCHS * math.ceil(270 / CONFIG.retraining.batch_size)
    last = 0.5 * CONFIG.retraining.learning_rate * (1 + math.cos(math.pi * (steps - 1) / steps))
    assert rates[-1] == pytest.approx(last)
    losses = [point["train_loss"] for point in undisturbed.curves]
    assert losses[-1] < losses[0]


def test_another_seed_trains_another_network(digits: Split, undisturbed: StandAloneTraining) -> None:
    other = training(digits, seed=1)
    next(other.epochs())
    assert other.curves[0]["train_loss"] != undisturbed.curves[0]["train_loss"]


def test_bfloat16_trains_about_as_float32_does(digits: Split, undisturbed: StandAloneTraining) -> None:
    trained = training(digits, precision="bfloat16")
    curve = [point["train_loss"] for point in trained.epochs()]
    exact = [point["train_loss"] for point in undisturbed.curves]
    assert curve == pytest.approx(exact, rel=0.05)
    assert curve != exact
    assert {weight.dtype for weight in trained.network.parameters()} == {torch.float32}
