"""The race of short trainings: who is trained for longer, and what is foretold of those that are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import isnan, nan

import numpy as np
import pytest
from numpy.typing import NDArray

from raynas import seeds
from raynas.aggregators.reliability import measure
from raynas.architecture import Architecture
from raynas.racing import Rungs, Train, foretold, going_on, race

COUNT = 3
EPOCHS = (1, 3, 9)


def networks(count: int) -> list[Architecture]:
    return [(a // 10, a % 10) for a in range(count)]


def truth(count: int, seed: int = 0) -> dict[Architecture, float]:
    return dict(zip(networks(count), seeds.generator(seed, "truth").normal(size=count).tolist(), strict=True))


def trainings(of: Mapping[Architecture, float], noise: float = 0.0, failing: float = 0.0) -> Train:
    """Scores that rise with epochs, nearer to the truth the longer they take; a pure function of both."""

    def train(epochs: float, runners: list[Architecture]) -> list[float]:
        assert runners == sorted(runners)
        rngs = [seeds.generator(0, "training", epochs, str(one)) for one in runners]
        return [
            nan if rng.random() < failing else of[one] * epochs + 10 * epochs + noise / epochs * float(rng.normal())
            for one, rng in zip(runners, rngs, strict=True)
        ]

    return train


def others(of: Mapping[Architecture, float], noise: float = 0.0) -> NDArray[np.float64]:
    """Two rankers that see the truth through noise."""
    return np.array(list(of.values())) + noise * seeds.generator(0, "others").normal(size=(2, len(of)))


def best(of: Mapping[Architecture, float], count: int = COUNT) -> set[Architecture]:
    return set(sorted(of, key=lambda one: -of[one])[:count])


@pytest.mark.parametrize("noise, failing", [(0.0, 0.0), (1.0, 0.0), (1.0, 0.2)])
def test_the_order_of_the_networks_changes_nothing(noise: float, failing: float) -> None:
    of, scores_RA = truth(40), others(truth(40), 1.0)
    train = trainings(of, noise, failing)
    expected = race(networks(40), scores_RA, EPOCHS, COUNT, train)
    assert len(expected) == 3
    for seed in range(5):
        order = seeds.generator(seed, "order").permutation(40)
        found = race([networks(40)[a] for a in order], scores_RA[:, order], EPOCHS, COUNT, train)
        np.testing.assert_equal(found, expected)
        np.testing.assert_equal(foretold(found), foretold(expected))


def test_a_race_over_one_rung_trains_all_and_foretells_nothing() -> None:
    of = truth(20)
    train = trainings(of, noise=1.0, failing=0.2)
    rungs = race(networks(20), others(of), (3,), COUNT, train)
    measured = dict(zip(networks(20), train(3, networks(20)), strict=True))
    np.testing.assert_equal(rungs, {3: measured})
    np.testing.assert_equal(foretold(rungs), measured)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 3, 8])
def test_without_noise_the_best_stay_in_the_race_and_all_are_foretold_in_their_order(seed: int, count: int) -> None:
    of = truth(60, seed)
    rungs = race(networks(60), others(of), EPOCHS, count, trainings(of))
    for rung in rungs.values():
        assert best(of, count) <= rung.keys()
    told = foretold(rungs)
    assert sorted(told, key=told.__getitem__) == sorted(of, key=of.__getitem__)


@pytest.mark.parametrize("noise", [0.0, 1.0, 100.0])
def test_a_rung_has_half_of_the_one_before_at_most_and_is_within_it(noise: float) -> None:
    of = truth(50)
    rungs = list(race(networks(50), others(of, noise), EPOCHS, COUNT, trainings(of, noise)).values())
    for before, after in pairwise(rungs):
        assert after.keys() <= before.keys() and COUNT < len(after) <= len(before) // 2


def test_the_surer_the_rankers_the_fewer_go_on() -> None:
    of = truth(200)
    counts = []
    for noise in (3.0, 1.0, 0.3):
        trust = measure(np.array(list(of.values())) + noise * seeds.generator(0, "surer").normal(size=(3, 200)))
        counts.append(len(going_on(networks(200), trust, of, COUNT)))
    assert 100 == counts[0] > counts[1] > counts[2] > COUNT


@pytest.mark.parametrize("candidates, epochs", [(2, [1]), (3, [1]), (7, [1]), (8, [1, 3]), (16, [1, 3, 9])])
def test_the_race_is_over_when_no_more_go_on_than_are_wanted(candidates: int, epochs: list[int]) -> None:
    of = truth(candidates)
    assert list(race(networks(candidates), others(of, 2.0), EPOCHS, COUNT, trainings(of))) == epochs


def test_what_failed_leaves_the_race_and_stops_nothing() -> None:
    of = truth(60)
    rungs = race(networks(60), others(of, 0.5), EPOCHS, COUNT, trainings(of, failing=0.3))
    failed = {one for rung in rungs.values() for one, score in rung.items() if isnan(score)}
    rows = list(rungs.values())
    assert len(rows) == 3 and all(any(map(isnan, rung.values())) for rung in rows)
    for before, after in pairwise(rows):
        assert not any(isnan(before[one]) for one in after)
    assert {one for one, score in foretold(rungs).items() if isnan(score)} == failed


def test_where_every_training_fails_the_race_is_over_and_says_nothing() -> None:
    def fail(epochs: int, runners: list[Architecture]) -> list[float]:
        return [nan] * len(runners)

    rungs = race(networks(20), others(truth(20)), EPOCHS, COUNT, fail)
    assert list(rungs) == [1] and all(map(isnan, foretold(rungs).values()))
    alone = race(networks(20), np.full((1, 20), nan), EPOCHS, COUNT, fail)
    np.testing.assert_equal(alone, rungs)


def test_a_rung_that_fails_as_a_whole_leaves_the_others_what_they_had() -> None:
    first = truth(20)
    rungs: Rungs = {1: first, 3: dict.fromkeys(networks(20)[:8], nan)}
    expected = {one: nan if one in rungs[3] else score for one, score in first.items()}
    np.testing.assert_equal(foretold(rungs), expected)


def _rungs(change: Callable[[float], float], went: int) -> Rungs:
    first = truth(20)
    gone = sorted(first, key=lambda one: -first[one])[:went]
    return {1: first, 3: {one: change(first[one]) for one in gone}}


@pytest.mark.parametrize(
    "change, went, slope",
    [
        (lambda score: 0.5 * score + 2, 10, 0.5),  # those that went on lie on a line
        (lambda score: 2.0 - score, 10, 0.0),  # a line that falls is level
        (lambda score: 0.5 * score + 2, 2, 1.0),  # too few for a line: all gain the same
    ],
)
def test_what_is_foretold_lies_on_the_line_of_those_that_went_on(
    change: Callable[[float], float], went: int, slope: float
) -> None:
    rungs = _rungs(change, went)
    told, before, after = foretold(rungs), *([rungs[e][one] for one in rungs[3]] for e in (1, 3))
    for one, score in rungs[1].items():
        expected = rungs[3].get(one, np.mean(after) + slope * (score - np.mean(before)))
        assert told[one] == pytest.approx(expected, abs=1e-12)


def test_equal_scores_gain_what_the_others_gain_in_the_mean() -> None:
    rungs: Rungs = {1: dict.fromkeys(networks(6), 0.5), 3: dict(zip(networks(4), (0.6, 0.7, 0.8, 0.9), strict=True))}
    assert foretold(rungs)[0, 5] == pytest.approx(0.75)


def test_ties_go_on_by_their_encoding() -> None:
    same = np.zeros((2, 20))
    went = race(networks(20), same, (1, 2), COUNT, lambda _, runners: [0.5] * len(runners))
    assert list(went[2]) == networks(20)[:10]


def test_nothing_is_foretold_beyond_the_best_that_was_measured() -> None:
    """A network whose rung was better than that of all who went on, but whom other rankers held back."""
    runners = networks(6)
    before = dict(zip(runners, [1.0, 2.0, 3.0, 4.0, 9.0, 0.0], strict=True))
    after = {one: 2 * before[one] for one in runners[:4]}
    told = foretold({1: before, 3: after})
    assert told[runners[4]] == pytest.approx(8.0) and told[runners[5]] == pytest.approx(0.0)


def test_short_trainings_have_half_the_say_in_who_goes_on() -> None:
    """The others agree with each other, and not with the trainings."""
    ordered, of = networks(40), truth(40, seed=1)
    scores_RA, train = others(truth(40), 0.3), trainings(of)
    first, second = race(ordered, scores_RA, (1, 3), COUNT, train).values()
    known_RA = np.vstack([scores_RA, list(first.values())])
    with_half, without = (
        set(going_on(ordered, measure(known_RA, trained_R=trained_R), first, COUNT))
        for trained_R in (np.array([False, False, True]), None)
    )
    assert set(second) == with_half != without
