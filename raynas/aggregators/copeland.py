"""Copeland's method: majorities won less majorities lost (Copeland, 1951; Dwork et al., WWW 2001, section 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raynas.aggregators.borda import borda, by_borda, scaled_ranks

OPPONENTS = 1_024
"""Up to so many architectures all meet all; of more, each meets so many, at equal distances down the Borda order."""

CHUNK = 2_048  # architectures whose matches are counted at once


def copeland(scores_RA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the others that a majority of rankers puts below, a tie being half: shape (R, A) -> (A,); 1 beats all.

    scores_RA: higher is better; NaN where a ranker has no score: it then has no vote on that architecture's pairs. One
    who beats all others by majority comes first. Of more than OPPONENTS architectures, the consensus is the rank, from
    0 to 1, by the matches against OPPONENTS of them, and by Borda count where those are equal; of the best, which
    differ by a few matches, that is an approximation. NaN where nobody has a score.
    """
    scores_RA = np.asarray(scores_RA, dtype=np.float64)
    borda_A = borda(scores_RA)
    order = by_borda(borda_A, scores_RA)
    opponents = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), OPPONENTS)).round().astype(np.int64))]
    consensus_A = np.full(len(borda_A), np.nan)
    if len(order) == 1:
        consensus_A[order] = 0.5
    elif len(order):
        lead_A = np.array(_lead(order, opponents, scores_RA), dtype=np.float64)
        if len(order) > OPPONENTS:
            consensus_A[order] = scaled_ranks((lead_A + borda_A[order] / 2)[None])[0]
        else:
            consensus_A[order] = 0.5 + lead_A / (2 * (len(order) - 1))
    return consensus_A


def _lead(
    architectures: NDArray[np.int64], opponents: NDArray[np.int64], scores_RA: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Matches that each architecture wins against the opponents, less those that it loses."""
    ranks_RA = scaled_ranks(scores_RA).astype(np.float32)  # half the bytes; tells 4 million ranks apart
    leads = []
    for some in np.array_split(architectures, -(-len(architectures) // CHUNK)):
        margin_CO = np.zeros((len(some), len(opponents)), dtype=np.int16)
        for ranks_A in ranks_RA:
            mine_C1, theirs_O = ranks_A[some, None], ranks_A[opponents]
            margin_CO += mine_C1 > theirs_O  # NaN: neither
            margin_CO -= mine_C1 < theirs_O
        leads.append(np.sign(margin_CO).sum(axis=1, dtype=np.int64))
    return np.concatenate(leads)
