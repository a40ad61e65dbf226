"""MANAS and MANAS-LS recover planted losses; what every rule must do is tested in test_training_rules.py."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from raynas import seeds
from raynas.architecture import Architecture
from raynas.config import check
from raynas.derivations.mode import mode
from raynas.plan import build_rule, build_strategy, make_plan
from raynas.space import ChoiceBlock, SearchSpace
from raynas.trainer import Trainer
from raynas.training_rule import DivergenceError
from raynas.training_rules._agents import Agents
from raynas.training_rules.manas import Manas
from raynas.training_rules.manas_ls import ManasLs, additive_effects, zipf
from tests.helpers import SMALL, make_trainer, small_config

SIZES = (3, 2, 4, 1)
SPACE = SearchSpace("agents", tuple(ChoiceBlock(str(b), tuple("abcd")[:size]) for b, size in enumerate(SIZES)))
EFFECTS = ([0.20, 0.05, 0.35], [0.15, 0.0], [0.1, 0.3, 0.2, 0.0], [0.1])
BEST = (1, 1, 3, 0)


def additive(path: Architecture) -> float:
    """A loss of 0.15 to 1: each block adds its choice's."""
    return sum(of_choices[choice] for of_choices, choice in zip(EFFECTS, path, strict=True))


def play(rule: Agents, rounds: int, loss: Callable[[Architecture], float] = additive) -> list[float]:
    """Rounds as `step` plays them, on given losses instead of a network's."""
    found = []
    for number in range(1, rounds + 1):
        rng = seeds.generator(0, "paths", number)
        path = tuple(int(rng.choice(len(p), p=p)) for p in rule.probabilities())
        found.append(loss(path))
        rule.learn(path, found[-1], number)
    return found


# MANAS: EXP3


def test_estimates_are_in_expectation_the_mean_loss_of_each_choice() -> None:
    """Over all paths, each with its probability: E[L 1(a = k) / pi_k] = E[L | a = k], whatever pi is."""
    rule = Manas(SPACE, seed=0, steps=50)
    play(rule, 20)
    pi = rule.probabilities()
    mean = [np.zeros(size) for size in SIZES]
    given = [np.zeros(size) for size in SIZES]
    for path in np.ndindex(*SIZES):
        probability = math.prod(p[choice] for p, choice in zip(pi, path, strict=True))
        after = copy.deepcopy(rule)
        after.learn(path, additive(path), 21)
        for block, choice in enumerate(path):
            mean[block] += probability * (after.estimates[block] - rule.estimates[block])
            given[block][choice] += probability / pi[block][choice] * additive(path)
    for found, expected in zip(mean, given, strict=True):
        np.testing.assert_allclose(found, expected)
    differences = [np.array(of_choices) - of_choices[0] for of_choices in EFFECTS]
    for found, planted in zip(mean, differences, strict=True):
        np.testing.assert_allclose(found - found[0], planted, atol=1e-12)


def test_many_rounds_find_the_best_choices_and_regret_falls() -> None:
    steps = 6000
    rule = Manas(SPACE, seed=0, steps=steps)
    regrets = np.array(play(rule, steps - 1)) - additive(BEST)
    quarters = [part.mean() for part in np.array_split(regrets, 4)]
    assert mode(rule.probabilities()) == BEST
    assert quarters == sorted(quarters, reverse=True)
    uniform = np.mean([additive(path) for path in np.ndindex(*SIZES)]) - additive(BEST)
    assert quarters[-1] < uniform / 3
    bound = sum(  # EXP3's for each agent, and what its exploration costs at most
        math.sqrt(2 * steps * size * math.log(size)) + gamma * steps
        for size, gamma in zip(SIZES, rule.gammas, strict=True)
        if size > 1
    )
    assert regrets.sum() < bound


def test_regret_a_round_is_lower_in_a_longer_training() -> None:
    means = [np.mean(play(Manas(SPACE, seed=0, steps=steps), steps - 1)) for steps in (100, 1000, 6000)]
    assert means == sorted(means, reverse=True)


def test_a_loss_makes_its_choices_less_probable() -> None:
    rule = Manas(SPACE, seed=0, steps=50)
    rule.learn((0, 1, 2, 0), 0.5, 1)
    for p, choice in zip(rule.probabilities()[:3], (0, 1, 2), strict=True):
        assert p[choice] < 1 / len(p) < np.delete(p, choice).min()


def test_eta_is_that_of_the_theory_or_the_users() -> None:
    rule = Manas(SPACE, seed=0, steps=50)
    assert rule.etas[2] == pytest.approx(math.sqrt(2 * math.log(4) / (4 * 50)))
    rule = Manas(SPACE, seed=0, steps=50, eta=0.3, exploration=0.2)
    rule.learn((2, 0, 0, 0), 0.6, 1)
    odds = np.exp(-0.3 * np.array([0, 0, 0.6 * 3]))
    np.testing.assert_allclose(rule.probabilities()[0], 0.8 * odds / odds.sum() + 0.2 / 3)


