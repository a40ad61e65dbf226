"""Fronts, ranks and crowding against their definitions."""

import numpy as np
import pytest
from scipy.stats import norm

from raynas import seeds
from raynas.pareto import crowding_distance, front_probability, non_dominated_rank, pareto_front


def dominates(one, other):
    return bool(np.all(one <= other) and np.any(one < other))


def brute_force_rank(points):
    rank, left, front = np.full(len(points), -1), set(range(len(points))), 0
    while left:
        best = {a for a in left if not any(dominates(points[b], points[a]) for b in left)}
        rank[list(best)] = front
        left, front = left - best, front + 1
    return rank


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [3, 1000])  # with many ties, and with none
def test_ranks_are_those_of_peeling_off_fronts(objectives, levels):
    rng = np.random.default_rng(levels + objectives)
    for _ in range(10):
        points = rng.integers(0, levels, size=(rng.integers(1, 50), objectives)).astype(float)
        expected = brute_force_rank(points)
        assert np.array_equal(non_dominated_rank(points), expected)
        assert np.array_equal(pareto_front(points), expected == 0)


def test_equal_points_share_their_front():
    points = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0], [1.0, 3.0]])
    assert pareto_front(points).tolist() == [True, True, False, False]
    assert non_dominated_rank(points).tolist() == [0, 0, 1, 1]


def test_what_has_no_number_comes_last():
    points = np.array([[np.nan, 0.0], [3.0, 3.0], [1.0, 1.0], [0.0, np.nan]])
    assert pareto_front(points).tolist() == [False, False, True, False]
    assert non_dominated_rank(points).tolist() == [2, 1, 0, 2]
    assert not pareto_front(points[[0, 3]]).any()
    assert non_dominated_rank(points[[0, 3]]).tolist() == [0, 0]


def test_no_architectures_have_no_front():
    assert pareto_front(np.empty((0, 2))).shape == non_dominated_rank(np.empty((0, 2))).shape == (0,)
    assert crowding_distance(np.empty((0, 2))).shape == (0,)


def test_large_fronts_are_found():
    rng = np.random.default_rng(0)
    points = rng.random((100_000, 2))
    front = points[pareto_front(points)]
    rank = non_dominated_rank(points)
    assert np.array_equal(rank == 0, pareto_front(points))
    order = np.argsort(front[:, 0])
    assert (np.diff(front[order, 1]) < 0).all()  # along a front, what one objective gains the other loses
    assert all(any(dominates(one, other) for one in front) for other in points[rank == 1][:50])


def test_crowding_is_the_distance_between_the_neighbours():
    points = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 4.0], [10.0, 0.0]])
    assert crowding_distance(points).tolist() == [np.inf, 4 / 10 + 6 / 10, 9 / 10 + 6 / 10, np.inf]
    shuffled = [2, 0, 3, 1]
    assert crowding_distance(points[shuffled]).tolist() == crowding_distance(points)[shuffled].tolist()


def test_an_objective_equal_for_all_adds_nothing():
    points = np.array([[0.0, 7.0], [1.0, 7.0], [4.0, 7.0], [10.0, 7.0]])
    assert crowding_distance(points).tolist() == crowding_distance(points[:, :1]).tolist() == [np.inf, 0.4, 0.9, np.inf]
    assert crowding_distance(np.ones((3, 2))).tolist() == [0, 0, 0]


def uncertain(seed, architectures=40, levels=8):
    """Means with ties and a NaN, deviations, and costs with ties."""
    rng = np.random.default_rng(seed)
    mean_A = rng.integers(levels, size=architectures).astype(float)
    mean_A[3] = np.nan
    return mean_A, rng.uniform(0.1, 2, architectures), rng.integers(levels, size=architectures).astype(float)


def test_without_uncertainty_the_front_is_certain():
    for seed in range(10):
        mean_A, _, cost_A = uncertain(seed)
        front_A = pareto_front(np.stack([mean_A, cost_A], axis=1))
        assert front_probability(mean_A, np.zeros(40), cost_A, seed=0, draws=3).tolist() == front_A.tolist()


def test_the_probability_is_the_share_of_drawn_fronts(monkeypatch):
    mean_A, deviation_A, cost_A = uncertain(0)
    known_A = ~np.isnan(mean_A)
    rng = seeds.generator(5, "front")
    order = np.flatnonzero(known_A)[np.argsort(cost_A[known_A], kind="stable")]
    share_A = np.zeros(40)
    for _ in range(20):
        drawn_A = np.full(40, np.nan)
        drawn_A[order] = mean_A[order] + deviation_A[order] * rng.standard_normal(len(order))
        share_A += pareto_front(np.stack([drawn_A, cost_A], axis=1)) / 20
    np.testing.assert_allclose(front_probability(mean_A, deviation_A, cost_A, seed=5, draws=20), share_A)
    monkeypatch.setattr("raynas.pareto.AT_ONCE", 100)
    np.testing.assert_allclose(front_probability(mean_A, deviation_A, cost_A, seed=5, draws=20), share_A)


def test_of_equal_costs_exactly_one_is_on_the_front():
    mean_A, deviation_A, cost_A = uncertain(0)
    probability_A = front_probability(mean_A, deviation_A, np.zeros(40), seed=0)
    assert probability_A.sum() == pytest.approx(1) and probability_A[3] == 0
    with_all_A = front_probability(mean_A, deviation_A, cost_A, seed=0)
    assert with_all_A[cost_A == 0].sum() == pytest.approx(1)  # the cheapest group has nobody else in its way
    assert 1 <= with_all_A.sum() <= len(np.unique(cost_A))


def test_of_two_the_probability_is_that_of_the_normal_distribution():
    probability_A = front_probability(
        np.array([0.0, 1.0]), np.array([0.6, 0.8]), np.array([1.0, 2.0]), seed=0, draws=20_000
    )
    assert probability_A == pytest.approx([1, norm.cdf(-1)], abs=0.01)


def test_where_nothing_is_known_nothing_is_on_the_front():
    nothing_A = np.full(3, np.nan)
    assert front_probability(nothing_A, nothing_A, np.ones(3), seed=0).tolist() == [0, 0, 0]
