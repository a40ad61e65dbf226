"""Reliability-weighted mean: a ranker counts by its agreement with the others, and with calibration if there is any."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raynas.aggregators._calibrated import Calibrated
from raynas.aggregators.borda import gumbel_scores, scaled_ranks, tells_apart

ROUNDS = 60
"""Of loadings and votes, each of which follows from the other; every round halves what is left to settle."""

FEW = 10  # architectures scored by both of two rankers, whose correlation counts half of one over many
MOST = 0.95  # loading that agreement alone can give: a ranker that is merit itself would be followed alone
LEAST = 0.01  # loading of all rankers if none agrees with another: they count the same, for next to nothing


@dataclass(frozen=True, slots=True)
class Trust:
    """What rankers are worth, and what they say together of each architecture; each with its standard error.

    agreement_R: correlation with the consensus of the others, of Gumbel scores; negative for an inverted ranker, 0 for
    one that tells nothing apart. Those who trained each architecture are compared with all others together, the others
    among themselves. weight_R: what one standard deviation of a ranker's scores adds to merit. Their errors are those
    of leaving out other rankers (jackknife; NaN for fewer than three, and for who trained), unless calibration has its
    say on the weights. merit_A: in standard deviations, higher is better; its deviation is that of the posterior
    distribution, which without calibration knows of no error that all rankers share. NaN where nobody has a score.
    """

    agreement_R: NDArray[np.float64]
    agreement_error_R: NDArray[np.float64]
    weight_R: NDArray[np.float64]
    weight_error_R: NDArray[np.float64]
    merit_A: NDArray[np.float64]
    deviation_A: NDArray[np.float64]


def reliability(
    scores_RA: NDArray[np.float64],
    *,
    calibration_A: NDArray[np.float64] | None = None,
    choices_AB: NDArray[np.int64] | None = None,
    trained_R: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Rank from 0 (worst) to 1 (best) of each architecture's merit: shape (R, A) -> (A,).

    scores_RA: higher is better; NaN where a ranker has no score. calibration_A: accuracy of training from scratch, NaN
    where it is not known. choices_AB: the architectures, by which calibration tells what rankers get wrong of those
    like it. trained_R: who has trained each architecture by itself, if only for a while. NaN where nobody has a score.
    """
    agreed = _agreed(scores_RA, trained_R)
    calibrated = agreed.calibrated(calibration_A, choices_AB)
    merit_A = agreed.trust.merit_A if calibrated is None else calibrated.merits()[0]
    return np.asarray(scaled_ranks(np.round(merit_A, 9)[None])[0])  # equal merits must not differ by rounding


def measure(
    scores_RA: NDArray[np.float64],
    *,
    calibration_A: NDArray[np.float64] | None = None,
    choices_AB: NDArray[np.int64] | None = None,
    trained_R: NDArray[np.bool_] | None = None,
) -> Trust:
    """Learn what the rankers are worth, from each other and from the accuracies of a few architectures.

    The Gumbel score of ranker r is taken to be loading_r merit + error: one common factor. Loadings are those that
    explain the correlations between rankers (Harman, Modern Factor Analysis, 1976, chapter 9), but never negative: who
    contradicts the others is not believed to be right the other way round. For merit, errors have one variance, as in
    probabilistic principal components (Tipping and Bishop, JRSS B 61, 1999): with one of their own, the few rankers
    that agree most would take all. Rankers that agree beyond what their loadings explain, such as seeds of one recipe,
    share a vote, and are no evidence for each other. What most rankers get wrong together, only calibration can tell.

    Who has trained each architecture by itself errs in other ways than those who look at weights that none has learnt
    alone, and agrees with them least where it counts, among the leaders that they have chosen. What either side is
    worth does not follow from one correlation, so where there are both they weigh the same.
    """
    agreed = _agreed(scores_RA, trained_R)
    error_R = agreed.errors()
    if (calibrated := agreed.calibrated(calibration_A, choices_AB)) is not None:
        return Trust(agreed.trust.agreement_R, error_R, *calibrated.weights(), *calibrated.merits())
    return replace(agreed.trust, agreement_error_R=error_R, weight_error_R=agreed.slope_R * error_R)


def posterior(
    scores_RA: NDArray[np.float64],
    calibration_A: NDArray[np.float64],
    choices_AB: NDArray[np.int64],
    trained_R: NDArray[np.bool_] | None = None,
) -> Calibrated:
    """What `measure` takes its merits from; raises ValueError where fewer than two accuracies are known."""
    if (calibrated := _agreed(scores_RA, trained_R).calibrated(calibration_A, choices_AB)) is None:
        raise ValueError("expected two accuracies or more of architectures that a ranker has scored")
    return calibrated


