"""How well a predicted ranking agrees with the truth, and how sure that is.

`predicted` and `truth` are scores of the same architectures, higher is better, shape (A,); an architecture that lacks
one of them (NaN) is left out. A measure that is not defined (fewer than two architectures, all scores equal) is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import scipy  # loads its parts when they are used, which members of a population, who import this, never do
from numpy.typing import ArrayLike, NDArray

from raynas import seeds

SMALL = 128  # architectures up to which counting all pairs beats sorting


def kendall_tau_b(predicted_A: ArrayLike, truth_A: ArrayLike) -> float:
    """(P - Q) / sqrt((P + Q + T_predicted)(P + Q + T_truth)): T counts the pairs tied in the other ranking alone."""
    predicted, truth = _known(predicted_A, truth_A)
    if len(predicted) > SMALL:
        return float(scipy.stats.kendalltau(predicted, truth).statistic)
    return _cosine(np.sign(predicted[:, None] - predicted), np.sign(truth[:, None] - truth))


def spearman_rho(predicted_A: ArrayLike, truth_A: ArrayLike) -> float:
    """The Pearson correlation of the ranks; ties share their mean rank."""
    predicted, truth = _known(predicted_A, truth_A)
    return _cosine(_centred_ranks(predicted), _centred_ranks(truth))


def sparse_tau(predicted_A: ArrayLike, truth_A: ArrayLike, *, resolution: float = 0.1) -> float:
    """Tau-b of both rounded to `resolution` (accuracies in percent: 0.1), which ignores differences below noise."""
    predicted, truth = _known(predicted_A, truth_A)
    return kendall_tau_b(np.round(predicted / resolution), np.round(truth / resolution))


def precision_at_top(predicted_A: ArrayLike, truth_A: ArrayLike, fraction: float) -> float:
    """P@topK: the share of the predicted top `fraction` that is truly among it.

    Ties in the truth at its limit all count as top; ties in the prediction at its limit share the places left, so that
    a constant prediction scores what chance would.
    """
    predicted, truth = _known(predicted_A, truth_A)
    if not len(predicted):
        return math.nan
    count = _count(fraction, len(predicted))
    top = truth >= np.sort(truth)[-count]
    limit = np.sort(predicted)[-count]
    above, tied = predicted > limit, predicted == limit
    places_left = count - above.sum()
    return float((top[above].sum() + places_left * top[tied].mean()) / count)


def best_rank_at(predicted_A: ArrayLike, truth_A: ArrayLike, fraction: float) -> float:
    """BR@K: the best true rank inside the predicted top `fraction`, over the number of architectures; 1 / A is perfect.

    Ties in the prediction are broken against it: what it cannot tell apart it has not found.
    """
    predicted, _ = _known(predicted_A, truth_A)
    count = _count(fraction, len(predicted))
    return best_rank_at_count(predicted_A, truth_A, count) / max(1, len(predicted))


def best_rank_at_count(predicted_A: ArrayLike, truth_A: ArrayLike, count: int) -> float:
    """N@n, or top-n rank: the best true rank among the predicted top `count`; 1 is perfect.

    Ties in the prediction are broken against it.
    """
    predicted, truth = _known(predicted_A, truth_A)
    if not len(predicted):
        return math.nan
    return float(scipy.stats.rankdata(-truth, method="min")[_predicted_top(predicted, truth, count)].min())


def regret_at_count(predicted_A: ArrayLike, truth_A: ArrayLike, count: int) -> float:
    """Regret@k: what the best of the predicted top `count` lacks to the best of all, in the truth's unit.

    Ties in the prediction are broken against it.
    """
    predicted, truth = _known(predicted_A, truth_A)
    if not len(predicted):
        return math.nan
    return float(truth.max() - truth[_predicted_top(predicted, truth, min(count, len(truth)))].max())


def s_tau(scores_RA: ArrayLike) -> float:
    """The mean tau-b over all pairs of rankings, shape (R, A): how stable they are over seeds, epochs or rankers."""
    taus = [kendall_tau_b(one, other) for one, other in combinations(np.asarray(scores_RA, dtype=np.float64), 2)]
    return float(np.mean(taus)) if taus else math.nan


def bootstrap_interval(
    statistic: Callable[..., float], *columns: ArrayLike, seed: int, resamples: int = 2_000, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of `statistic(*columns)` when architectures are drawn anew with replacement.

    All columns, shape (A,) each, are drawn together, so a statistic of three is a paired comparison. Resamples for
    which the statistic is not defined (of few architectures some hold the same one throughout) are left out; if that is
    half of them or more, the interval is NaN.
    """
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    count = len(arrays[0])
    if not count:
        return math.nan, math.nan
    draws = seeds.generator(seed, "bootstrap").integers(count, size=(resamples, count))
    values = np.array([statistic(*(array[draw] for array in arrays)) for draw in draws])
    defined = values[~np.isnan(values)]
    if 2 * len(defined) <= resamples:
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _known(*columns: ArrayLike) -> list[NDArray[np.float64]]:
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    known = ~np.isnan(arrays).any(axis=0)
    return [array[known] for array in arrays]


def _centred_ranks(values_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean ranks less their mean."""
    if len(values_A) > SMALL:
        return np.asarray(scipy.stats.rankdata(values_A) - (len(values_A) + 1) / 2)
    return np.asarray(np.sign(values_A[:, None] - values_A).sum(axis=1) / 2)  # those it beats less those that beat it


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The inner product over both lengths; NaN if one is zero."""
    squares = float(np.vdot(one, one)) * float(np.vdot(other, other))
    return max(-1.0, min(1.0, float(np.vdot(one, other)) / math.sqrt(squares))) if squares else math.nan


def _count(fraction: float, architectures: int) -> int:
    """How many architectures a fraction is, at least one; the last binary digit of 0.07 * 100 does not add another."""
    return max(1, int(fraction * architectures + 1e-9))


def _predicted_top(predicted: NDArray[np.float64], truth: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    return np.lexsort((truth, -predicted))[:count]
