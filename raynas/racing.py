"""Racing short trainings: who is trained for longer, and what is foretold of those that are not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from raynas.aggregators.reliability import Trust, measure
from raynas.architecture import Architecture
from raynas.belief import undecided

FEW = 3
"""Trainings of two lengths below which no line is drawn through them."""

Rungs = Mapping[float, Mapping[Architecture, float]]
"""By epochs, what short trainings say of the networks that were trained; higher is better, NaN where one failed."""

Train = Callable[[float, list[Architecture]], Sequence[float]]
"""(epochs, networks) -> a score for each."""


def race(
    networks: Sequence[Architecture], scores_RA: NDArray[np.float64], epochs: Sequence[float], count: int, train: Train
) -> Rungs:
    """Train all networks for the fewest epochs, and for each next number those that may be among the `count` best.

    Successive halving (Jamieson and Talwalkar, AISTATS 2016), which drops more than half where the best are apart from
    the rest: see `going_on`. It is over when no more than `count` go on. scores_RA: what other rankers say, NaN where
    one has no score. Every training is one from scratch with a schedule of its own. Neither the order of the networks
    nor that in which trainings end changes the result.
    """
    column = {network: a for a, network in enumerate(networks)}
    runners = ordered = sorted(column)
    scores_RA = scores_RA[:, [column[network] for network in ordered]]
    rungs: dict[float, dict[Architecture, float]] = {}
    for number in epochs:
        rungs[number] = dict(zip(runners, train(number, runners), strict=True))
        if number == epochs[-1]:
            break
        told = foretold(rungs)
        known_RA = np.vstack([scores_RA, [told[network] for network in ordered]])
        trust = measure(known_RA, trained_R=np.arange(len(known_RA)) == len(scores_RA))
        runners = going_on(ordered, trust, rungs[number], count)
        if len(runners) <= count:
            break
    return rungs


def going_on(
    networks: Sequence[Architecture], trust: Trust, rung: Mapping[Architecture, float], count: int
) -> list[Architecture]:
    """Which networks of a rung may be among its `count` best; half of the rung at most, but no fewer than `count`.

    Those of the highest merit, ties by encoding; what failed is out. The deviations of merit know of no error that all
    rankers share, as long as nothing calibrates: what is dropped may be among the best all the same.
    """
    runs_A = np.array([not math.isnan(rung.get(network, math.nan)) for network in networks])
    merit_A = trust.merit_A.round(9)  # equal merits must not differ by rounding
    merit_A[~runs_A] = np.nan
    open_A = undecided(replace(trust, merit_A=merit_A), count)
    best = sorted(np.flatnonzero(open_A).tolist(), key=lambda a: (-merit_A[a], networks[a]))
    return sorted(networks[a] for a in best[: max(count, len(rung) // 2)])


def foretold(rungs: Rungs) -> dict[Architecture, float]:
    """What each network scores at the last rung, or would: rung after rung, on a line through those that went on.

    A ranker has to rank all networks: a rank among leaders is no rank among all. The line is that of least squares,
    never falling; with fewer than `FEW` points, or where all have one score, it is the mean gain. It ends at the best
    of those that went on: a better score is taken for theirs, since none like it was measured. What is foretold is a
    mean over networks of that score: it keeps the order of the rung that it comes from with the luck that there was,
    and stands before what was measured and gained less than the others. It is assumed that those that left would have
    gained as those that went on, which other rankers chose, too. NaN for what failed, on whichever rung.
    """
    first, *_ = rungs.values()
    told = dict(first)
    for before, after in pairwise(rungs.values()):
        measured = {one: score for one, score in after.items() if not math.isnan(score)}
        slope, intercept = _line(np.array([before[one] for one in measured]), np.array(list(measured.values())))
        most = max((before[one] for one in measured), default=math.inf)
        told = {one: after.get(one, slope * min(score, most) + intercept) for one, score in told.items()}
    return told


def _line(before_A: NDArray[np.float64], after_A: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept, through the mean of both."""
    if not len(before_A):
        return 1.0, 0.0
    slope = 1.0
    if len(before_A) >= FEW and np.ptp(before_A) > 0:
        off_A = before_A - before_A.mean()
        slope = max(0.0, float(off_A @ after_A / (off_A @ off_A)))
    return slope, float(after_A.mean() - slope * before_A.mean())