@dataclass(frozen=True, slots=True)
class _Agreed:
    """What rankers make of each other, without standard errors of agreement and weights, which are NaN.

    slope_R: what a ranker's loading is multiplied by to be its weight. filled_RA: Gumbel scores, what is missing being
    what the others expect of it. compared_R: whose correlations and counts there are.
    """

    trust: Trust
    slope_R: NDArray[np.float64]
    filled_RA: NDArray[np.float64]
    compared_R: NDArray[np.bool_]
    correlation_RR: NDArray[np.float64]
    count_RR: NDArray[np.float64]

    def errors(self) -> NDArray[np.float64]:
        """Standard errors of agreement, NaN of who is not compared."""
        error_R = np.full(len(self.compared_R), np.nan)
        error_R[self.compared_R] = _jackknife(self.correlation_RR, self.count_RR)
        return error_R

    def calibrated(
        self, calibration_A: NDArray[np.float64] | None, choices_AB: NDArray[np.int64] | None
    ) -> Calibrated | None:
        """What accuracies make of it; None where fewer than two are known."""
        trust = self.trust
        if calibration_A is None or np.sum(~np.isnan(calibration_A + trust.merit_A)) < 2:
            return None
        trust_R = np.maximum(np.abs(trust.agreement_R), LEAST)
        return Calibrated(
            self.filled_RA, trust_R, trust.weight_R, trust.merit_A, trust.deviation_A, calibration_A, choices_AB
        )


def _agreed(scores_RA: NDArray[np.float64], trained_R: NDArray[np.bool_] | None) -> _Agreed:
    scores_RA = np.asarray(scores_RA, dtype=np.float64)
    tells_R = tells_apart(scores_RA)
    if trained_R is None or not (tells_R & trained_R).any() or not (tells_R & ~trained_R).any():
        return _one_factor(scores_RA)
    return _two_sides(scores_RA, trained_R)


def _two_sides(scores_RA: NDArray[np.float64], trained_R: NDArray[np.bool_]) -> _Agreed:
    """What those who trained each architecture, and all others, make of it: two rankers (S) of one loading."""
    sides = [(side_R, _one_factor(scores_RA[side_R])) for side_R in (~trained_R, trained_R)]
    merit_SA = np.array([side.trust.merit_A for _, side in sides])
    scale_S = np.sqrt(np.maximum(np.nanvar(merit_SA, axis=1), 1e-9))
    z_SA = (merit_SA - np.nanmean(merit_SA, axis=1, keepdims=True)) / scale_S[:, None]
    (_, correlation), (_, count) = (both_SS[0] for both_SS in _correlations(z_SA))
    shared = np.clip(correlation * count / (count + FEW), LEAST, MOST)  # the square of the loading
    expected_SA = np.where(np.isnan(z_SA), shared * z_SA[::-1], z_SA)
    slope = np.sqrt(shared) / (1 + shared)
    merit_A = slope * expected_SA.sum(axis=0)
    seen_A = (~np.isnan(z_SA)).sum(axis=0)
    deviation_A = np.sqrt(np.choose(seen_A, [np.nan, 1 - shared, (1 - shared) / (1 + shared)]))
    others = sides[0][1]
    agreement_R, weight_R, slope_R = np.full((3, len(scores_RA)), correlation)
    if np.sum(tells_apart(scores_RA[~trained_R])) > 1:
        agreement_R[~trained_R] = others.trust.agreement_R
    filled_RA = np.empty_like(scores_RA)
    for (side_R, side), scale, expected_A in zip(sides, scale_S, expected_SA, strict=True):
        weight_R[side_R], slope_R[side_R] = (slope / scale * one for one in (side.trust.weight_R, side.slope_R))
        unseen_RA = np.abs(agreement_R[side_R, None]) * expected_A
        filled_RA[side_R] = np.where(np.isnan(side.filled_RA), unseen_RA, side.filled_RA)
    unknown_R = np.full(len(scores_RA), np.nan)
    trust = Trust(agreement_R, unknown_R, weight_R, unknown_R, merit_A, deviation_A)
    return _Agreed(trust, slope_R, filled_RA, ~trained_R, others.correlation_RR, others.count_RR)


