"""How likely it is that the architecture a run chooses is as good as the best of all its candidates, or nearly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raynas import seeds
from raynas.aggregators.reliability import posterior
from raynas.selector import FEWEST

NEAR = 0.002
"""Of accuracy: 0.2 points."""

MOST = 1_000  # candidates that may be better, the first by merit: a later one hardly is
DRAWS = 2_000
BEST_PART, BEST_LEAST = 3, 4  # accuracies that say what a difference of merit is worth among the best: a third, or four
INDEPENDENT = 0.45


def probability_near_best(
    scores_RA: NDArray[np.float64],
    accuracy_A: NDArray[np.float64],
    choices_AB: NDArray[np.int64],
    chosen: int,
    *,
    candidate_A: NDArray[np.bool_],
    seed: int,
) -> float | None:
    """The probability that no candidate would be more than `NEAR` better than the chosen one, if trained from scratch.

    scores_RA: of each ranker, higher is better, NaN where it has none. accuracy_A: of training from scratch, from 0 to
    1; NaN where it is not known, of the chosen it is. candidate_A: what else would be trained. None where too few
    accuracies are known, or the best of them are equal. The merits that rankers, choices and accuracies leave possible
    are drawn for all candidates together. The share of draws in which none is better is raised to the power of
    `INDEPENDENT`, as if there were so many candidates for each one: what neither rankers nor choices tell apart is
    drawn independently, and isn't. The power is the likeliest for ten sets of rankers on known tables; left-out sets,
    and how often the probability is right: jobs/benchmarks/records/aggregation.md.
    """
    known = ~np.isnan(accuracy_A)
    if known.sum() < FEWEST:
        return None
    if np.nanmax(accuracy_A) > accuracy_A[chosen] + NEAR:
        return 0.0
    what = posterior(scores_RA, accuracy_A, choices_AB)
    best = np.argsort(-accuracy_A[what.rows], kind="stable")[: max(BEST_LEAST, len(what.rows) // BEST_PART)]
    target_N, told_N = what.target_N[best], accuracy_A[what.rows][best]
    if np.ptp(told_N) == 0 or chosen not in what.rows:
        return None
    worth = np.cov(target_N, told_N)[0, 1] / np.var(target_N, ddof=1)  # of accuracy, what merit is among the best
    merit_A = what.merits()[0]
    others = np.flatnonzero(candidate_A & ~known & ~np.isnan(merit_A))
    if not len(others):
        return 1.0
    others = others[np.argsort(-merit_A[others], kind="stable")[:MOST]]
    drawn_DM = what.draws(others, DRAWS, seeds.generator(seed, "near best"))
    enough = what.target_N[np.flatnonzero(what.rows == chosen)[0]] + NEAR / worth
    return float(np.mean(drawn_DM.max(axis=1) <= enough) ** INDEPENDENT)


def in_words(gap: Mapping[str, Any]) -> str:
    """What gap.json holds of it, in a sentence; nothing where it is not known."""
    found = gap.get("near_best")
    if not found:
        return ""
    return (
        f"With probability {found['probability']:.2f} no other of the {found['candidates']} candidates would be more "
        f"than {100 * found['within']:.1f} points better than the chosen {found['name']}."
    )
