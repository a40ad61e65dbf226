"""Every rule: seeded, on its paths only; and what each paper says of its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import raynas.training_rules
from raynas import seeds
from raynas.config import Precision
from raynas.errors import UserError
from raynas.members import family
from raynas.replica_group import ReplicaGroup
from raynas.space import ChoiceBlock, SearchSpace
from raynas.supernet import seeded, touched
from raynas.training_rule import Batch
from raynas.training_rules.fair import Fair, carried_paths
from raynas.training_rules.importance import Importance
from raynas.training_rules.parsec import (
    Parsec,
    distribution_gradient,
    effective_sample_size,
    importance_weights,
)
from raynas.training_rules.uniform import Uniform, favoured
from search_spaces import nats_size
from search_spaces.mobilenet_chain import SMALL as CHAIN
from search_spaces.nas_bench_201 import CONV_1X1, CONV_3X3, SPACE
from tests.helpers import config_for, make_trainer, small_config

RULES = list(family("raynas.training_rules"))


def test_the_folder_holds_the_rules_that_are_tested() -> None:
    files = {path.stem for path in Path(raynas.training_rules.__path__[0]).glob("[a-z]*.py")}
    assert files == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_equal_seeds_give_equal_weights_and_another_seed_others(rule: str) -> None:
    first, second, other = make_trainer(rule), make_trainer(rule), make_trainer(rule)
    other.seed += 1
    for trainer in (first, second, other):
        for _ in range(3):
            trainer.train_step()
    states = [trainer.supernet.state_dict() for trainer in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize("rule", RULES)
def test_a_step_in_bfloat16_is_about_one_in_full_precision(rule: str) -> None:
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    full, rounded = (make_trainer(rule, config_for(rule, training={"precision": name})) for name in precisions)
    full_loss, rounded_loss = float(full.train_step()[0]), float(rounded.train_step()[0])
    assert rounded_loss == pytest.approx(full_loss, rel=0.02)
    assert rounded_loss != full_loss
    assert all(parameter.dtype == torch.float32 for parameter in rounded.supernet.parameters())


@pytest.mark.parametrize("rule", RULES)
def test_a_step_moves_nothing_that_its_paths_do_not_touch(rule: str) -> None:
    trainer = make_trainer(rule)
    before = {id(parameter): parameter.detach().clone() for parameter in trainer.supernet.parameters()}
    paths = _paths_of_next_step(trainer)
    trainer.train_step()
    on_paths = {id(parameter) for parameter in touched(trainer.owners, paths)}
    moved = {id(p) for p in trainer.supernet.parameters() if not torch.equal(p, before[id(p)])}
    assert moved and moved <= on_paths


@pytest.mark.parametrize("rule", RULES)
def test_probabilities_are_distributions_over_each_blocks_choices(rule: str) -> None:
    trainer = make_trainer(rule)
    trainer.train_step()
    for block, p in zip(trainer.rule.space.blocks, trainer.rule.probabilities(), strict=True):  # type: ignore[attr-defined]
        assert p.shape == (len(block.choices),)
        assert p.sum() == pytest.approx(1) and (p > 0).all()


def test_fair_gives_every_choice_of_every_block_the_same_update_count_at_all_times() -> None:
    trainer = make_trainer("fair")
    blocks = trainer.rule.space.blocks  # type: ignore[attr-defined]
    counts = [np.zeros(len(block.choices), dtype=int) for block in blocks]
    seen = set()
    for step in range(1, 6):
        paths = _paths_of_next_step(trainer)
        trainer.train_step()
        seen.add(paths)
        for path in paths:
            for block, choice in enumerate(path):
                counts[block][choice] += 1
        assert all((count == step).all() for count in counts)
    assert len(seen) == 5  # the permutations are drawn anew at every step


MIXED = SearchSpace(
    "mixed", tuple(ChoiceBlock(str(size), tuple(map(str, range(size)))) for size in (13, 12, 3, 1, 13, 12))
)


def test_fair_keeps_update_counts_of_unequal_blocks_within_one_at_all_times() -> None:
    counts = [np.zeros(len(block.choices), dtype=int) for block in MIXED.blocks]
    sets = [carried_paths(MIXED, 7, number) for number in range(24)]
    for number, paths in enumerate(sets, 1):
        assert len(paths) == 13
        for path in paths:
            for block, choice in enumerate(MIXED.check(path)):
                counts[block][choice] += 1
            assert all(np.ptp(count) <= 1 for count in counts)
        assert all((count == number).all() for count in counts if len(count) == 13)
        if number % 12 == 0:  # 12 steps of 13 paths are 156, the least common multiple
            assert all((count == number * 13 // len(count)).all() for count in counts)
    assert len(set(sets)) == 24
    columns = [[path[block] for paths in sets for path in paths] for block in range(6)]
    assert columns[0] != columns[4] and columns[1] != columns[5]  # each block in its own order


def test_fair_paths_of_a_step_do_not_depend_on_the_steps_before_it() -> None:
    backwards = [carried_paths(MIXED, 7, number) for number in reversed(range(5))]
    assert backwards[::-1] == [carried_paths(MIXED, 7, number) for number in range(5)]
    assert carried_paths(MIXED, 8, 3) != carried_paths(MIXED, 7, 3)


def test_fair_deals_out_every_order_of_an_unequal_block_about_equally_often() -> None:
    space = SearchSpace("s", (ChoiceBlock("a", ("x", "y", "z", "u")), ChoiceBlock("b", ("x", "y", "z"))))
    dealt = np.array([path[1] for number in range(1500) for path in carried_paths(space, 0, number)]).reshape(-1, 3)
    counts = np.unique(dealt, axis=0, return_counts=True)[1]
    assert counts == pytest.approx(np.full(6, 2000 / 6), abs=5 * np.sqrt(2000 / 6))


def test_fair_trains_unequal_blocks_the_same_after_a_resume() -> None:
    config = small_config(space={"name": "mobilenet_chain", "settings": CHAIN}, training={"batch_size": 8})
    unbroken, before, after = (make_trainer("fair", config) for _ in range(3))
    unbroken.train_step()
    before.train_step()
    after.load_state_dict(before.state_dict())
    expected, found = _paths_of_next_step(unbroken), _paths_of_next_step(after)
    assert expected == found == carried_paths(after.rule.space, after.seed, 1)  # type: ignore[attr-defined]


def test_fair_refuses_distinct_paths_of_unequal_blocks() -> None:
    with pytest.raises(ValueError, match='"distinct" expects blocks of one size'):
        Fair(MIXED, seed=0, sampling="distinct")


@pytest.mark.parametrize(("rule", "settings"), [("fair", {}), ("uniform", {"paths": 3, "sampling": "distinct"})])
def test_several_paths_accumulate_the_sum_of_their_gradients(rule: str, settings: dict[str, Any]) -> None:
    trainer = make_trainer(rule, **settings)
    paths = _paths_of_next_step(trainer)
    batch = trainer._batch("train", trainer.train)
    expected = {}
    for path in paths:
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer._loss(trainer.supernet(batch.images_NCHW, path), batch.labels_N).backward()
        for name, parameter in trainer.supernet.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected.get(name, 0) + parameter.grad.clone()
    trainer.optimizer.zero_grad(set_to_none=True)
    _step_rule(trainer)
    for name, parameter in trainer.supernet.named_parameters():
        assert (parameter.grad is None) == (name not in expected)
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name])


def test_uniform_draws_every_choice_about_equally_often() -> None:
    space = SearchSpace("s", tuple(ChoiceBlock(str(b), ("x", "y", "z", "u", "v")) for b in range(6)))
    drawn = np.array([space.sample(seeds.generator(0, "paths", step)) for step in range(3000)])
    for block in range(6):
        assert np.bincount(drawn[:, block]) == pytest.approx(600, abs=5 * np.sqrt(600 * 0.8))


def test_choices_with_weights_are_favoured_over_those_without() -> None:
    trainer = make_trainer("uniform")
    for p in favoured(trainer.supernet, SPACE, 3.0):  # none, skip, two convolutions, pooling
        assert p == pytest.approx(np.array([1, 1, 3, 3, 1]) / 9)
    favouring = make_trainer("uniform", favour=1e9)
    for _ in range(3):
        (path,) = _paths_of_next_step(favouring)
        favouring.train_step()
        assert set(path) <= {CONV_1X1, CONV_3X3}


def test_distinct_networks_cannot_be_favoured() -> None:
    with pytest.raises(ValueError, match="leave out either"):
        Uniform(SPACE, seed=0, sampling="distinct", favour=2.0)


def test_a_favour_that_makes_no_difference_is_refused_before_the_training() -> None:
    rule = Uniform(nats_size.SPACE, seed=0, favour=2.0)
    with pytest.raises(UserError, match="leave favour out"):
        rule.check(seeded(nats_size.supernet, 0, in_channels=1, classes=10, resolution=8))
    with pytest.raises(ValueError, match="favour > 0"):
        Uniform(SPACE, seed=0, favour=math.nan)
    trainer = make_trainer("uniform", favour=2.0)
    trainer.rule.check(trainer.supernet)  # type: ignore[attr-defined]


# Importance sampling of paths


def test_the_first_draws_are_uniform_and_no_choice_starves_at_the_end() -> None:
    rule = Importance(SPACE, seed=0, steps=10, strength=0.8)
    assert all(p == pytest.approx(np.full(5, 0.2)) for p in rule.probabilities())
    rule.norms = [np.array([math.nan, math.nan, 1.0, 9.0, math.nan]) for _ in range(6)]  # only convolutions have any
    rule.seen = 10
    for p in rule.probabilities():
        assert p.sum() == pytest.approx(1)
        assert p[[0, 1, 4]] == pytest.approx(np.full(3, 0.2))  # the mean importance is the uniform probability
        assert p[3] == pytest.approx(0.04 + 0.8 * 9 / 25) and p[2] == pytest.approx(0.04 + 0.8 * 1 / 25)


def test_norms_are_decaying_means_of_the_gradients_of_the_whole_option() -> None:
    trainer = make_trainer("importance", decay=0.75)
    expected = [np.full(5, math.nan) for _ in range(6)]
    for step in range(8):
        trainer.optimizer.zero_grad(set_to_none=True)
        result = _step_rule(trainer)
        weight = math.prod(0.2 / p[c] for c, p in zip(result.paths[0], trainer.rule.probabilities(), strict=True))
        for block, choice in enumerate(result.paths[0]):
            grads = [p.grad for p, places in trainer.owners if (block, choice) in places and p.grad is not None]
            if grads:
                norm = float(torch.cat([grad.flatten() for grad in grads]).norm()) / weight
                before = expected[block][choice]
                expected[block][choice] = norm if math.isnan(before) else 0.75 * before + 0.25 * norm
        trainer.train_step()
        assert trainer.rule.seen == step + 1  # type: ignore[attr-defined]
        for norms, correct in zip(trainer.rule.norms, expected, strict=True):  # type: ignore[attr-defined]
            np.testing.assert_allclose(norms, correct, rtol=1e-5)
    assert all(np.isnan(norms[[0, 1, 4]]).all() for norms in expected)
    assert sum((~np.isnan(norms)).sum() for norms in expected) > 4


@pytest.mark.parametrize("corrected", [True, False])
def test_weighted_losses_have_the_mean_of_all_paths(corrected: bool) -> None:
    """The expectation over all paths, each with its probability, of a space small enough to list them."""
    space = SearchSpace("s", (ChoiceBlock("a", ("x", "y")), ChoiceBlock("b", ("x", "y", "z"))))
    rule = Importance(space, seed=0, steps=1, strength=0.7, corrected=corrected)
    rule.norms, rule.seen = [np.array([1.0, 4.0]), np.array([2.0, math.nan, 0.1])], 1
    numbers = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))  # a path's logit is its own parameter
    mean, batch = torch.zeros(2, 3), Batch(torch.zeros(1), torch.zeros(1))
    for path, probability in zip(np.ndindex(2, 3), np.outer(*rule.probabilities()).flat, strict=True):
        numbers.grad = None
        rule.step(
            lambda images, path: numbers[path],  # type: ignore[arg-type]
            batch,
            None,
            loss=lambda logit, label: logit,
            rng=_Drawing(path),  # type: ignore[arg-type]
            number=1,
            group=ReplicaGroup(),
        )
        mean += probability * numbers.grad  # type: ignore[operator]
    assert torch.allclose(mean, torch.full((2, 3), 1 / 6)) == corrected


class _Drawing:
    """A generator that draws a given path."""

    def __init__(self, path: tuple[int, ...]) -> None:
        self.left = list(path)

    def choice(self, count: int, p: np.ndarray) -> int:
        assert len(p) == count
        return self.left.pop(0)


# PARSEC: methods.md 4.2 and test list item 3


def test_equal_likelihoods_give_equal_weights_and_no_expected_gradient() -> None:
    losses_K = np.full(8, 321.5)
    omega_K = importance_weights(losses_K)
    assert omega_K == pytest.approx(np.full(8, 1 / 8))
    assert effective_sample_size(omega_K) == pytest.approx(8)
    pi = (np.array([0.2, 0.5, 0.3]),)
    rng = np.random.default_rng(0)
    gradients = [
        distribution_gradient([(int(rng.choice(3, p=pi[0])),) for _ in range(8)], omega_K, pi)[0] for _ in range(4000)
    ]
    assert np.mean(gradients, axis=0) == pytest.approx(np.zeros(3), abs=0.01)


def test_weights_are_the_softmax_of_minus_the_batch_losses_over_the_temperature() -> None:
    losses_K = np.array([700.0, 703.2, 712.0])
    shares = np.exp(-(losses_K - 700) / 2)
    assert importance_weights(losses_K, temperature=2.0) == pytest.approx(shares / shares.sum())
    assert effective_sample_size(importance_weights(np.array([0.0, 50.0]))) == pytest.approx(1)


def test_the_distribution_converges_to_the_better_of_two_arms() -> None:
    space = SearchSpace("arms", (ChoiceBlock("arm", ("bad", "good")),))
    rule = Parsec(space, seed=0, samples=4, distribution_learning_rate=0.1)
    for step in range(150):
        rng = seeds.generator(0, step)
        pi = rule.probabilities()
        children = [(int(rng.choice(2, p=pi[0])),) for _ in range(rule.samples)]
        losses_K = np.array([2.0 if child == (1,) else 3.0 for child in children])
        rule._move_distribution(children, importance_weights(losses_K), pi)
    assert rule.probabilities()[0][1] > 0.95


def test_the_distribution_learns_from_the_validation_batch_alone() -> None:
    """With other training labels pi moves the same; with other validation labels it does not."""

    def theta_after(change: str | None) -> list[torch.Tensor]:
        trainer = make_trainer("parsec", samples=4)
        if change:
            source = getattr(trainer, change)
            source.labels_N = source.labels_N.roll(7)
        trainer.train_step()
        return trainer.rule.theta  # type: ignore[attr-defined, no-any-return]

    plain = theta_after(None)
    assert all(torch.equal(a, b) for a, b in zip(plain, theta_after("train"), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(plain, theta_after("validation"), strict=True))


def test_the_weights_learn_from_the_training_batch_alone() -> None:
    def weights_after(change: str | None) -> dict[str, torch.Tensor]:
        trainer = make_trainer("parsec", samples=4)
        if change:
            source = getattr(trainer, change)
            source.labels_N = source.labels_N.roll(7)
        trainer.train_step()
        return trainer.supernet.state_dict()  # type: ignore[no-any-return]

    plain, validation = weights_after(None), weights_after("validation")
    assert all(torch.equal(plain[name], validation[name]) for name in plain)
    assert not all(torch.equal(plain[name], value) for name, value in weights_after("train").items())


def test_the_effective_sample_size_is_logged() -> None:
    _, metrics = make_trainer("parsec", samples=4).train_step()
    assert 1 <= float(metrics["effective_sample_size"]) <= 4
    assert float(metrics["entropy"]) == pytest.approx(6 * np.log(5), rel=0.01)


def _paths_of_next_step(trainer: object) -> tuple[tuple[int, ...], ...]:
    """The paths that the next step will take, found by a step of the rule whose gradients are thrown away."""
    state = trainer.rule.state_dict()  # type: ignore[attr-defined]
    result = _step_rule(trainer)
    trainer.rule.load_state_dict(state)  # type: ignore[attr-defined]
    trainer.optimizer.zero_grad(set_to_none=True)  # type: ignore[attr-defined]
    return result.paths  # type: ignore[attr-defined, no-any-return]


def _step_rule(trainer: object) -> object:
    validation = trainer._batch("validation", trainer.validation)  # type: ignore[attr-defined]
    return trainer.rule.step(  # type: ignore[attr-defined]
        trainer.supernet,  # type: ignore[attr-defined]
        trainer._batch("train", trainer.train),  # type: ignore[attr-defined]
        validation,
        loss=trainer._loss,  # type: ignore[attr-defined]
        rng=seeds.generator(trainer.seed, "paths", trainer.step),  # type: ignore[attr-defined]
        number=trainer.step,  # type: ignore[attr-defined]
        group=trainer.group,  # type: ignore[attr-defined]
    )