def _one_factor(scores_RA: NDArray[np.float64]) -> _Agreed:
    z_RA = gumbel_scores(scores_RA)
    known_RA = ~np.isnan(z_RA)
    correlation_RR, count_RR = _correlations(z_RA)
    agreement_R, loading_R, excess_RR = _agreement(correlation_RR, count_RR)
    votes_RA = known_RA / np.maximum(excess_RR @ known_RA, 1)  # who has no score leaves its vote to its like
    noise = float(loading_R @ (1 - loading_R**2) / loading_R.sum())
    precision_A = np.where(np.isnan(scores_RA).all(axis=0), np.nan, loading_R**2 @ votes_RA + noise)
    merit_A = loading_R @ (votes_RA * np.nan_to_num(z_RA)) / precision_A
    vote_R = 1 / excess_RR.sum(axis=1)
    slope_R = vote_R / (loading_R**2 @ vote_R + noise)
    filled_RA = np.where(known_RA, z_RA, loading_R[:, None] * merit_A)
    unknown_R = np.full(len(slope_R), np.nan)
    deviation_A = np.sqrt(noise / precision_A)
    trust = Trust(agreement_R, unknown_R, slope_R * loading_R, unknown_R, merit_A, deviation_A)
    return _Agreed(trust, slope_R, filled_RA, np.full(len(scores_RA), True), correlation_RR, count_RR)


def _correlations(z_RA: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation of every two rankers on what both have scored, and how many that are: shapes (R, R)."""
    known_RA, filled_RA = (~np.isnan(z_RA)).astype(np.float64), np.nan_to_num(z_RA)
    count_RR = known_RA @ known_RA.T
    sum_RR, squares_RR = filled_RA @ known_RA.T, filled_RA**2 @ known_RA.T  # of the first where the second has a score
    mean_RR = sum_RR / np.maximum(count_RR, 1)
    covariance_RR = filled_RA @ filled_RA.T - count_RR * mean_RR * mean_RR.T
    variance_RR = np.maximum(squares_RR - count_RR * mean_RR**2, 1e-9)
    correlation_RR = covariance_RR / np.sqrt(variance_RR * variance_RR.T)
    np.fill_diagonal(correlation_RR, 1)
    return correlation_RR, count_RR


def _agreement(
    correlation_RR: NDArray[np.float64], count_RR: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Agreement with the others, loadings, and the share of every two rankers' errors that is common to both.

    Begins at the first principal component, with votes shared by near duplicates, and on the side of most rankers;
    without a majority all weigh nothing.
    """
    evidence_RR = count_RR / (count_RR + FEW)
    chance_R = 1 / np.maximum(np.diag(count_RR), 1)  # square of a correlation
    excess_RR = np.clip(correlation_RR, 0, 1) ** 4
    vote_R = 1 / excess_RR.sum(axis=1)
    values, vectors = np.linalg.eigh(correlation_RR * np.sqrt(np.outer(vote_R, vote_R)))
    first_R = vectors[:, -1] * np.sqrt(values[-1] / vote_R)
    loading_R = np.clip(first_R * np.sign(np.round(first_R @ vote_R, 9)), 0, MOST)
    for _ in range(ROUNDS):
        others_RR = evidence_RR * (1 - excess_RR) * vote_R * loading_R
        shared_R = np.sum(others_RR * correlation_RR, axis=1)
        found_R = np.clip(shared_R / np.maximum(others_RR @ loading_R, 1e-9), 0, MOST)
        found_R = np.sqrt(np.maximum(found_R**2 - chance_R, 0))
        loading_R = (loading_R + found_R) / 2
        error_R = np.sqrt(1 - loading_R**2)
        excess_RR = np.clip((correlation_RR - np.outer(loading_R, loading_R)) / np.outer(error_R, error_R), 0, 1)
        np.fill_diagonal(excess_RR, 1)
        vote_R = 1 / excess_RR.sum(axis=1)
    deviation_R = np.sqrt(np.maximum(np.sum((others_RR @ correlation_RR) * others_RR, axis=1), 1e-12))
    return shared_R / deviation_R, loading_R if loading_R.max() > LEAST else np.full(len(loading_R), LEAST), excess_RR


def _jackknife(correlation_RR: NDArray[np.float64], count_RR: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard error of each ranker's agreement over which others there are (Efron and Tibshirani, 1993, ch. 11)."""
    rankers = len(count_RR)
    if rankers < 3:
        return np.full(rankers, np.nan)
    left_RR = np.full((rankers, rankers), np.nan)  # agreement of the second without the first
    for left, others in enumerate(~np.eye(rankers, dtype=bool)):
        kept = np.ix_(others, others)
        left_RR[left, others] = _agreement(correlation_RR[kept], count_RR[kept])[0]
    return np.asarray(np.sqrt(rankers - 2) * np.nanstd(left_RR, axis=0))
