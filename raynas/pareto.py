"""Pareto dominance of objectives that are all minimised: fronts, ranks and crowding (Deb et al., IEEE TEC 2002)."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from raynas import seeds

AT_ONCE = 2**20  # numbers that are drawn at once


def pareto_front(objectives_AM: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which architectures no other dominates: shape (A, M) -> mask (A,).

    One dominates another if it is nowhere worse and somewhere better, so equal ones share the front. A row with NaN
    is never on it.
    """
    objectives_AM = np.asarray(objectives_AM, dtype=np.float64)
    mask_A = np.zeros(len(objectives_AM), dtype=np.bool_)
    rows_A = np.flatnonzero(~np.isnan(objectives_AM).any(axis=1))
    if len(rows_A):
        distinct, inverse_A = _distinct(objectives_AM[rows_A])
        mask_A[rows_A] = _front_of_distinct(distinct)[inverse_A]
    return mask_A


def front_probability(
    mean_A: NDArray[np.float64],
    deviation_A: NDArray[np.float64],
    cost_A: NDArray[np.float64],
    *,
    seed: int,
    draws: int = 500,
) -> NDArray[np.float64]:
    """How likely each architecture is on the front of an uncertain objective and a cost: shape (A,) -> (A,).

    The share of `draws` in which it is, when the objectives, minimised, are drawn from normal distributions, each for
    itself; its standard error is at most 0.5 / sqrt(draws). Costs are exact. What has a NaN is never on the front, and
    in no one's way.
    """
    known = np.flatnonzero(~np.isnan(mean_A + deviation_A + cost_A))
    order = known[np.argsort(cost_A[known], kind="stable")]
    found_A = np.zeros(len(mean_A))
    if not len(order):
        return found_A
    starts = np.append(True, np.diff(cost_A[order]) > 0)
    first, group = np.flatnonzero(starts), np.cumsum(starts) - 1  # equal costs are a group, of which one draw is best
    rng = seeds.generator(seed, "front")
    for size in np.diff([*range(0, draws, max(1, AT_ONCE // len(order))), draws]):
        drawn_DA = mean_A[order] + deviation_A[order] * rng.standard_normal((size, len(order)))
        least_DG = np.minimum.reduceat(drawn_DA, first, axis=1)
        better_DG = np.ones(least_DG.shape, dtype=bool)  # than all that cost less
        better_DG[:, 1:] = least_DG[:, 1:] < np.minimum.accumulate(least_DG, axis=1)[:, :-1]
        found_A[order] += np.sum(better_DG[:, group] & (drawn_DA == least_DG[:, group]), axis=0)
    return found_A / draws


def non_dominated_rank(objectives_AM: NDArray[np.float64]) -> NDArray[np.int64]:
    """The front that each architecture lies on, 0 the best: shape (A, M) -> (A,).

    Front k is what no other dominates once the fronts before it are taken away (Deb et al. 2002, section III.A).
    Rows with NaN share a last rank of their own.
    """
    objectives_AM = np.asarray(objectives_AM, dtype=np.float64)
    rank_A = np.zeros(len(objectives_AM), dtype=np.int64)
    missing_A = np.isnan(objectives_AM).any(axis=1)
    if not missing_A.all():
        distinct, inverse_A = _distinct(objectives_AM[~missing_A])
        rank_A[~missing_A] = _rank_of_distinct(distinct)[inverse_A]
        rank_A[missing_A] = rank_A.max() + 1
    return rank_A


def crowding_distance(objectives_AM: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far apart the neighbours of each member of one front are: shape (A, M) -> (A,); inf at the ends.

    Deb et al. 2002, section III.B: per objective the distance between the two neighbours over the front's range,
    summed over objectives. An objective that is equal for all tells nothing and adds nothing.
    """
    objectives_AM = np.asarray(objectives_AM, dtype=np.float64)
    distance_A = np.zeros(len(objectives_AM))
    if len(objectives_AM) <= 2:
        return np.full(len(objectives_AM), np.inf)
    for values_A in objectives_AM.T:
        order = np.argsort(values_A, kind="stable")
        ordered = values_A[order]
        if (spread := ordered[-1] - ordered[0]) > 0:
            distance_A[order[1:-1]] += (ordered[2:] - ordered[:-2]) / spread
            distance_A[order[[0, -1]]] = np.inf
    return distance_A


def _distinct(objectives_AM: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The distinct rows in lexicographic order, and where each row is among them."""
    distinct, inverse_A = np.unique(objectives_AM, axis=0, return_inverse=True)
    return distinct, inverse_A.reshape(-1)


def _front_of_distinct(objectives_AM: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The mask for distinct rows in lexicographic order, of which none is dominated by a later one."""
    if objectives_AM.shape[1] <= 2:
        last_A = objectives_AM[:, -1]
        mask_A = np.ones(len(last_A), dtype=np.bool_)
        mask_A[1:] = last_A[1:] < np.minimum.accumulate(last_A)[:-1]
        return mask_A
    mask_A = np.zeros(len(objectives_AM), dtype=np.bool_)
    candidates = np.arange(len(objectives_AM))
    while len(candidates):
        first, rest = candidates[0], candidates[1:]
        mask_A[first] = True
        candidates = rest[(objectives_AM[rest] < objectives_AM[first]).any(axis=1)]
    return mask_A


def _rank_of_distinct(objectives_AM: NDArray[np.float64]) -> NDArray[np.int64]:
    rank_A = np.zeros(len(objectives_AM), dtype=np.int64)
    if objectives_AM.shape[1] <= 2:
        lowest: list[float] = []  # the least second objective of each front so far, rising with the front
        for row, value in enumerate(objectives_AM[:, -1].tolist()):
            rank_A[row] = front = bisect_right(lowest, value)
            lowest[front : front + 1] = [value]
        return rank_A
    left = np.arange(len(objectives_AM))
    rank = 0
    while len(left):
        on_front = _front_of_distinct(objectives_AM[left])
        rank_A[left[on_front]] = rank
        left = left[~on_front]
        rank += 1
    return rank_A
