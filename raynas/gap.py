"""The optimisation gap of a run: how far its ranking agrees with stand-alone training, and whether to trust it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raynas import shapes
from raynas.architecture import decode
from raynas.near_best import NEAR, probability_near_best
from raynas.plan import state_file
from raynas.rank_correlation import bootstrap_interval, kendall_tau_b, regret_at_count, spearman_rho
from raynas.selector import FEWEST, scores_of, short_trained
from raynas.stability import Rankings, measure_stability, missing, of_seeds
from raynas.storage import Folder

NORMAL = 1.96  # standard deviations either side that hold 95 %


@dataclass(frozen=True, slots=True)
class Point:
    """One architecture that was ranked, and trained from scratch or meant to be; None where something is not known.

    rank, consensus: of the ranking, as it would be had the architecture's own training no say in it. scores: of each
    ranker; higher is better, as of the consensus. stand_alone_error, supernet_error: of its
    own and of inherited weights on the same validation images, in one unit.
    """

    name: str
    architecture: str
    role: str
    rank: int | None
    consensus: float | None
    stand_alone_error: float | None
    parameters: float | None = None
    supernet_error: float | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)


def measure(points: Sequence[Point], *, seed: int, resamples: int = 2_000) -> dict[str, Any]:
    """The content of gap.json, all of it JSON (what is not defined is null); methods of rank_correlation throughout.

    n counts the points with a consensus and a stand-alone error; `points` lists the others too. tau and rho compare the
    consensus, each ranker, and the parameter count (more is taken for better) with stand-alone accuracy; each has a
    bootstrap interval of 95 %. value_gap is the mean of stand-alone accuracy less supernet accuracy, and regret what
    the first-ranked of the trained lacks to the best of them, both in the unit of the errors.
    """
    trained = [point for point in points if _finite(point.consensus) and _finite(point.stand_alone_error)]
    accuracy_A = -_column([point.stand_alone_error for point in trained])
    consensus_A = _column([point.consensus for point in trained])
    parameters_A = _column([point.parameters for point in trained])
    gaps_A = _column([point.supernet_error for point in trained]) + accuracy_A
    labels = dict.fromkeys(label for point in points for label in point.scores)

    def correlations(scores_A: NDArray[np.float64]) -> dict[str, dict[str, float | None]]:
        return {
            name: _correlation(statistic, scores_A, accuracy_A, seed, resamples)
            for name, statistic in (("tau", kendall_tau_b), ("rho", spearman_rho))
        }

    ranking, baseline = correlations(consensus_A), correlations(parameters_A)
    counted = ~np.isnan(parameters_A)
    compared = (consensus_A[counted], parameters_A[counted], accuracy_A[counted])
    lead = bootstrap_interval(_lead, *compared, seed=seed, resamples=resamples)
    return {
        "n": len(trained),
        **ranking,
        "baseline": {"parameters": baseline},
        "rankers": {label: correlations(_column([point.scores.get(label) for point in trained])) for label in labels},
        "value_gap": _json(float(np.mean(known_A))) if len(known_A := gaps_A[~np.isnan(gaps_A)]) else None,
        "regret": _json(regret_at_count(consensus_A, accuracy_A, 1)),
        "sentence": _sentence(ranking["tau"], baseline["tau"], lead, len(trained)),
        "points": [
            {
                "name": point.name,
                "architecture": point.architecture,
                "rank": point.rank,
                "consensus": _json(point.consensus),
                "stand_alone_error": _json(point.stand_alone_error),
                "parameters": _json(point.parameters),
                "role": point.role,
            }
            for point in points
        ],
    }


def measure_gap(run: Folder) -> dict[str, Any]:
    """Measure the gap of a run from what was trained from scratch in its folder; writes and returns `gap.json`.

    An architecture's supernet error is the mean over the members' records that hold it; there is none, and no value
    gap, where supernets are scored on training images.
    """
    inherited: dict[str, list[float]] = {}
    for name in run.names("evaluations"):
        columns = run.read_table(f"evaluations/{name}", ("canonical", "error")).select(["canonical", "error"])
        for row in columns.to_pylist():
            if _finite(row["error"]):
                inherited.setdefault(row["canonical"], []).append(row["error"])
    config, results, points = run.read_toml("config.toml"), _results(run), []
    comparable = config.get("evaluation", {}).get("scored_on", "validation") == "validation"
    table = run.read_table("ranking.parquet", ("rank", "architecture", "name", "consensus"))
    ranking = table.to_pydict()
    consensus_A, predicted_A = _column(ranking["consensus"]), _predicted(ranking)
    for a, row in enumerate(table.to_pylist()):
        if row["architecture"] not in results:
            continue
        result, errors = results[row["architecture"]], inherited.get(row["architecture"])
        held_out = predicted_A[a] != consensus_A[a]
        points.append(
            Point(
                name=row["name"],
                architecture=row["architecture"],
                role=result["role"],
                rank=1 + int(np.sum(np.delete(consensus_A, a) > predicted_A[a])) if held_out else row["rank"],
                consensus=float(predicted_A[a]),
                stand_alone_error=result["validation_error"],
                parameters=row.get("parameters"),
                supernet_error=float(np.mean(errors)) if errors and comparable else None,
                scores=scores_of(row),
            )
        )
    trained = [results.get(one, {}) for one in ranking["architecture"]]
    accuracy_A = 1 - _column([one.get("validation_error") for one in trained])
    gap = measure(points, seed=config["seed"]) | _stability(run, ranking, accuracy_A)
    gap["near_best"] = _near_best(ranking, trained, accuracy_A, config["seed"])
    run.write_json("gap.json", gap)
    return gap


def _stability(run: Folder, ranking: Mapping[str, Sequence[Any]], accuracy_A: NDArray[np.float64]) -> dict[str, Any]:
    """`stability`: how the consensus, repeated trainings and late steps rank; `missing`: what is not measured of it."""
    scores = {name: _column(values) for name, values in scores_of(ranking).items()}
    states = [run.read_json(state_file(name)) for name in run.names("supernets")]
    groups = of_seeds({state["label"]: state for state in states}, scores)
    late = _late(run, ranking) if run.exists("snapshots.parquet") else {}
    for label, last_A in scores.items():
        columns = [name for name in late if name.rpartition("@")[0] == label]
        if columns:
            scores_RA = np.stack([*(_column(late[name]) for name in columns), last_A])
            groups.append(Rankings(f"{label}, {len(scores_RA)} late steps", "steps", scores_RA))
    consensus = Rankings("consensus", "consensus", _predicted(ranking)[None])
    return {"stability": measure_stability([consensus, *groups], accuracy_A), "missing": missing(groups)}


def _near_best(
    ranking: Mapping[str, Sequence[Any]],
    trained: Sequence[Mapping[str, Any]],
    accuracy_A: NDArray[np.float64],
    seed: int,
) -> dict[str, Any] | None:
    """The chosen finalist, and how likely no candidate is much better; None where that is not known.

    Nor is it where a validation image counts more than what is asked. trained: each architecture's result, empty of
    what was not trained.
    """
    finalists_A = np.where(ranking.get("finalist", [False] * len(trained)), accuracy_A, np.nan)
    scores = scores_of(ranking)
    if not scores or not np.isfinite(finalists_A).any():
        return None
    chosen = int(np.nanargmax(finalists_A))  # of equal ones the first in the ranking
    if trained[chosen].get("validation_images", 0) * NEAR < 1:
        return None
    probability = probability_near_best(
        np.array([_column(one_A) for one_A in scores.values()]),
        accuracy_A,
        np.array([decode(one) for one in ranking["architecture"]]),
        chosen,
        trained_R=short_trained(scores),
        candidate_A=np.array([not one for one in trained]),
        seed=seed,
    )
    if probability is None:
        return None
    return {
        "name": ranking["name"][chosen],
        "architecture": ranking["architecture"][chosen],
        "within": NEAR,
        "probability": probability,
    }


def _predicted(ranking: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
    """The consensus on each architecture, of what has a say in it the one that was held out."""
    consensus_A = _column(ranking["consensus"])
    held_out_A = _column(ranking.get("held_out", [None] * len(consensus_A)))  # a run of an earlier version has none
    return np.where(np.isnan(held_out_A), consensus_A, held_out_A)


def _results(run: Folder) -> dict[str, dict[str, Any]]:
    """What was trained from scratch, by architecture; of one that calibrated the ranking too, as a finalist."""
    places = [f"{part}/{name}/result.json" for part in ("calibration", "finalists") for name in run.names(part)]
    results = [run.read_json(place) for place in places if run.exists(place)]
    return {one["architecture"]: one for one in results}


def _late(run: Folder, ranking: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The columns of `snapshots.parquet`, in the ranking's order."""
    late = run.read_table("snapshots.parquet", shapes.SNAPSHOTS)
    place = {one: a for a, one in enumerate(late["architecture"].to_pylist())}
    if not place.keys() >= set(ranking["architecture"]):
        raise run.broken("snapshots.parquet", "without some architectures of the ranking")
    rows = pa.array([place[one] for one in ranking["architecture"]], pa.int64())
    return late.take(rows).to_pydict()  # type: ignore[no-any-return]


