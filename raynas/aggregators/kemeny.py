"""Kemeny's order, of least disagreement with the rankers; of many architectures an approximation from Borda's.

Kemeny, Daedalus 88, 1959; the approximation is local Kemenization (Dwork et al., WWW 2001).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import scipy
from numpy.typing import NDArray

from raynas.aggregators.borda import borda, by_borda, scaled_ranks

EXACT = 30
"""Architectures up to which the order is exact: 0.3 s, of 300 random sets of rankers at most 0.8 s, on a shared CPU.

Where every pair has a vote of its own, which is no set of rankers, 14 s end without a proof, and swaps do.
"""


def kemeny(scores_RA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Consensus from 0 (worst) to 1 (best) of each architecture: shape (R, A) -> (A,); higher is better.

    scores_RA: higher is better; NaN where a ranker has no score: it then has no vote on that architecture's pairs.
    Of up to EXACT architectures no order has less total disagreement over all pairs, where that is proved without
    branching; of several such orders it is the one nearest to Borda's. Of more, the Borda order is improved by swapping
    neighbours wherever more rankers prefer the lower one, until none is left: no swap of neighbours brings it closer to
    the rankers (Dwork et al. 2001, section 4.2), and the disagreement is never above Borda's. Either way one who beats
    all others by majority comes first.
    Neighbours of equal Borda count without a majority between them share their mean rank. NaN where nobody has a score.
    """
    scores_RA = np.asarray(scores_RA, dtype=np.float64)
    borda_A = borda(scores_RA)
    consensus_A = np.full(len(borda_A), np.nan)
    if not np.isnan(borda_A).all():
        order = _untied(borda_A, scores_RA)
        order = (_exact if 2 < len(order) <= EXACT else _kemenise)(order, scores_RA)  # swaps do for two
        consensus_A[order] = scaled_ranks(-_places(order, borda_A, scores_RA)[None])[0]
    return consensus_A


def agreement(consensus_A: NDArray[np.float64], scores_RA: NDArray[np.float64]) -> int:
    """Pairs that rankers order as the consensus does, less pairs that they order against it, summed over rankers.

    The total disagreement that Kemeny minimises, with ties at one half, falls as this rises.
    """
    total = 0
    for scores_A in scores_RA:
        known = ~(np.isnan(scores_A) | np.isnan(consensus_A))
        mine_A, yours_A = consensus_A[known], scores_A[known]
        classes = min(len(np.unique(mine_A)), len(np.unique(yours_A)))
        if classes > 1:  # the numerator of tau-c, counted in A log A
            tau_c = scipy.stats.kendalltau(mine_A, yours_A, variant="c").statistic
            total += round(tau_c * len(mine_A) ** 2 * (classes - 1) / classes / 2)
    return total


def _untied(borda_A: NDArray[np.float64], scores_RA: NDArray[np.float64]) -> NDArray[np.int64]:
    """The known architectures in Borda's order, best first, without ties.

    If breaking ties as by_borda does sets more pairs against a majority than with it, they are broken the other way
    round, which sets as many with it.
    """
    order = by_borda(borda_A, scores_RA)
    strict_A = np.full(len(borda_A), np.nan)
    strict_A[order] = -np.arange(len(order))
    if agreement(strict_A, scores_RA) < agreement(borda_A, scores_RA):
        order = order[::-1]
        order = order[np.argsort(-borda_A[order], kind="stable")]
    return order


def _exact(order: NDArray[np.int64], scores_RA: NDArray[np.float64]) -> NDArray[np.int64]:
    """The order of least total disagreement, and among those the one that has most pairs as `order` has them.

    The linear ordering problem (Groetschel, Juenger and Reinelt, Operations Research 32, 1984): a variable for each
    pair of places in `order` says whether the upper one stays above; no three may go in a circle.
    """
    count = len(order)
    upper, lower = np.triu_indices(count, 1)
    pair = np.zeros((count, count), dtype=np.int64)
    pair[upper, lower] = np.arange(len(upper))
    margin_P = _margins(order[upper], order[lower], scores_RA)
    first, second, third = np.array(list(combinations(range(count), 3))).T
    triples = len(first)
    circles = scipy.sparse.csr_array(
        (
            np.tile([1.0, 1.0, -1.0], triples),
            (
                np.repeat(np.arange(triples), 3),
                np.stack([pair[first, second], pair[second, third], pair[first, third]], axis=1).ravel(),
            ),
        ),
        shape=(triples, len(upper)),
    )
    found = scipy.optimize.milp(
        -(margin_P + 0.5 / len(upper)),  # what is added is in all less than one ranker's say on one pair
        integrality=1,
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=scipy.optimize.LinearConstraint(circles, 0, 1),
        options={"mip_rel_gap": 0, "node_limit": 1},
    )
    if found.status:  # no proof so soon, of which there are none with a few rankers
        return _kemenise(order, scores_RA)
    stays_P = np.round(found.x).astype(np.int64)
    above = np.bincount(lower, stays_P, count) + np.bincount(upper, 1 - stays_P, count)
    return np.asarray(order[np.argsort(above)])


def _kemenise(order: NDArray[np.int64], scores_RA: NDArray[np.float64]) -> NDArray[np.int64]:
    """Swap neighbours against a majority, best first: all pairs (0, 1), (2, 3) ... at once, then (1, 2), (3, 4) ...

    Every swap lowers the total disagreement, so this ends.
    """
    order = order.copy()
    pairs = len(order) - 1
    stale = [np.arange(0, pairs, 2), np.arange(1, pairs, 2)]  # pairs whose order has not been looked at
    turn = 0
    while len(stale[0]) or len(stale[1]):
        left = stale[turn]
        left = left[_margins(order[left], order[left + 1], scores_RA) < 0]
        order[left], order[left + 1] = order[left + 1], order[left]
        stale[turn] = left[:0]
        turn = 1 - turn
        touched = np.unique(np.concatenate((left - 1, left + 1, stale[turn])))
        stale[turn] = touched[(touched >= 0) & (touched < pairs)]
    return order


def _margins(first: NDArray[np.int64], second: NDArray[np.int64], scores_RA: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many more rankers prefer each of the first to its second than the other way round."""
    first_RA, second_RA = scores_RA[:, first], scores_RA[:, second]
    return np.asarray(np.sum(first_RA > second_RA, axis=0) - np.sum(first_RA < second_RA, axis=0))  # NaN: neither


def _places(
    order: NDArray[np.int64], borda_A: NDArray[np.float64], scores_RA: NDArray[np.float64]
) -> NDArray[np.float64]:
    """0, 1, 2 ... down the order; a run of equal Borda counts, no two of which a majority tells apart, shares one."""
    ordered_RA = scores_RA[:, order]
    tied = (_margins(order[:-1], order[1:], scores_RA) == 0) & (np.diff(borda_A[order]) == 0)
    equal = np.all((ordered_RA[:, 1:] == ordered_RA[:, :-1]) | np.isnan(ordered_RA[:, 1:] + ordered_RA[:, :-1]), axis=0)
    places, start = np.zeros(len(order)), 0
    for place in range(1, len(order)):
        if tied[place - 1] and place - start > 1 and not equal[place - 1]:
            run_RA, next_R1 = ordered_RA[:, start:place], ordered_RA[:, place : place + 1]
            tied[place - 1] = not np.any(np.sum(run_RA > next_R1, axis=0) - np.sum(run_RA < next_R1, axis=0))
        if not tied[place - 1]:
            start = place
        places[place] = places[place - 1] + (not tied[place - 1])
    return places
