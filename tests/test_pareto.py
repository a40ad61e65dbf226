"""Fronts, ranks and crowding against their definitions."""

import numpy as np
import pytest

from raynas.pareto import crowding_distance, non_dominated_rank, pareto_front


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