def _correlation(
    statistic: Callable[..., float],
    scores_A: NDArray[np.float64],
    accuracy_A: NDArray[np.float64],
    seed: int,
    resamples: int,
) -> dict[str, float | None]:
    known_A = ~np.isnan(scores_A)
    scores_A, accuracy_A = scores_A[known_A], accuracy_A[known_A]
    value = statistic(scores_A, accuracy_A)
    low, high = bootstrap_interval(statistic, scores_A, accuracy_A, seed=seed, resamples=resamples)
    if abs(value) == 1 and low == high:
        reach = _reach_of_perfection(len(scores_A), statistic is kendall_tau_b)
        low, high = sorted((reach * value, value))
    return {"value": _json(value), "low": _json(low), "high": _json(high)}


def _reach_of_perfection(count: int, tau: bool) -> float:
    """The lower limit of a perfect correlation, rho or tau, of `count` architectures.

    All resamples of a perfect ranking are perfect, which is no proof that the next architecture will be in place. So
    the limit is that of Fisher's z for rho (Bonett and Wright, Psychometrika 65, 2000) as if half a pair of neighbours
    were swapped, and what is tau of a normal distribution with that rho (Kruskal, JASA 53, 1958).
    """
    if count <= 3:
        return -1.0
    almost = 1 - 6 / (count * (count**2 - 1))  # a swapped pair of neighbours lowers rho by 12 / (A (A^2 - 1))
    rho = math.tanh(math.atanh(almost) - NORMAL * math.sqrt(1.5 / (count - 3)))
    return 2 / math.pi * math.asin(2 * math.sin(math.pi * rho / 6)) if tau else rho