def test_losses_are_clipped_and_probabilities_keep_a_floor() -> None:
    rules = [Manas(SPACE, seed=0, steps=50, exploration=0.1) for _ in range(2)]
    for rule, loss in zip(rules, (1.0, 1e9), strict=True):
        for number in range(1, 50):
            rule.learn((2, 0, 1, 0), loss, number)
    assert [one.tolist() for one in rules[0].estimates] == [one.tolist() for one in rules[1].estimates]
    assert [rule.metrics()["clipped_losses"] for rule in rules] == [0.0, 1.0]
    for p in rules[0].probabilities():
        assert p.min() >= 0.1 / len(p) and p.sum() == pytest.approx(1)
    assert rules[0].probabilities()[0][2] == pytest.approx(0.1 / 3, rel=1e-3)


def test_no_single_loss_moves_log_odds_by_more_than_one() -> None:
    rule = Manas(SPACE, seed=0, steps=200)
    assert all(gamma < 0.5 for gamma in rule.gammas)
    for number in range(1, 200):
        before = [one.copy() for one in rule.estimates]
        rule.learn((0, 0, 0, 0), 1.0, number)
        for eta, old, new in zip(rule.etas, before, rule.estimates, strict=True):
            assert eta * (new - old).max() <= 1 + 1e-9


