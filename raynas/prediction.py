"""What predictors say of architectures: of each what can be learnt from the scores of the others."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raynas import seeds
from raynas.aggregators.borda import scaled_ranks
from raynas.architecture import Architecture, encode
from raynas.features import features
from raynas.space import SearchSpace
from raynas.spacing import evenly

FOLDS = 5
"""Groups of architectures, by their encodings alone; each is predicted from the others."""

MOST = 5_000
"""Scores of a supernet that predictors are fitted to: of more, so many evenly through the encodings."""

FEWEST = 2
"""Scores below which nothing can be learnt."""


class Predictor(Protocol):
    """What a file of raynas/predictors holds."""

    def __call__(
        self, known_NF: NDArray[np.float64], ranks_N: NDArray[np.float64], asked_AF: NDArray[np.float64], *, seed: int
    ) -> NDArray[np.float64]:
        """The value of each asked row, shape (A,), higher is better."""


def predictions(
    predictors: Mapping[str, Predictor],
    space: SearchSpace,
    measured: Sequence[Mapping[Architecture, float]],
    architectures: Sequence[Architecture],
    *,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """What each predictor says of each architecture, shape (A,): the mean over supernets of what it says of theirs.

    measured: a supernet's scores by canonical architecture, higher is better; NaN is none. A predictor is fitted to
    their ranks, which are made anew without each fold: a network's own score has no say, not even through the ranks of
    others. The order of all that is given has none either. NaN where no supernet has enough scores.
    """
    asked = [space.canonicalise(one) for one in architectures]
    known = [_evenly({one: score for one, score in of_one.items() if not np.isnan(score)}) for of_one in measured]
    distinct = sorted({*asked, *chain(*known)})
    rows_DF = features(space, distinct)
    rows_DF = rows_DF[:, np.ptp(rows_DF, axis=0) > 0]  # the others tell nothing apart
    row = {one: index for index, one in enumerate(distinct)}
    fold_D = np.array([zlib.crc32(encode(one).encode()) % FOLDS for one in distinct])
    wanted = sorted({row[one] for one in asked})
    told = {}
    for name, predictor in predictors.items():
        values_SD = np.full((len(known), len(distinct)), np.nan)
        for values_D, scores in zip(values_SD, known, strict=True):
            rows_N, scores_N = np.array([row[one] for one in scores], dtype=int), np.array([*scores.values()])
            for fold in range(FOLDS):
                others_N = fold_D[rows_N] != fold
                own = [one for one in wanted if fold_D[one] == fold]
                if own and others_N.sum() >= FEWEST:
                    ranks_N = scaled_ranks(scores_N[None, others_N])[0]
                    seeded = seeds.integer(seed, "predictor", name, fold) % 2**32
                    values_D[own] = predictor(rows_DF[rows_N[others_N]], ranks_N, rows_DF[own], seed=seeded)
        told[name] = _mean(values_SD)[[row[one] for one in asked]]
    return told


def _evenly(scores: Mapping[Architecture, float]) -> dict[Architecture, float]:
    """In the order of the encodings, at most `MOST` of them."""
    ordered = sorted(scores)
    return {ordered[place]: scores[ordered[place]] for place in evenly(len(ordered), MOST).tolist()}


def _mean(values_SD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the supernets that have a value, rounded: equal ones must not differ by their last bits."""
    count_D = np.sum(~np.isnan(values_SD), axis=0)
    mean_D = np.nansum(values_SD, axis=0) / np.where(count_D, count_D, np.nan)
    return np.asarray(np.round(mean_D, 9))
