"""What the accuracies of a few architectures change: a Gaussian process over all, and what the rankers say of them.

Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006: sections 2.2, 2.7 and 5.4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from raynas.aggregators.borda import gumbel_scores

SCALE, LINEAR, CURVED, ALONE, NOISE = 0.25, 0.3, 0.3, 0.7, 0.3
"""Prior medians of variances, in the unit of merit: of merit's own scale, of the weights of all rankers, of what is not
linear in them, of the weight of one that counts alone, of what no ranker sees; the logarithms' deviation is 1."""

ALIKE = 0.07  # and of what architectures of like choices have in common, whatever rankers say of them

LEVEL = 10.0  # variance of the mean: the accuracies of some do not say how these stand among all
JITTER = 1e-6
UNLIKELY = 1e-3  # odds below which an explanation is left out


class Calibrated:
    """What may be believed of all architectures once the accuracies of a few, NaN for the others, are known.

    z_RA: Gumbel scores, complete. trust_R: the share of each in what may be changed of weight_R and merit_A, which are
    what the rankers' agreement has made of them. Either merit follows all rankers, with weights that depart from those,
    and not only linearly, and what rankers get wrong of one architecture, of its choices, they get wrong of those that
    differ in few of them; or it follows one of them alone: as likely before the accuracies are seen.
    rows: the N calibrated.
    """

    def __init__(
        self,
        z_RA: NDArray[np.float64],
        trust_R: NDArray[np.float64],
        weight_R: NDArray[np.float64],
        merit_A: NDArray[np.float64],
        deviation_A: NDArray[np.float64],
        calibration_A: NDArray[np.float64],
        choices_AB: NDArray[np.int64] | None = None,
    ) -> None:
        rows = np.flatnonzero(~np.isnan(calibration_A + merit_A))
        target_N = np.nan_to_num(gumbel_scores(calibration_A[None, rows])[0])
        target_N *= np.sqrt(np.var(merit_A[rows]) + np.mean(deviation_A[rows] ** 2))  # as far apart as they should be
        features_FA = np.vstack([z_RA, merit_A])  # merit comes last
        *ranker_RF, merit_F = np.eye(len(features_FA))
        share_R = trust_R / trust_R.sum()
        scales = [(SCALE, merit_F / max(float(np.nanvar(merit_A)), JITTER)), (LINEAR, np.append(share_R, 0))]
        surfaces = [_Surface(CURVED, (z_RA * np.sqrt(share_R)[:, None]).T, partial(cdist, metric="sqeuclidean"))]
        if choices_AB is not None:
            surfaces.append(_Surface(ALIKE, choices_AB, _differing))
        together = _Explanation(features_FA, rows, target_N, merit_F, scales, surfaces)
        alone = [_Explanation(features_FA, rows, target_N, 0 * one_F, [(ALONE, one_F)]) for one_F in ranker_RF]
        evidence = np.array([one.evidence for one in (together, *alone)])
        odds = np.exp(evidence - evidence.max()) * np.append(1, np.full(len(alone), 1 / len(alone)))
        likely = [(odd, one) for odd, one in zip(odds, (together, *alone), strict=True) if odd > UNLIKELY * odds.max()]
        self.rows = rows
        self._likely = [(odd / sum(odd for odd, _ in likely), one) for odd, one in likely]
        self._own_RF = np.column_stack([np.eye(len(alone)), weight_R])  # a ranker's weight, and its share in merit's

    def weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of the rankers, (R,), and their standard errors."""
        return _mixture([(odd, *one.weights(self._own_RF)) for odd, one in self._likely])

    def merits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of all architectures, (A,), and their standard deviations; the calibrated differ as their accuracies do."""
        return _mixture([(odd, *one.merits()) for odd, one in self._likely])

    def draws(self, which_M: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Merits that some of those that are not calibrated may have together: shape (count, M)."""
        normal_DM = rng.standard_normal((count, len(which_M)))
        explained_D = rng.choice(len(self._likely), count, p=[odd for odd, _ in self._likely])
        drawn_DM = np.empty_like(normal_DM)
        for number, (_, one) in enumerate(self._likely):
            mean_M, covariance_MM = one.joint(which_M)
            factor_MM = cholesky(covariance_MM + JITTER * np.eye(len(which_M)), lower=True)
            drawn_DM[explained_D == number] = mean_M + normal_DM[explained_D == number] @ factor_MM.T
        return drawn_DM


class _Surface(NamedTuple):
    """A squared exponential of these squared distances between places (A, P); the median of its variance."""

    median: float
    places_AP: NDArray[Any]
    squared: Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]

    def between(self, some: NDArray[np.int64] | slice, others: NDArray[np.int64]) -> NDArray[np.float64]:
        """Its correlations."""
        return np.asarray(np.exp(-self.squared(self.places_AP[some], self.places_AP[others]) / 2))


def _differing(some_AB: NDArray[np.int64], others_NB: NDArray[np.int64]) -> NDArray[np.float64]:
    """In how many choices two architectures differ."""
    return np.asarray(some_AB.shape[1] * cdist(some_AB, others_NB, "hamming"))


class _Explanation:
    """Regression on features (F, A) whose weights have prior mean mean_F, and on curved surfaces.

    scales: for each part of the weights' variance its scale's median and the variances. The logarithms of all scales
    are those of largest posterior density; evidence is its logarithm.
    """

    def __init__(
        self,
        features_FA: NDArray[np.float64],
        rows: NDArray[np.int64],
        target_N: NDArray[np.float64],
        mean_F: NDArray[np.float64],
        scales: Sequence[tuple[float, NDArray[np.float64]]],
        surfaces: Sequence[_Surface] = (),
    ) -> None:
        self.features_FA, self.rows, self.mean_F, self.surfaces = features_FA, rows, mean_F, surfaces
        known_FN = features_FA[:, rows]
        own = [(known_FN.T * variance_F) @ known_FN for _, variance_F in scales]
        own_KNN = np.array([*own, *(surface.between(rows, rows) for surface in surfaces), np.eye(len(rows))])
        centre_K = np.log([*(median for median, _ in scales), *(surface.median for surface in surfaces), NOISE])
        off_N = target_N - mean_F @ known_FN

        def loss(scale_K: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            inverse_NN, half_log_determinant = _inverse(np.tensordot(np.exp(scale_K), own_KNN, 1))
            solved_N = inverse_NN @ off_N
            slope_NN = inverse_NN - np.outer(solved_N, solved_N)
            slope_K = np.exp(scale_K) / 2 * np.tensordot(own_KNN, slope_NN, 2) + scale_K - centre_K
            prior = np.sum((scale_K - centre_K) ** 2) / 2
            return float(off_N @ solved_N / 2 + half_log_determinant + prior), slope_K

        scale_K = minimize(loss, centre_K, jac=True, method="L-BFGS-B").x.round(3)  # not to hang on the last bits
        self.evidence = -loss(scale_K)[0]
        linear_K, self.curved_K, (self.noise,) = np.split(np.exp(scale_K), [len(scales), len(scale_K) - 1])
        self.inverse_NN = _inverse(np.tensordot(np.exp(scale_K), own_KNN, 1))[0]
        self.solved_N = self.inverse_NN @ off_N
        variances = [scale * variance_F for scale, (_, variance_F) in zip(linear_K, scales, strict=True)]
        self.variance_F = np.sum(variances, axis=0)
        self.gain_FN = self.variance_F[:, None] * known_FN

    def weights(self, own_RF: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of the rankers' weights, each of which is made of the features' by a row of own_RF."""
        covariance_FF = np.diag(self.variance_F) - self.gain_FN @ self.inverse_NN @ self.gain_FN.T
        return own_RF @ (self.mean_F + self.gain_FN @ self.solved_N), np.sum(own_RF @ covariance_FF * own_RF, axis=1)

    def merits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of each architecture's merit."""
        cross_AN = self._cross(slice(None))
        before_A = self.variance_F @ self.features_FA**2 + self.curved_K.sum()
        cross_AN[self.rows, np.arange(len(self.rows))] += self.noise  # what no ranker sees of these was measured
        variance_A = before_A + self.noise - np.sum(cross_AN @ self.inverse_NN * cross_AN, axis=1)
        return self.mean_F @ self.features_FA + cross_AN @ self.solved_N, variance_A

    def joint(self, which_M: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and covariance of the merits of some that are not calibrated."""
        features_FM, cross_MN = self.features_FA[:, which_M], self._cross(which_M)
        before_MM = (features_FM.T * self.variance_F) @ features_FM + self.noise * np.eye(len(which_M))
        for scale, surface in zip(self.curved_K, self.surfaces, strict=True):
            before_MM += scale * surface.between(which_M, which_M)
        return self.mean_F @ features_FM + cross_MN @ self.solved_N, before_MM - cross_MN @ self.inverse_NN @ cross_MN.T

    def _cross(self, which: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        """Covariance of some with the calibrated, of what rankers see of them."""
        cross_MN: NDArray[np.float64] = self.features_FA[:, which].T @ self.gain_FN
        for scale, surface in zip(self.curved_K, self.surfaces, strict=True):
            cross_MN += scale * surface.between(which, self.rows)
        return cross_MN


def _inverse(covariance_NN: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Inverse of a covariance that an unknown level is added to, and half the logarithm of its determinant."""
    factor = cho_factor(covariance_NN + LEVEL + JITTER * np.eye(len(covariance_NN)), lower=True)
    return cho_solve(factor, np.eye(len(covariance_NN))), float(np.log(np.diag(factor[0])).sum())


def _mixture(
    parts: Sequence[tuple[float, NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of a mixture of distributions: odds, mean and variance of each."""
    odds, means, variances = zip(*parts, strict=True)
    mean = np.average(means, axis=0, weights=odds)
    square = np.average(np.square(means) + variances, axis=0, weights=odds)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))
