"""Merging the rankings: leaders, calibration architectures, the consensus, and the finalists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from raynas import seeds
from raynas.aggregators.borda import borda
from raynas.aggregators.kemeny import kemeny
from raynas.aggregators.reliability import measure, reliability
from raynas.architecture import Architecture, encode
from raynas.config import check
from raynas.evaluation import Evaluation
from raynas.hypervolume import hypervolume, most_hypervolume
from raynas.members import family, load_member
from raynas.pareto import front_probability, pareto_front
from raynas.racing import foretold
from raynas.selector import (
    Ranking,
    candidates_table,
    consensus,
    leaders,
    rank,
    rank_and_cost,
    rank_candidates,
    ranks,
    scores_of,
    short_trained,
    short_trainings,
    spread,
    with_race,
)
from raynas.strategies.random_search import RandomSearch
from raynas.testing import STAGES

Aggregator = Callable[[NDArray[np.float64]], NDArray[np.float64]]
NAMES = list(family("raynas.aggregators"))
AGGREGATORS = pytest.mark.parametrize(
    "aggregator", [load_member("raynas.aggregators", name) for name in NAMES], ids=NAMES
)


def networks(count: int) -> list[Architecture]:
    """Canonical forms of distinct networks."""
    return [STAGES.canonicalise(one) for one in RandomSearch(STAGES, seed=0).ask(count)]


def evaluations(count: int, seed: int = 0) -> list[Evaluation]:
    """Objectives (a score, a cost) of keys that are not all canonical, with some rejected and some encoded twice."""
    rng = seeds.generator(seed, "evaluations")
    scores = {one: tuple(rng.random(2).round(2).tolist()) for one in networks(225)}
    keys = [STAGES.sample(rng) for _ in range(count)]
    return [
        Evaluation(key, (), "constraint: macs") if n % 7 == 3 else Evaluation(key, scores[STAGES.canonicalise(key)])
        for n, key in enumerate(keys)
    ]


def scored(found: list[Evaluation]) -> dict[Architecture, tuple[float, ...]]:
    return {STAGES.canonicalise(one.architecture): one.objectives for one in found if one.objectives}


def test_leaders_are_the_best_distinct_networks() -> None:
    found = evaluations(300)
    best = leaders(found, [0], 20, STAGES.canonicalise)
    values = scored(found)
    assert len(best) == len(set(best)) == 20
    assert [STAGES.canonicalise(one) for one in best] == best
    assert [values[one][0] for one in best] == sorted(value for value, _ in values.values())[:20]


def test_leaders_by_several_objectives_are_the_front_and_then_the_best_by_the_first() -> None:
    found = evaluations(300)
    values = scored(found)
    front = {one for one, on in zip(values, pareto_front(np.array(list(values.values()))), strict=True) if on}
    best = leaders(found, [0, 1], 30, STAGES.canonicalise)
    assert 1 < len(front) < 30
    assert set(best[: len(front)]) == front
    rest = [values[one][0] for one in best[len(front) :]]
    assert rest == sorted(values[one][0] for one in values if one not in front)[: len(rest)]


def test_leaders_are_the_same_in_whatever_order_they_were_found() -> None:
    found = evaluations(300)
    assert leaders(found, [0], 20, STAGES.canonicalise) == leaders(found[::-1], [0], 20, STAGES.canonicalise)


def test_a_member_that_scored_nothing_has_no_leaders() -> None:
    found = [Evaluation(one, (), "constraint: macs") for one in networks(5)]
    assert leaders(found, [0], 3, STAGES.canonicalise) == [] == spread(found, 0, 3, STAGES.canonicalise)
    assert leaders([], [0], 3, STAGES.canonicalise) == [] == spread([], 0, 3, STAGES.canonicalise)


@pytest.mark.parametrize("count", [2, 5, 40])
def test_the_spread_covers_the_ranking_from_the_best_to_the_worst(count: int) -> None:
    found = evaluations(300)
    values = {one: score for one, (score, _) in scored(found).items()}
    chosen = spread(found, 0, count, STAGES.canonicalise)
    ordered = sorted(values, key=lambda one: (values[one], one))
    places = [ordered.index(one) for one in chosen]
    assert len(chosen) == count and places[0] == 0 and places[-1] == len(ordered) - 1
    assert max(np.diff(places)) - min(np.diff(places)) <= 1


def test_a_spread_over_fewer_networks_is_all_of_them() -> None:
    found = [Evaluation(one, (float(n),)) for n, one in enumerate(networks(3))]
    assert spread([*found, *found], 0, 10, STAGES.canonicalise) == networks(3)
    assert len(spread(found, 0, 1, STAGES.canonicalise)) == 1
    assert spread(found, 0, 0, STAGES.canonicalise) == []


def ranking(
    candidates: list[Architecture], scores_RA: NDArray[np.float64], aggregator: Aggregator = kemeny, **changes: object
) -> Ranking:
    costs = {"macs": [float(sum(one)) for one in candidates], "parameters": [float(one[0]) for one in candidates]}
    settings = {"finalists": 3, "cost": "macs", "seed": 0, **changes}
    scores = {f"ranker{r}": list(row) for r, row in enumerate(scores_RA)}
    return rank(candidates, scores, costs, aggregator=aggregator, **settings)  # type: ignore[arg-type]


def scores(rankers: int, count: int, *, levels: int = 1000, missing: float = 0.0) -> NDArray[np.float64]:
    rng = seeds.generator(0, "scores", rankers, count, levels)
    values_RA = rng.integers(levels, size=(rankers, count)).astype(float)
    values_RA[:-1][rng.random((rankers - 1, count)) < missing] = np.nan  # the last ranker scores everything
    return values_RA


@AGGREGATORS
@pytest.mark.parametrize("rankers, levels, missing", [(1, 3, 0.0), (3, 3, 0.0), (3, 50, 0.3), (4, 4, 0.3)])
def test_the_ranking_is_the_same_whatever_the_order_of_the_candidates(
    aggregator: Aggregator, rankers: int, levels: int, missing: float
) -> None:
    for count in (2, 3, 5, 12, 40):
        candidates, scores_RA = networks(count), scores(rankers, count, levels=levels, missing=missing)
        expected = ranking(candidates, scores_RA, aggregator).table(STAGES)
        for seed in range(10):
            order = seeds.generator(seed, "order").permutation(count)
            shuffled = ranking([candidates[a] for a in order], scores_RA[:, order], aggregator).table(STAGES)
            assert shuffled.equals(expected) or _equal_but_nan(shuffled.to_pydict(), expected.to_pydict())


def test_majorities_that_go_in_circles_are_ranked_the_same_in_any_order() -> None:
    candidates, circle_RA = networks(3), np.array([[3.0, 2, 1], [1, 3, 2], [2, 1, 3]])
    orders = ([0, 1, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])
    found = {ranking([candidates[a] for a in order], circle_RA[:, order]).architectures for order in orders}
    assert len(found) == 1


@AGGREGATORS
def test_one_ranker_is_followed(aggregator: Aggregator) -> None:
    candidates, scores_RA = networks(40), scores(1, 40)
    found = ranking(candidates, scores_RA, aggregator)
    merit = dict(zip(candidates, scores_RA[0], strict=True))
    assert [merit[one] for one in found.architectures] == sorted(scores_RA[0], reverse=True)


@AGGREGATORS
def test_what_all_rankers_agree_on_is_kept(aggregator: Aggregator) -> None:
    candidates, agreed = networks(20), np.arange(20.0)
    found = ranking(candidates, np.stack([agreed, np.exp(agreed), agreed]), aggregator)
    assert found.architectures == tuple(candidates[::-1])


def test_a_ranker_with_missing_scores_does_not_push_down_what_it_missed() -> None:
    candidates, agreed = networks(20), np.arange(20.0)
    scores_RA = np.stack([agreed, np.exp(agreed), agreed])
    scores_RA[0, 4:9] = np.nan
    assert ranking(candidates, scores_RA).architectures == tuple(candidates[::-1])


@AGGREGATORS
def test_equal_scores_are_ordered_by_the_encoding(aggregator: Aggregator) -> None:
    candidates = networks(30)
    found = ranking(candidates, np.zeros((2, 30)), aggregator)
    assert found.architectures == tuple(sorted(candidates))
    assert len(set(found.consensus_A)) == 1


def test_equal_networks_have_one_consensus_however_often_they_are_asked_for() -> None:
    distinct = networks(8)
    for seed in range(50):
        rng = seeds.generator(seed, "duplicates")
        scores_RA = rng.integers(4, size=(3, 8)).astype(float)
        scores_RA[:2][rng.random((2, 8)) < 0.3] = np.nan
        once_A = consensus(distinct, scores_RA, kemeny)
        columns = rng.permutation([*range(8), *range(8), 3, 3])
        many_A = consensus([distinct[a] for a in columns], scores_RA[:, columns], kemeny)
        assert np.array_equal(many_A, once_A[columns])


def test_the_table_says_what_each_ranker_says() -> None:
    candidates, scores_RA = networks(30), scores(3, 30, levels=10, missing=0.2)
    table = ranking(candidates, scores_RA, calibration=candidates[5:8]).table(STAGES)
    assert table.column_names == [
        *("rank", "architecture", "name", "consensus", "held_out"),
        *(f"score_ranker{r}" for r in range(3)),
        *(f"rank_ranker{r}" for r in range(3)),
        *("macs", "parameters", "calibration", "on_front", "front_probability", "finalist"),
    ]
    rows = table.to_pylist()
    assert [row["rank"] for row in rows] == list(range(1, 31))
    assert [row["consensus"] for row in rows] == sorted((row["consensus"] for row in rows), reverse=True)
    places = {encode(one): a for a, one in enumerate(candidates)}
    for row in rows:
        a = places[row["architecture"]]
        assert row["calibration"] == (a in range(5, 8))
        assert row["macs"] == sum(candidates[a])
        for r in range(3):
            score, place = row[f"score_ranker{r}"], row[f"rank_ranker{r}"]
            if np.isnan(scores_RA[r, a]):
                assert np.isnan(score) and np.isnan(place)
            else:
                better, equal = np.sum(scores_RA[r] > score), np.sum(scores_RA[r] == score)
                assert score == scores_RA[r, a] and place == better + (equal + 1) / 2  # ties share their mean


def test_ranks_leave_out_what_a_ranker_did_not_score() -> None:
    scores_RA = np.array([[5.0, np.nan, 7.0, 5.0], [1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(ranks(scores_RA), [[2.5, np.nan, 1, 2.5], [4, 3, 2, 1]])


def trade_off() -> tuple[list[Architecture], NDArray[np.float64]]:
    """Networks of which the costlier ones tend to have the better scores."""
    candidates = networks(60)
    return candidates, scores(2, 60) + 300 * np.array([sum(one) for one in candidates])


def test_finalists_are_of_the_front_before_anything_else() -> None:
    candidates, scores_RA = trade_off()
    for count in (1, 2, 5, 30):
        found = ranking(candidates, scores_RA, borda, finalists=count)
        front, finalist = np.flatnonzero(found.on_front_A), np.flatnonzero(found.finalist_A)
        expected = pareto_front(np.stack([-found.consensus_A, found.costs["macs"]], axis=1))
        assert np.array_equal(found.on_front_A, expected)
        rest = np.flatnonzero(~found.on_front_A)
        assert len(finalist) == count and finalist[0] == front[0] == 0
        assert set(finalist) - set(front) == set(rest[: max(0, count - len(front))])
        assert 3 < len(front) < 30


def test_finalists_are_spread_over_the_front_of_rank_and_cost() -> None:
    found = ranking(*trade_off(), borda, finalists=3)
    objectives_A2 = rank_and_cost(found.consensus_A, found.costs["macs"])
    front = np.flatnonzero(found.on_front_A)
    assert np.flatnonzero(found.finalist_A).tolist() == sorted(front[most_hypervolume(objectives_A2[front], 3)])
    assert found.hypervolume is not None
    assert found.hypervolume["front"] == hypervolume(objectives_A2[front]) == hypervolume(objectives_A2)
    assert hypervolume(objectives_A2[front[:3]]) < found.hypervolume["finalists"] < found.hypervolume["front"]


def test_the_chance_to_be_on_the_front_is_that_of_merit_and_cost() -> None:
    found = ranking(*trade_off(), borda, seed=3)
    trust = measure(found.scores_RA)
    expected_A = front_probability(-trust.merit_A, trust.deviation_A, found.costs["macs"], seed=3)
    np.testing.assert_array_equal(found.front_probability_A, expected_A)
    assert found.agreement(STAGES, {})["front"]["likely"] == np.sum(expected_A >= 0.5) > 0


def test_rank_and_cost_run_from_the_best_to_the_worst() -> None:
    nan = np.nan
    found = rank_and_cost(np.array([0.9, 0.5, 0.5, -3.0, 0.1]), np.array([8.0, 0.0, 4.0, 2.0, nan]))
    np.testing.assert_allclose(found, [[0, 1], [0.375, 0], [0.375, 0.5], [1, 0], [0.75, nan]])
    np.testing.assert_array_equal(rank_and_cost(np.zeros(2), np.full(2, 7.0)), np.zeros((2, 2)))
    np.testing.assert_array_equal(rank_and_cost(np.zeros(2), np.zeros(2)), np.zeros((2, 2)))


def test_without_a_cost_the_finalists_are_the_first() -> None:
    found = ranking(networks(20), scores(2, 20), cost=None)
    assert np.flatnonzero(found.finalist_A).tolist() == [0, 1, 2]
    assert np.flatnonzero(found.on_front_A).tolist() == [0] and found.hypervolume is None
    assert np.isnan(found.front_probability_A).all() and found.agreement(STAGES, {})["front"] is None


def test_there_are_no_more_finalists_than_candidates() -> None:
    assert ranking(networks(2), scores(2, 2)).finalist_A.tolist() == [True, True]


def test_rankers_agree_with_themselves_and_with_their_like() -> None:
    base = np.arange(12.0)
    agreement = ranking(networks(12), np.stack([base, np.exp(base), -base])).agreement(STAGES, {})
    assert agreement["rankers"] == ["ranker0", "ranker1", "ranker2"]
    assert agreement["tau"] == [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
    spans = [max(one["ranks"].values()) - min(one["ranks"].values()) for one in agreement["most_disputed"]]
    assert spans == sorted(spans, reverse=True) and spans[0] == 11 and len(spans) == 10


def test_agreement_is_told_of_what_both_scored() -> None:
    scores_RA = np.array([[1.0, 2, 3, np.nan, np.nan], [1.0, 2, 3, 2, 1], [np.nan, np.nan, np.nan, 5, np.nan]])
    agreement = ranking(networks(5), scores_RA).agreement(STAGES, {})
    assert agreement["tau"] == [[1, 1, None], [1, 1, None], [None, None, 1]]
    disputed = {one["architecture"]: one["ranks"] for one in agreement["most_disputed"]}
    assert disputed.pop(encode(networks(5)[3])) == {"ranker0": None, "ranker1": 2.5, "ranker2": 1}
    assert all(ranks["ranker2"] is None for ranks in disputed.values())


def test_one_ranker_disputes_nothing() -> None:
    agreement = ranking(networks(5), scores(1, 5)).agreement(STAGES, {})
    assert agreement["tau"] == [[1]] and agreement["most_disputed"] == []


def test_aggregators_are_given_calibration_and_choices_in_the_order_of_the_encodings() -> None:
    given = []

    def heeds(
        scores_RA: NDArray[np.float64],
        *,
        calibration_A: NDArray[np.float64] | None = None,
        choices_AB: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        given.append(calibration_A)
        np.testing.assert_array_equal(choices_AB, sorted(distinct))
        return scores_RA[0]

    distinct = sorted(networks(10))[::-1]
    scores_RA, calibration_A = scores(2, 10), np.append(np.arange(9.0), np.nan)
    consensus(distinct, scores_RA, heeds, calibration_A)
    consensus(distinct, scores_RA, heeds)
    np.testing.assert_array_equal(given[0], calibration_A[::-1])
    assert given[1] is None
    np.testing.assert_array_equal(
        consensus(distinct, scores_RA, borda, calibration_A), consensus(distinct, scores_RA, borda)
    )


def _equal_but_nan(first: dict[str, list[object]], second: dict[str, list[object]]) -> bool:
    return first.keys() == second.keys() and all(
        all(x == y or (x != x and y != y) for x, y in zip(first[key], second[key], strict=True)) for key in first
    )


def test_a_held_out_consensus_hangs_on_no_accuracy_of_its_own() -> None:
    candidates, scores_RA = networks(40), scores(3, 40)
    accuracies = {one: float(n) for n, one in enumerate(candidates[::5])}
    found = ranking(candidates, scores_RA, reliability, accuracies=accuracies)
    assert {one for one, value in zip(found.architectures, found.held_out_A, strict=True) if value == value} == set(
        accuracies
    )
    one = candidates[10]
    other = ranking(candidates, scores_RA, reliability, accuracies={**accuracies, one: -100.0})
    assert held_out(found, one) == held_out(other, one)
    rest = [each for each in accuracies if each != one]
    assert [held_out(found, each) for each in rest] != [held_out(other, each) for each in rest]


def test_what_failed_when_it_was_trained_is_the_last_to_be_a_finalist() -> None:
    candidates, scores_RA = networks(20), scores(3, 20)
    before = ranking(candidates, scores_RA, reliability, cost=None)
    failures = dict.fromkeys(before.architectures[:2], np.nan)
    found = ranking(candidates, scores_RA, reliability, cost=None, accuracies=failures)
    assert found.architectures == before.architectures and np.isnan(found.held_out_A).all()
    assert np.flatnonzero(found.finalist_A).tolist() == [2, 3, 4]
    few = ranking(candidates[:2], scores_RA[:, :2], reliability, accuracies=dict.fromkeys(candidates[:2], np.nan))
    assert few.finalist_A.all()


def test_a_failure_on_the_front_is_no_finalist_before_all_others() -> None:
    candidates, scores_RA = trade_off()
    before = ranking(candidates, scores_RA, borda, finalists=2)
    failed = [one for one, on in zip(before.architectures, before.finalist_A, strict=True) if on]
    found = ranking(candidates, scores_RA, borda, finalists=58, accuracies=dict.fromkeys(failed, np.nan))
    assert {one for one, on in zip(found.architectures, found.finalist_A, strict=True) if not on} == set(failed)


def held_out(found: Ranking, one: Architecture) -> float:
    return float(found.held_out_A[found.architectures.index(one)])


def test_of_many_candidates_some_stand_for_all_where_the_consensus_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidates = networks(200)
    scores_RA = np.arange(200.0) + seeds.generator(0, "noise").normal(scale=20, size=(3, 200))
    accuracies = {one: float(n) for n, one in enumerate(candidates) if n % 20 == 0}
    whole = ranking(candidates, scores_RA, reliability, accuracies=accuracies)
    monkeypatch.setattr("raynas.selector.AMONG", 100)
    order = seeds.generator(0, "order").permutation(200)
    some = ranking(candidates, scores_RA, reliability, accuracies=accuracies)
    again = ranking([candidates[a] for a in order], scores_RA[:, order], reliability, accuracies=accuracies)
    np.testing.assert_array_equal(some.held_out_A, again.held_out_A)
    np.testing.assert_allclose(some.held_out_A, whole.held_out_A, atol=0.1)


def test_candidates_are_ranked_from_their_table_as_from_memory() -> None:
    candidates, scores_RA = networks(30), scores(2, 30)
    costs = {"parameters": [float(one[0]) for one in candidates], "macs": [float(sum(one)) for one in candidates]}
    config = check({"selector": {"aggregator": "kemeny"}})
    said = {f"ranker{r}": list(row) for r, row in enumerate(scores_RA)}
    table = candidates_table(candidates, said, costs, candidates[3:6])
    expected = rank(
        candidates, said, costs, aggregator=kemeny, finalists=3, cost="macs", seed=0, calibration=candidates[3:6]
    )
    found = rank_candidates(table, config).table(STAGES)
    assert _equal_but_nan(found.to_pydict(), expected.table(STAGES).to_pydict())


def test_a_supernet_of_a_rule_called_short_is_no_short_training() -> None:
    assert not short_trained(["short_paths", "short_", "fair"]).any()
    assert short_trained(["short_1", "short_0.2", "short_1e-05"]).all()


def test_short_trainings_are_one_ranker_and_what_each_rung_measured_is_on_file() -> None:
    candidates, scores_RA = networks(12), scores(2, 12)
    said = {f"ranker{r}": list(row) for r, row in enumerate(scores_RA)}
    costs = {"parameters": [1.0] * 12, "macs": [2.0] * 12}
    rungs = {2: dict(zip(candidates, scores_RA[0], strict=True)), 10: {one: 3.0 for one in candidates[:5]}}
    rungs[10][candidates[4]] = np.nan
    table = with_race(candidates_table(candidates, said, costs, []), rungs)
    columns = table.to_pydict()
    assert list(scores_of(columns)) == ["ranker0", "ranker1", "short_10"]
    assert [repr(one) for one in columns["short_10"]] == ["3.0"] * 4 + ["nan"] + ["None"] * 7
    assert columns["short_2"] == scores_RA[0].tolist()
    told = foretold(rungs)
    np.testing.assert_equal(columns["score_short_10"], [told[one] for one in candidates])
    assert short_trainings(table, (2, 10, 30)) == {2: 12, 10: 5}
    found = rank_candidates(table, check({}))
    assert found.rankers == ("ranker0", "ranker1", "short_10")
    race = found.agreement(STAGES, short_trainings(table, (2, 10)))["race"]
    trained = [{"epochs": 2, "candidates": 12}, {"epochs": 10, "candidates": 5}]
    assert race == {"trained": trained, "best": 3, "undecided": None}  # not calibrated
    assert "race" not in found.agreement(STAGES, {})


@pytest.mark.parametrize("aggregator", [reliability, borda, kemeny])
def test_where_nothing_was_scored_nothing_is_ranked(aggregator: Aggregator) -> None:
    found = ranking([], scores(2, 0), aggregator)
    assert found.architectures == () and found.hypervolume is None
    assert found.table(STAGES).num_rows == 0 and found.agreement(STAGES, {})["candidates"] == 0


def test_what_cannot_be_trained_is_on_no_front() -> None:
    candidates, scores_RA = networks(20), scores(3, 20)
    before = ranking(candidates, scores_RA, reliability)
    first = before.architectures[0]
    found = ranking(candidates, scores_RA, reliability, accuracies={first: np.nan})
    assert before.on_front_A[0] and not found.on_front_A[0] and found.front_probability_A[0] == 0
    assert found.on_front_A[found.finalist_A].any()
