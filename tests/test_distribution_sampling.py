"""Sampling from a learnt distribution: the mode, the frequencies, and what happens when it is peaked."""

from itertools import islice

import numpy as np
import pytest

from raynas.derivations.mode import mode
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies.distribution_sampling import DistributionSampling

SPACE = SearchSpace("wide", tuple(ChoiceBlock(f"b{b}", tuple("abcde")) for b in range(10)))
PI = [np.array([0.1, 0.5, 0.2, 0.2, 0.0]) for _ in range(10)]


def peaked(margin):
    """Almost all on choice 2, and then on 1, 3, 0, 4."""
    weights = np.exp(margin * np.array([2.0, 4.0, 5.0, 3.0, 1.0]))
    return [weights / weights.sum() for _ in range(10)]


def surprise(architecture, probabilities):
    return -sum(np.log(of_choices[choice]) for of_choices, choice in zip(probabilities, architecture, strict=True))


def test_the_mode_is_the_most_probable_choice_of_every_block():
    assert mode([np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.2, 0.4]), np.array([1.0])]) == (1, 0, 0)


def test_the_mode_is_asked_first_and_once():
    strategy = DistributionSampling(SPACE, seed=0, probabilities=PI)
    asked = strategy.ask(200)
    assert asked[0] == mode(PI)
    assert mode(PI) not in asked[1:]


def test_a_mode_that_was_told_is_not_asked():
    strategy = DistributionSampling(SPACE, seed=0, probabilities=PI)
    strategy.tell([Evaluation(mode(PI), (1.0,))])
    assert mode(PI) not in strategy.ask(200)


def test_samples_have_the_frequencies_of_the_distribution():
    asked = np.array(DistributionSampling(SPACE, seed=0, probabilities=PI).ask(3_000)[1:])
    frequencies = np.bincount(asked.ravel(), minlength=5) / asked.size
    np.testing.assert_allclose(frequencies, PI[0], atol=0.015)
    assert frequencies[4] == 0


def test_of_a_peaked_distribution_the_most_probable_come_next():
    probabilities = peaked(4.0)
    asked = DistributionSampling(SPACE, seed=0, probabilities=probabilities).ask(300)
    assert len(set(asked)) == 300
    surprises = [surprise(one, probabilities) for one in asked]
    # ten with one block at its second choice, then 45 with two: sampling reaches these in some order of its own
    assert max(surprises[:56]) <= min(surprises[150:]) + 1e-9


def test_the_walk_visits_every_key_once_by_falling_probability():
    space = SearchSpace("small", tuple(ChoiceBlock(f"b{b}", tuple("abcd")[: 2 + b]) for b in range(3)))
    rng = np.random.default_rng(0)
    probabilities = [rng.dirichlet(np.ones(2 + b)) for b in range(3)]
    strategy = DistributionSampling(space, seed=0, probabilities=probabilities)
    strategy._unasked.claim = lambda architecture: True  # a key that were visited again would come again
    walk = list(islice(iter(strategy._most_probable, None), 100))
    assert len(set(walk)) == len(walk) == 24
    surprises = [surprise(one, probabilities) for one in walk]
    assert surprises == pytest.approx(sorted(surprises))


def test_what_has_no_probability_is_never_asked():
    certain = [np.eye(5)[3] for _ in range(9)]
    strategy = DistributionSampling(SPACE, seed=0, probabilities=[*certain, np.array([0.5, 0.0, 0.5, 0.0, 0.0])])
    assert sorted(strategy.ask(10)) == [(3,) * 9 + (0,), (3,) * 9 + (2,)]
    assert strategy.ask(1) == []


@pytest.mark.parametrize(
    "probabilities",
    [
        PI[:9],
        [np.ones(5)] * 10,
        [np.array([1.5, -0.5, 0, 0, 0])] * 10,
        [np.full(4, 0.25)] * 10,
        [np.full(5, np.nan)] * 10,
    ],
)
def test_what_is_no_distribution_of_the_space_is_refused(probabilities):
    with pytest.raises(UserError, match="wide expects one distribution per block"):
        DistributionSampling(SPACE, seed=0, probabilities=probabilities)
