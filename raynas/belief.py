"""How far each ranker is to be believed: its agreement with the others, and what calibration makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raynas.aggregators.reliability import Trust, reliability
from raynas.evaluation import ALONE, PREDICTOR, PROXY
from raynas.units import signed

HEADERS = ("ranker", "agrees with the others", "weight")
UNSURE = 1.64
"""Standard deviations below which lie 95 % of a normal distribution."""

LIKELY, POSSIBLE = 0.5, 0.01
"""Probabilities from which on a candidate is told to be on the front, and that it may be."""

NOTE = (
    "Agreement: correlation with the consensus of the others. Weight: what a standard deviation of a ranker's scores "
    "is worth to the aggregator reliability, which heeds what was trained from scratch, and gives short trainings as "
    "much as all others together as long as that does not say otherwise; ± is a standard error."
)


def entries(rankers: Sequence[str], trust: Trust) -> list[dict[str, Any]]:
    """One entry of agreement.json's `belief` for each ranker; None for what is not defined."""
    columns = {
        "agreement": trust.agreement_R,
        "agreement_error": trust.agreement_error_R,
        "weight": trust.weight_R,
        "weight_error": trust.weight_error_R,
    }
    return [
        {
            "ranker": name,
            **{key: float(column[r]) if math.isfinite(column[r]) else None for key, column in columns.items()},
        }
        for r, name in enumerate(rankers)
    ]


def undecided(trust: Trust, count: int = 1) -> NDArray[np.bool_]:
    """Which architectures may be among the `count` best for all that rankers and calibration say: shape (A,).

    Those whose merit is not below that of the `count`-th by more than `UNSURE` of the deviation of the difference; each
    pair is judged for itself. How often the best is among them: jobs/benchmarks/records/aggregation.md. Nobody is whose
    merit is NaN.
    """
    known = int(np.sum(~np.isnan(trust.merit_A)))
    if not known:
        return np.zeros(len(trust.merit_A), dtype=bool)
    last = np.argsort(-trust.merit_A, kind="stable")[min(count, known) - 1]
    deviation_A = np.hypot(trust.deviation_A, trust.deviation_A[last])
    return np.asarray(trust.merit_A[last] - trust.merit_A <= UNSURE * deviation_A)


def on_front(probability_A: NDArray[np.float64]) -> dict[str, int]:
    """What agreement.json holds of the probabilities to be on the front of merit and cost: how many are, and may be.

    How often they are right: jobs/benchmarks/records/aggregation.md.
    """
    return {"likely": int(np.sum(probability_A >= LIKELY)), "possible": int(np.sum(probability_A >= POSSIBLE))}


def rows(agreement: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Lines under `HEADERS` for what agreement.json holds of belief, the largest weight first."""
    return [
        (one["ranker"], _told(one["agreement"], one["agreement_error"]), _told(one["weight"], one["weight_error"]))
        for one in _ordered(agreement)
    ]


def sentence(agreement: Mapping[str, Any]) -> str:
    """Who is believed most and least, and whether it is a proxy; nothing where the aggregator believes all alike."""
    ordered = _ordered(agreement)
    if len(ordered) < 2 or agreement.get("aggregator") != reliability.__name__:
        return ""
    most, least = (
        f"{one['ranker']} (weight {_told(one['weight'], one['weight_error'])})" for one in (ordered[0], ordered[-1])
    )
    supernets = [one for one in ordered if not one["ranker"].startswith((*ALONE, PREDICTOR))]
    beaten = ""
    if supernets and ordered[0]["ranker"].startswith(ALONE) and _exceeds(ordered[0], supernets[0]):
        what = "An untrained network's score" if ordered[0]["ranker"].startswith(PROXY) else "A short training"
        beaten = f" {what} is believed more than every supernet."
    return f"Believed most: {most}; least: {least}.{beaten}"


def undecided_in_words(agreement: Mapping[str, Any]) -> str:
    """How many candidates may be the best, and what that makes of their order; nothing of an uncalibrated ranking.

    The order is not to be trusted from the first of the ranking to the last that may be the best.
    """
    count = agreement.get("undecided")
    if count is None:
        return ""
    last = agreement.get("last_undecided") or 1
    order = f" Do not trust the order within the top {last}." if last > 1 else ""
    return (
        f"The best of the {agreement['candidates']} candidates is one of {count} that rankers and calibration cannot "
        f"tell from the first (right nine times in ten).{order}"
    )


def race_in_words(agreement: Mapping[str, Any]) -> str:
    """How many candidates were trained for how many epochs and, of a calibrated ranking, whether the best are settled.

    Nothing of a run without short trainings.
    """
    race = agreement.get("race")
    if race is None:
        return ""
    numbers = [f"{one['candidates']} for {one['epochs']:g}" for one in race["trained"]]
    told = f"Short trainings (candidates for epochs): {', '.join(numbers)}"
    if race["undecided"] is None:
        return f"{told}."
    best = f"the {race['best']} best are" if race["best"] > 1 else "the best is"
    if race["undecided"] == race["best"]:
        return f"{told}; {best} settled."
    return f"{told}; {best} not settled: {race['undecided']} candidates are open."


def front_in_words(agreement: Mapping[str, Any]) -> str:
    """How many candidates are on the Pareto set of merit and cost, and how many may be; nothing where it is not known.

    Merit is that of `reliability`, whatever merges the rankings; without calibration its deviations know of no error
    that all rankers share (see its `Trust`).
    """
    front = agreement.get("front")
    if not front:
        return ""
    told = (
        f"On the Pareto set of accuracy and cost with probability {LIKELY} or more: {front['likely']} of "
        f"{agreement['candidates']} candidates; {front['possible']} may be ({POSSIBLE} or more)"
    )
    told += "." if agreement.get("aggregator") == reliability.__name__ else f", as {reliability.__name__} sees it."
    if agreement.get("calibrated", 0) < 2:  # one accuracy tells nothing apart
        told += " This ranking is not calibrated and knows of no error that all rankers share, so others may be too."
    return told


def _exceeds(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the first weighs more by more than the errors of both."""
    errors = [one["weight_error"] for one in (first, second)]
    return None not in errors and first["weight"] - second["weight"] > math.hypot(*errors)


def _ordered(agreement: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(agreement.get("belief", ()), key=lambda one: -(one["weight"] or 0.0))


def _told(value: float | None, error: float | None) -> str:
    return signed(value) + ("" if value is None or error is None else f" ± {error:.2f}")
