"""SNAS: methods.md 4.4 and test list item 5; what every rule must do is in test_training_rules.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from raynas import seeds
from raynas.errors import UserError
from raynas.supernet import Choices
from raynas.training_rules.snas import SMALLEST, Snas, concrete, gumbel
from search_spaces.nas_bench_201 import CONV_3X3, NONE, SKIP, SPACE
from tests.helpers import make_trainer


def test_choices_win_as_often_as_their_softmax_says() -> None:
    logits = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
    pi = logits.softmax(0).numpy()
    rng = seeds.generator(0, "gumbel")
    draws = 20_000
    for temperature in (1.0, 0.03):
        won = [int(concrete(logits, gumbel(rng, 4), temperature).argmax()) for _ in range(draws)]
        counts = np.bincount(won, minlength=4)
        assert (np.abs(counts - draws * pi) < 5 * np.sqrt(draws * pi * (1 - pi))).all()


def test_a_sample_is_the_softmax_of_log_pi_and_noise_over_the_temperature() -> None:
    logits = torch.tensor([30.0, 31.0, 29.0], dtype=torch.float64)
    noise = np.array([0.1, -0.3, 2.0])
    pi = np.exp([30.0, 31.0, 29.0]) / np.exp([30.0, 31.0, 29.0]).sum()
    raw = np.exp((np.log(pi) + noise) / 0.5)
    assert concrete(logits, noise, 0.5).numpy() == pytest.approx(raw / raw.sum())


class _Uniform:
    """A generator that draws the ends of its range."""

    def random(self, size: int) -> np.ndarray:
        return np.array([0.0, 1.0])[:size]


def test_noise_of_the_ends_of_the_range_is_finite() -> None:
    low, high = gumbel(_Uniform(), 2)  # type: ignore[arg-type]
    assert np.isfinite([low, high]).all() and low < 0 < high
    assert low == pytest.approx(-np.log(-np.log(SMALLEST)))


def test_the_temperature_falls_linearly_from_the_first_step_to_the_last() -> None:
    rule = Snas(SPACE, seed=0, steps=11)
    found = [rule.temperature(number) for number in range(11)]
    assert found == pytest.approx(np.linspace(1.0, 0.03, 11))
    assert Snas(SPACE, seed=0, steps=1).temperature(0) == 1.0
    trainer = make_trainer("snas")
    points = [trainer.advance() for _ in range(trainer.settings.steps)]
    assert (points[0]["temperature"], points[-1]["temperature"]) == (pytest.approx(1.0), pytest.approx(0.03))


def test_a_rising_temperature_is_refused() -> None:
    with pytest.raises(UserError, match="last_temperature=2"):
        make_trainer("snas", last_temperature=2.0)


def test_one_loss_on_the_training_batch_moves_both() -> None:
    """Whatever the validation labels are, neither changes; with other training labels both do."""

    def after(change: str | None) -> tuple[dict[str, Tensor], list[Tensor]]:
        trainer = make_trainer("snas")
        if change:
            source = getattr(trainer, change)
            source.labels_N = source.labels_N.roll(7)
        trainer.train_step()
        trainer.train_step()  # the first step of Adam goes by signs alone
        return trainer.supernet.state_dict(), trainer.rule.state_dict()["alpha"]

    weights, alpha = after(None)
    for change, same in (("validation", True), ("train", False)):
        other_weights, other_alpha = after(change)
        assert all(torch.equal(weights[name], other_weights[name]) for name in weights) == same
        assert all(torch.equal(a, b) for a, b in zip(alpha, other_alpha, strict=True)) == same


def test_both_gradients_are_those_of_one_sample_of_the_mixture() -> None:
    trainer = make_trainer("snas")
    rule = trainer.rule
    assert isinstance(rule, Snas)
    batch, alpha = trainer._batch("train", trainer.train), [one.detach().clone().requires_grad_() for one in rule.alpha]
    rng = seeds.generator(trainer.seed, "paths", 5)
    noise = [gumbel(rng, 5) for _ in alpha]
    mixture: Choices = [concrete(a, n, rule.temperature(5)).float() for a, n in zip(alpha, noise, strict=True)]
    own = list(trainer.supernet.parameters())
    value = trainer._loss(trainer.supernet(batch.images_NCHW, mixture), batch.labels_N)
    expected = torch.autograd.grad(value, [*alpha, *own], allow_unused=True)
    rng = seeds.generator(trainer.seed, "paths", 5)
    rule.step(trainer.supernet, batch, None, loss=trainer._loss, rng=rng, number=5, group=trainer.group)
    found = [one.grad for one in [*rule.alpha, *own]]
    for mine, plain in zip(found, expected, strict=True):
        assert (mine is None) == (plain is None)
        if mine is not None and plain is not None:
            torch.testing.assert_close(mine, plain)


def test_edges_are_left_out_where_none_wins() -> None:
    rule = Snas(SPACE, seed=0, steps=1)
    with torch.no_grad():
        for block, choice in enumerate((NONE, SKIP, CONV_3X3, NONE, SKIP, SKIP)):
            rule.alpha[block][choice] = 3.0
    assert rule.derived() == (NONE, SKIP, CONV_3X3, NONE, SKIP, SKIP)
    watched = rule.watch()
    assert (watched["derived_skips"], watched["derived_operations"]) == (3, 4)
