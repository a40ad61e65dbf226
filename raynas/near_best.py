"""How likely it is that the architecture a run chooses is as good as the best of all its candidates, or nearly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raynas import seeds
from raynas.aggregators.reliability import posterior

NEAR = 0.002
"""Of accuracy: 0.2 points."""

ENOUGH = 20
"""Architectures trained from scratch, of fewer nothing is told: with 13 too much would be (see the records)."""

POWER = 0.6
"""Of the share of draws in which no candidate is better; 1 if all that is not explained were independent."""

MOST_LIKELY = 1_000  # candidates that are drawn, the first by merit
DRAWS = 2_000
TOP_PART, TOP_LEAST = 3, 4  # accuracies that say what merit is worth among the best: a third, but four at least
STEP = 0.05  # of what is told in words: draws and tables tell no more


def probability_near_best(
    scores_RA: NDArray[np.float64],
    accuracy_A: NDArray[np.float64],
    choices_AB: NDArray[np.int64],
    chosen: int,
    *,
    trained_R: NDArray[np.bool_] | None = None,
    candidate_A: NDArray[np.bool_],
    seed: int,
) -> float | None:
    """The probability that no candidate would be more than `NEAR` better than the chosen one, in such a training.

    scores_RA: of each ranker, higher is better, NaN where it has none. accuracy_A: of training from scratch, from 0
    to 1; NaN where it is not known, of the chosen it is. trained_R: which rankers are short trainings. candidate_A:
    what else could be trained; who has no score is left out. 0 where another one is known to be better, and only
    there; None where fewer than `ENOUGH` accuracies of scored architectures are known, or all are equal. The merits
    that rankers, choices and accuracies leave possible are drawn for all candidates together; the share of draws in
    which none is better is raised to `POWER`, as candidates have more in common than the draws know. Of more than
    `MOST_LIKELY` candidates it is an upper limit. How often it is right, of 300:
    jobs/benchmarks/records/aggregation.md.
    """
    scored_A = np.asarray(~np.isnan(scores_RA).all(axis=0))
    known_A = scored_A & ~np.isnan(accuracy_A)
    others = np.flatnonzero(candidate_A & scored_A & ~known_A)
    if np.nanmax(accuracy_A) > accuracy_A[chosen] + NEAR:
        return 0.0
    if not len(others) or accuracy_A[chosen] + NEAR >= 1:
        return 1.0
    if known_A.sum() < ENOUGH or not known_A[chosen] or np.ptp(accuracy_A[known_A]) == 0:
        return None
    calibrated = posterior(scores_RA, accuracy_A, choices_AB, trained_R)
    merit_A = np.round(calibrated.merits()[0], 9)  # equal merits must not differ by rounding
    slope = _slope(merit_A[calibrated.rows], accuracy_A[calibrated.rows])
    others = others[np.argsort(-merit_A[others], kind="stable")[:MOST_LIKELY]]
    drawn_DM = calibrated.draws(others, DRAWS, seeds.generator(seed, "near best"))
    none_better = np.sum(drawn_DM.max(axis=1) <= merit_A[chosen] + NEAR / slope)
    return round(float((max(none_better, 0.5) / DRAWS) ** POWER), 3)


def _slope(merit_N: NDArray[np.float64], accuracy_N: NDArray[np.float64]) -> float:
    """Accuracy for each unit of merit among the best, of whom there are so many that they differ."""
    order = np.argsort(-accuracy_N, kind="stable")
    count = max(TOP_LEAST, len(order) // TOP_PART)
    while np.ptp(accuracy_N[order[:count]]) == 0:
        count += 1
    top = order[:count]
    return float(np.polyfit(merit_N[top], accuracy_N[top], 1)[0])


def in_words(gap: Mapping[str, Any]) -> str:
    """What gap.json holds of it, in a sentence; nothing where it is not known."""
    found = gap.get("near_best")
    if not found:
        return ""
    than = f"more than {100 * found['within']:.1f} points better than the chosen {found['name']}"
    if found["probability"] == 0:
        return f"Of those that were trained from scratch, another one is {than}."
    told = round(found["probability"] / STEP) * STEP
    about = "less than 0.05" if told < STEP else "more than 0.95" if told > 1 - STEP else f"about {told:.2f}"
    return f"With a probability of {about} no other candidate would be {than}."