def _lead(
    consensus_A: NDArray[np.float64], parameters_A: NDArray[np.float64], accuracy_A: NDArray[np.float64]
) -> float:
    """By how much the ranking's tau exceeds that of the parameter count."""
    return kendall_tau_b(consensus_A, accuracy_A) - kendall_tau_b(parameters_A, accuracy_A)


def _sentence(
    tau: Mapping[str, float | None], baseline: Mapping[str, float | None], lead: tuple[float, float], count: int
) -> str:
    """What a reader may conclude; the ranking is trusted only as far as both intervals allow."""
    if count < FEWEST:
        return (
            f"Do not trust this ranking yet: n = {count} of its architectures were trained from scratch, and fewer "
            f"than {FEWEST} cannot tell it from chance."
        )
    if tau["value"] is None or tau["low"] is None:
        return (
            f"Do not trust this ranking yet: it, or the errors of the n = {count} architectures trained from scratch, "
            "hold too few different values to compare."
        )
    measured = f"tau {tau['value']:.2f} [{tau['low']:.2f}, {tau['high']:.2f}]"
    beats_chance = tau["low"] > 0
    if baseline["value"] is None:
        if beats_chance:
            return (
                f"This ranking agrees with training from scratch ({measured}, n = {count}); the parameter counts are "
                "equal or unknown and cannot be compared with it."
            )
        return f"Do not trust this ranking: with n = {count} it cannot be told apart from chance ({measured})."
    against = f"{measured} against {baseline['value']:.2f}"
    if lead[0] > 0 and beats_chance:
        return f"This ranking beats counting parameters ({against}, n = {count})."
    if lead[0] > 0:
        return (
            f"Do not trust this ranking: it beats counting parameters ({against}, n = {count}), but cannot be told "
            "apart from chance."
        )
    if lead[1] < 0:
        return f"Do not trust this ranking: counting parameters ranks better ({against}, n = {count})."
    neither = "" if beats_chance else ", nor from chance"
    return (
        f"Do not trust this ranking further than the parameter count: with n = {count} it cannot be told apart from "
        f"counting parameters ({against}){neither}."
    )


def _column(values: Iterable[float | None]) -> NDArray[np.float64]:
    """Numbers, NaN for what is not known or not finite."""
    return np.array([value if _finite(value) else math.nan for value in values], dtype=np.float64)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _json(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