@pytest.mark.parametrize("settings", [{"eta": 0.0}, {"eta": math.nan}, {"exploration": 0.0}, {"exploration": 1.5}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected eta > 0 and exploration above 0, up to 1, but got"):
        Manas(SPACE, seed=0, steps=50, **settings)


# MANAS-LS: least squares


def drawn(count: int) -> list[Architecture]:
    rng = seeds.generator(0, "stack")
    return [SPACE.sample(rng) for _ in range(count)]


def test_least_squares_recovers_a_planted_additive_loss() -> None:
    paths = drawn(30)
    losses_S = np.array([5 + 3 * additive(path) for path in paths])
    for found, planted in zip(additive_effects(paths, losses_S, SIZES), EFFECTS, strict=True):
        np.testing.assert_allclose(found, 3 * (np.array(planted) - np.mean(planted)), atol=1e-12)


def test_a_fit_is_a_minimiser_for_the_codes_as_they_are() -> None:
    """Centring changes which minimiser is taken, not the least sum of squares."""
    paths = drawn(40)
    losses_S = seeds.generator(0, "losses").random(40)
    effects = additive_effects(paths, losses_S, SIZES)
    fitted_S = np.array([sum(of[choice] for of, choice in zip(effects, path, strict=True)) for path in paths])
    residual_S = losses_S - losses_S.mean() - (fitted_S - fitted_S.mean())
    codes_SF = np.array([np.concatenate([np.eye(s)[c] for s, c in zip(SIZES, path, strict=True)]) for path in paths])
    assert np.linalg.matrix_rank(codes_SF) == sum(size - 1 for size in SIZES) + 1 < codes_SF.shape[1]
    least_S = losses_S - codes_SF @ np.linalg.lstsq(codes_SF, losses_S, rcond=None)[0]
    assert residual_S @ residual_S == pytest.approx(least_S @ least_S)


def test_a_choice_that_was_never_drawn_is_neither_best_nor_worst() -> None:
    paths = [path for path in drawn(60) if path[2] != 1]
    effects = additive_effects(paths, np.array([3 + additive(path) for path in paths]), SIZES)
    assert effects[2][1] == pytest.approx(0, abs=1e-12)
    assert effects[2][3] < effects[2][1] < effects[2][2]


def test_zipf_is_the_reciprocal_rank_over_the_harmonic_number() -> None:
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4
    np.testing.assert_allclose(zipf(np.array([0.3, -0.1, 2.0, 0.0])), np.array([1 / 3, 1, 1 / 4, 1 / 2]) / harmonic)
    assert zipf(np.array([7.0])).tolist() == [1.0]


def test_agents_draw_uniformly_until_the_stack_is_full_and_then_by_rank() -> None:
    rule = ManasLs(SPACE, seed=0, steps=91, stack=30)
    play(rule, 29)
    assert all(np.ptp(p) == 0 for p in rule.probabilities()) and len(rule.losses) == 29
    play(rule, 30)  # numbers 1 to 30 again: the stack is longer, and ends at 30
    assert rule.losses == []
    assert mode(rule.probabilities()) == BEST
    for p, planted in zip(rule.probabilities(), EFFECTS, strict=True):
        np.testing.assert_allclose(p, zipf(np.array(planted)))


@pytest.mark.parametrize(("steps", "stack", "fits"), [(101, 40, [60, 100]), (101, 100, [100]), (20, 50, [19])])
def test_stacks_end_with_the_last_round_and_are_no_shorter_than_asked(steps: int, stack: int, fits: list[int]) -> None:
    rule = ManasLs(SPACE, seed=0, steps=steps, stack=stack)
    emptied = []
    for number in range(1, steps):
        rule.learn(SPACE.sample(seeds.generator(0, number)), 0.5, number)
        if not rule.losses:
            emptied.append(number)
    assert emptied == fits


def test_later_stacks_have_less_regret() -> None:
    noise = seeds.generator(0, "noise")
    rule = ManasLs(SPACE, seed=0, steps=401, stack=100)
    losses = play(rule, 400, lambda path: additive(path) + 0.05 * noise.standard_normal())
    first, *later = (part.mean() for part in np.array_split(np.array(losses) - additive(BEST), 4))
    assert max(later) < 0.75 * first


def test_the_default_stack_can_tell_all_differences_apart() -> None:
    assert ManasLs(SPACE, seed=0, steps=4).stack == 2 * (2 + 1 + 3 + 0 + 1)
    assert ManasLs(SPACE, seed=0, steps=1000).stack == 500
    with pytest.raises(ValueError, match="expected stack >= 1, but got stack=0"):
        ManasLs(SPACE, seed=0, steps=4, stack=0)


# Both, on a network


@pytest.mark.parametrize("name", ["manas", "manas_ls"])
def test_a_path_is_scored_with_the_weights_that_its_step_moved(name: str) -> None:
    trainer = make_trainer(name)
    learnt: list[tuple[Architecture, float, int]] = []
    trainer.rule.learn = lambda *round_: learnt.append(round_)  # type: ignore[attr-defined]
    before = share_of_guessing(trainer, trainer.rule.space.sample(seeds.generator(0)))  # type: ignore[attr-defined]
    assert 0.9 < before < 1.5  # nothing is learnt yet
    trainer.train_step()
    assert learnt == []
    path = trainer.rule.unscored  # type: ignore[attr-defined]
    moved = share_of_guessing(trainer, path)
    trainer.train_step()
    assert learnt == [(path, pytest.approx(moved, rel=1e-5), 1)]
    assert share_of_guessing(trainer, path, step=1) != pytest.approx(moved, rel=1e-5)  # had weights moved once more


def share_of_guessing(trainer: Trainer, path: Architecture, step: int | None = None) -> float:
    """The loss of a path with the trainer's weights on the validation batch of a step, by default the next one."""
    images, labels_N = trainer.validation.augmented(
        trainer.step if step is None else step, trainer.settings.batch_size, trainer.seed, "validation"
    )
    with torch.no_grad():
        return float(trainer._loss(trainer.supernet(images, path), labels_N)) / math.log(10)


def test_validation_images_teach_the_agents_alone() -> None:
    def after(change: str | None) -> tuple[dict[str, torch.Tensor], list[float]]:
        trainer = make_trainer("manas_ls")  # no stack is full within these steps, so that the paths stay the same
        if change:
            source = getattr(trainer, change)
            source.labels_N = source.labels_N.roll(7)
        for _ in range(3):
            trainer.train_step()
        return trainer.supernet.state_dict(), trainer.rule.losses  # type: ignore[attr-defined]

    plain, losses = after(None)
    same, other_losses = after("validation")
    other, _ = after("train")
    assert all(torch.equal(plain[name], same[name]) for name in plain) and losses != other_losses
    assert not all(torch.equal(plain[name], other[name]) for name in plain)


def test_settings_and_entropy_are_on_the_curve() -> None:
    (_, manas), (_, ls) = (make_trainer(name).train_step() for name in ("manas", "manas_ls"))
    assert manas["eta"] == pytest.approx(math.sqrt(2 * math.log(5) / (5 * 12)))
    assert manas["entropy"] == ls["entropy"] == pytest.approx(6 * math.log(5))
    assert ls["stack"] == 50


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    trainer = make_trainer("manas", small_config(training={"learning_rate": 1e30}))
    with pytest.raises(DivergenceError, match="validation loss is not finite"):
        for _ in range(12):
            trainer.train_step()


@pytest.mark.parametrize("name", ["manas", "manas_ls"])
def test_the_method_searches_what_its_agents_learnt(name: str) -> None:
    plan = make_plan(check({**SMALL, "members": [{"method": name}]}))
    member = next(one for one in plan.members if one.name == name)
    supernet = plan.supernet(member.supernet)
    assert (supernet.rule, member.derivation) == (name, "mode")
    rule: Any = build_rule(supernet, plan.space)
    play(rule, supernet.training.steps - 1, lambda path: 1 - path.count(3) / 6)
    strategy = build_strategy(member, plan.space, rule.probabilities())
    assert strategy.ask(1) == [mode(rule.probabilities())]


@pytest.mark.slow  # on planted losses above, exactly
@pytest.mark.parametrize("name", ["manas", "manas_ls"])
def test_what_is_learnt_on_digits_is_better_than_chance(name: str) -> None:
    """The mode's loss, with the trained weights, is below the mean of random paths'."""
    config = small_config(
        seed=2, training={"steps": 250, "learning_rate": 0.1}, space={"settings": {"channels": 8, "cells_per_stage": 1}}
    )
    trainer = make_trainer(name, config)
    while not trainer.done:
        trainer.advance()
    assert trainer.curves[-1]["loss"] < 0.9 * trainer.curves[0]["loss"]
    space = trainer.rule.space  # type: ignore[attr-defined]
    rng = seeds.generator(1, "random paths")
    random = np.mean([share_of_guessing(trainer, space.sample(rng)) for _ in range(40)])
    assert share_of_guessing(trainer, mode(trainer.rule.probabilities())) < random
