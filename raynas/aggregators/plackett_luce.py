"""Plackett-Luce: the worths under which the rankers' orders are likeliest (Hunter, Annals of Statistics 32, 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raynas.aggregators.borda import scaled_ranks, tells_apart

PRIOR = 1.0
"""Each worth's prior is a gamma distribution of shape 1 + PRIOR: as if PRIOR more rankers found all equal. It keeps
worths finite, and those of which little is known near the mean (Caron and Doucet, JCGS 21, 2012)."""

STEPS, CLOSE = 100, 1e-4
"""Iterations at most, and the change of all logarithms of worths below which no more are made."""


def plackett_luce(scores_RA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank from 0 (worst) to 1 (best) of each architecture's worth: shape (R, A) -> (A,); higher is better.

    scores_RA: higher is better; NaN where a ranker has no score: its order is one of those that it scored. NaN where
    nobody has a score. It is about who comes first: the reverse of all orders has not the reverse consensus.
    """
    log_worth_A = log_worth(scores_RA)
    return np.asarray(scaled_ranks(np.round(log_worth_A, 9)[None])[0])  # equal worths must not differ by rounding


def log_worth(scores_RA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of the worths, whose mean is 1: shape (R, A) -> (A,); NaN where nobody has a score.

    In every order, best first, the next is drawn with probability proportional to worth from those that are left.
    The worths of largest posterior density are found by minorisation-maximisation (Hunter 2004, section 5).
    """
    scores_RA = np.asarray(scores_RA, dtype=np.float64)
    known_A = np.any(~np.isnan(scores_RA), axis=0)
    orders = [_order(scores_A) for scores_A in scores_RA[tells_apart(scores_RA)]]
    drawn_A = np.full(len(known_A), PRIOR)
    for order in orders:
        drawn_A[order.architectures[order.first[1] :]] += 1  # who is in the last place is not drawn, but left
    worth_A = known_A.astype(np.float64)
    for _ in range(STEPS if known_A.any() else 0):
        exposure_A = np.full(len(known_A), PRIOR)
        for order in orders:
            exposure_A[order.architectures] += order.exposure(worth_A[order.architectures])
        before_A, worth_A = worth_A, np.where(known_A, drawn_A / exposure_A, 0.0)
        worth_A *= known_A.sum() / worth_A.sum()  # a likelihood does not hang on the scale, and the prior is best here
        if np.allclose(worth_A, before_A, rtol=CLOSE, atol=0):
            break
    return np.asarray(np.log(worth_A, out=np.full(len(known_A), np.nan), where=known_A))


@dataclass(frozen=True, slots=True)
class _Order:
    """A ranker's order, worst first: its architectures, and of the n-th group of ties the first position.

    rest: by position, the share of its group that is left when it is drawn: 1, (k - 1) / k ... of k that tie.
    """

    architectures: NDArray[np.int64]
    first: NDArray[np.int64]
    group: NDArray[np.int64]
    rest: NDArray[np.float64]

    def exposure(self, worth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over the draws in which each takes part of 1 / the worth of all that take part; by position.

        Which of those that tie was drawn first is not known; each takes part in the later draws in part, as in Efron's
        approximation of Cox's partial likelihood (JASA 72, 1977). Who is last, and whoever ties there, is left over:
        no draw decides that.
        """
        tied = np.add.reduceat(worth, self.first)
        below = np.append(np.inf, np.cumsum(tied)[:-1])  # of the last place there is no draw
        share = 1 / (below[self.group] + self.rest * tied[self.group])
        draws = np.add.reduceat(share, self.first)
        above = np.append(np.cumsum(draws[:0:-1])[::-1], 0.0)
        return np.asarray((above + np.add.reduceat(share * self.rest, self.first))[self.group])


def _order(scores_A: NDArray[np.float64]) -> _Order:
    """The order of one ranker, without those that it has no score of."""
    known = np.flatnonzero(~np.isnan(scores_A))
    architectures = known[np.argsort(scores_A[known], kind="stable")]
    starts = np.append(True, np.diff(scores_A[architectures]) > 0)
    first, group = np.flatnonzero(starts), np.cumsum(starts) - 1
    size = np.diff(np.append(first, len(known)))
    rest = 1 - (np.arange(len(known)) - first[group]) / size[group]
    return _Order(architectures, first, group, rest)
