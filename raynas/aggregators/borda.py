"""Borda count: the mean rank over all rankers (de Borda, 1781; Dwork et al., WWW 2001, section 2)."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray


def borda(scores_RA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean rank of each architecture over the rankers that scored it: shape (R, A) -> (A,); higher is better.

    scores_RA: higher is better; NaN where a ranker has no score. Each ranker's ranks run from 0 (its worst) to 1 (its
    best), so that rankers of different coverage weigh the same; ties share their mean rank. NaN where nobody has a
    score. Scores of different scale need no treatment: only their order within a ranker counts.
    """
    # sorted before they are summed, and rounded: equal means must not differ by the rounding of their sums
    ranks_RA = np.sort(scaled_ranks(scores_RA), axis=0)  # NaN last
    scored_A = np.sum(~np.isnan(ranks_RA), axis=0)
    mean_A = np.divide(np.nansum(ranks_RA, axis=0), scored_A, out=np.full(len(scored_A), np.nan), where=scored_A > 0)
    return np.asarray(np.round(mean_A, 12))


def scaled_ranks(scores_RA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each ranker's ranks from 0 (worst) to 1 (best), ties at their mean, NaN where it has no score: (R, A) -> (R, A).

    A ranker with one score, or equal ones, puts them at 0.5.
    """
    scores_RA = np.asarray(scores_RA, dtype=np.float64)
    ranks_RA = np.full(scores_RA.shape, np.nan)
    for scores_A, ranks_A in zip(scores_RA, ranks_RA, strict=True):
        known = ~np.isnan(scores_A)
        count = int(known.sum())
        ranks_A[known] = (scipy.stats.rankdata(scores_A[known]) - 1) / (count - 1) if count > 1 else 0.5
    return ranks_RA


def tells_apart(scores_RA: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rankers give any two architectures different scores: shape (R, A) -> (R,)."""
    scores_RA = np.asarray(scores_RA, dtype=np.float64)
    return np.array([len(np.unique(scores_A[~np.isnan(scores_A)])) > 1 for scores_A in scores_RA], dtype=bool)


def gumbel_scores(scores_RA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of each ranker's ranks, with mean 0 and variance 1; all NaN for one that tells nothing apart.

    They are of Gumbel's distribution with its long tail on the worse side: in a search space the bad networks lie
    further apart than the good ones, and rankers agree about them better.
    """
    ranks_RA = np.where(tells_apart(scores_RA)[:, None], scaled_ranks(scores_RA), np.nan)
    count_R1 = np.maximum(np.sum(~np.isnan(ranks_RA), axis=1, keepdims=True), 1)
    z_RA = scipy.stats.gumbel_l.ppf((ranks_RA * (count_R1 - 1) + 0.5) / count_R1)
    z_RA -= np.nansum(z_RA, axis=1, keepdims=True) / count_R1  # not 0 where there are ties
    return np.asarray(z_RA / np.sqrt(np.maximum(np.nansum(z_RA**2, axis=1, keepdims=True) / count_R1, 1e-12)))


def by_borda(borda_A: NDArray[np.float64], scores_RA: NDArray[np.float64]) -> NDArray[np.int64]:
    """The architectures that somebody scored, in Borda's order, best first; of equal ones the better worst rank.

    Then the better second worst rank, and so on: the order hangs on ranks and not on where an architecture stands.
    """
    known = np.flatnonzero(~np.isnan(borda_A))
    ranks_RA = np.sort(scaled_ranks(np.asarray(scores_RA)[:, known]), axis=0)[::-1]
    return np.asarray(known[np.lexsort((*ranks_RA, borda_A[known]))[::-1]])
