"""Median rank: what the ranker in the middle says (Fagin, Kumar and Sivakumar, SIGMOD 2003)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raynas.aggregators.borda import scaled_ranks, tells_apart


def median_rank(scores_RA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median over the rankers of each architecture's rank: shape (R, A) -> (A,), from 0 (worst) to 1 (best).

    scores_RA: higher is better; NaN where a ranker has no score. Less than half of the rankers, whatever they say, can
    not move an architecture beyond all ranks that the others give it. Of an even number it is the mean of the two in
    the middle. A ranker that tells nothing apart has no say where another has. NaN where nobody has a score.
    """
    ranks_RA = scaled_ranks(scores_RA)
    said_RA = np.where(tells_apart(scores_RA)[:, None], ranks_RA, np.nan)
    sorted_RA = np.sort(np.where(np.isnan(said_RA).all(axis=0), ranks_RA, said_RA), axis=0)  # NaN last
    count_A = np.sum(~np.isnan(sorted_RA), axis=0)
    lower_A, upper_A = (
        np.take_along_axis(sorted_RA, middle_A[None], axis=0)[0] for middle_A in ((count_A - 1) // 2, count_A // 2)
    )
    return np.asarray(np.round((lower_A + upper_A) / 2, 12))  # equal means must not differ by rounding
