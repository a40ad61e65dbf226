"""Merging the rankings: who leads, how all rankers order the leaders, and who is trained from scratch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import scipy
from numpy.typing import NDArray

from raynas import belief
from raynas.aggregators.reliability import Trust, measure
from raynas.architecture import Architecture, decode, encode
from raynas.config import Config
from raynas.evaluation import SHORT, Evaluation
from raynas.hypervolume import hypervolume, most_hypervolume
from raynas.members import load_member
from raynas.pareto import front_probability, pareto_front
from raynas.racing import Rungs, foretold
from raynas.rank_correlation import kendall_tau_b
from raynas.space import SearchSpace
from raynas.spacing import evenly

SCORE = "score_"
"""What the columns of rankers' scores begin with."""

FEWEST = 4
"""Accuracies below which nothing is told of who may be the best, nor any correlation of the gap."""

AMONG = 1_000
"""Candidates, evenly through their encodings, that stand for all where the consensus is made once for each accuracy."""

Aggregator = Callable[..., NDArray[np.float64]]
"""scores_RA (higher is better, NaN is missing) -> consensus_A (higher is better).

One with a keyword `calibration_A` is given accuracies of training from scratch, NaN where there is none; one with
`choices_AB` the architectures themselves, in canonical form; one with `trained_R` which rankers are short trainings.
"""


def leaders(
    evaluations: Sequence[Evaluation], objectives: Sequence[int], count: int, canonicalise: Callable[..., Architecture]
) -> list[Architecture]:
    """The best `count` distinct networks by a member's own objectives: non-dominated ones first, then by the first."""
    best: dict[Architecture, tuple[float, ...]] = {}
    for one in evaluations:
        if one.objectives:
            best.setdefault(canonicalise(one.architecture), tuple(one.objectives[column] for column in objectives))
    if not best:
        return []
    values_AM = np.array(list(best.values()))
    front = pareto_front(values_AM) if values_AM.shape[1] > 1 else np.zeros(len(best), dtype=bool)
    architectures = list(best)
    ordered = sorted(range(len(best)), key=lambda row: (not front[row], values_AM[row, 0], architectures[row]))
    return [architectures[row] for row in ordered[:count]]


def spread(
    evaluations: Sequence[Evaluation], score: int, count: int, canonicalise: Callable[..., Architecture]
) -> list[Architecture]:
    """`count` distinct networks at equal distances through the ranking by one score, from the best to the worst."""
    best = {canonicalise(one.architecture): one.objectives[score] for one in evaluations if one.objectives}
    ordered = sorted(best, key=lambda architecture: (best[architecture], architecture))
    rows: Sequence[int] = (
        np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)).tolist()
        if ordered
        else []
    )
    return [ordered[row] for row in rows]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Architectures from the best to the worst by consensus, with what every ranker says of them.

    accuracy_A: of training from scratch, where it has a say in the consensus, NaN of the others. held_out_A: the
    consensus on each of these, were its accuracy not known. front_probability_A: of being on the front of merit, as
    `trust` knows it, and the cost; NaN in a ranking without a cost. hypervolume: of the Pareto set (`front`) and of the
    `finalists`, in `rank_and_cost`; None in a ranking without a cost.
    """

    aggregator: str
    architectures: tuple[Architecture, ...]
    consensus_A: NDArray[np.float64]
    accuracy_A: NDArray[np.float64]
    held_out_A: NDArray[np.float64]
    rankers: tuple[str, ...]
    scores_RA: NDArray[np.float64]
    costs: Mapping[str, NDArray[np.float64]]
    calibration_A: NDArray[np.bool_]
    on_front_A: NDArray[np.bool_]
    front_probability_A: NDArray[np.float64]
    finalist_A: NDArray[np.bool_]
    hypervolume: Mapping[str, float] | None
    trust: Trust

    def table(self, space: SearchSpace) -> pa.Table:
        """The rows of `ranking.parquet`; equal rankings are equal tables."""
        ranks_RA = ranks(self.scores_RA)
        return pa.table(
            {
                "rank": pa.array(range(1, len(self.architectures) + 1), pa.int64()),
                "architecture": [encode(one) for one in self.architectures],
                "name": [space.print(one) for one in self.architectures],
                "consensus": self.consensus_A,
                "held_out": self.held_out_A,
                **{f"{SCORE}{name}": scores for name, scores in zip(self.rankers, self.scores_RA, strict=True)},
                **{f"rank_{name}": row for name, row in zip(self.rankers, ranks_RA, strict=True)},
                **self.costs,
                "calibration": self.calibration_A,
                "on_front": self.on_front_A,
                "front_probability": self.front_probability_A,
                "finalist": self.finalist_A,
            }
        )

    def agreement(self, space: SearchSpace, trained: Mapping[float, int], most: int = 10) -> dict[str, Any]:
        """Kendall's tau-b between every two rankers, whom to believe, and what they place most differently.

        trained: by epochs, how many candidates had a short training.
        """
        count = len(self.rankers)
        taus: list[list[float | None]] = [[1.0] * count for _ in range(count)]
        for i, j in combinations(range(count), 2):
            taus[i][j] = taus[j][i] = _number(kendall_tau_b(self.scores_RA[i], self.scores_RA[j]))
        ranks_RA = ranks(self.scores_RA)
        span_A = np.nanmax(ranks_RA, axis=0) - np.nanmin(ranks_RA, axis=0)  # every architecture has a score of someone
        disputed = np.argsort(-span_A, kind="stable")[:most]
        known = int(np.sum(~np.isnan(self.accuracy_A)))
        told = known >= FEWEST  # of fewer, too few would be said to be undecided
        open_A = belief.undecided(self.trust)
        race: dict[str, Any] = {}
        if trained:
            best = int(self.finalist_A.sum())
            race["race"] = {
                "trained": [{"epochs": epochs, "candidates": number} for epochs, number in trained.items()],
                "best": best,
                "undecided": int(belief.undecided(self.trust, best).sum()) if told else None,
            }
        return {
            "aggregator": self.aggregator,
            "rankers": list(self.rankers),
            "tau": taus,
            "candidates": len(self.architectures),
            "calibrated": known,
            "undecided": int(open_A.sum()) if told else None,
            "last_undecided": int(np.flatnonzero(open_A).max()) + 1 if told else None,
            "belief": belief.entries(self.rankers, self.trust),
            "front": None if self.hypervolume is None else belief.on_front(self.front_probability_A),
            "hypervolume": self.hypervolume,
            "most_disputed": [
                {
                    "architecture": encode(self.architectures[row]),
                    "name": space.print(self.architectures[row]),
                    "ranks": {name: _number(ranks_RA[r, row]) for r, name in enumerate(self.rankers)},
                }
                for row in disputed
                if span_A[row] > 0
            ],
            **race,
        }


def rank(
    architectures: Sequence[Architecture],
    scores: Mapping[str, Sequence[float]],
    costs: Mapping[str, Sequence[float]],
    *,
    aggregator: Aggregator,
    finalists: int,
    cost: str | None,
    seed: int,
    calibration: Sequence[Architecture] = (),
    accuracies: Mapping[Architecture, float] | None = None,
) -> Ranking:
    """Order architectures by the consensus of all rankers and name the finalists.

    scores: by ranker, higher is better, NaN where it has none. Ties in the consensus are broken by the encoding, so
    that equal scores give equal bytes. The Pareto set is that of consensus and `cost`; finalists are its best by
    consensus and then those that add most hypervolume in `rank_and_cost`, filled up from the rest of the ranking;
    without a cost, the first. Calibration architectures are ranked but were not searched for, and become finalists
    only on their merit.
    accuracies: what is known of training from scratch, for an aggregator that heeds it, NaN for what failed, which is
    the last to be a finalist. The consensus on each of those is told without its own too, or else it would be no
    prediction; it is made among `AMONG` candidates at most.
    """
    matrix_RA = np.array([scores[name] for name in scores], dtype=np.float64)
    accuracies = accuracies or {}
    accuracy_A = np.array([accuracies.get(one, np.nan) for one in architectures])
    trained_R = short_trained(scores)
    merged_A = consensus(architectures, matrix_RA, aggregator, accuracy_A, trained_R)
    held_out_A = _held_out(architectures, matrix_RA, aggregator, accuracy_A, trained_R)
    order = sorted(range(len(architectures)), key=lambda row: (-merged_A[row], architectures[row]))
    ordered = tuple(architectures[row] for row in order)
    costs_A = {name: np.array(values, dtype=np.float64)[order] for name, values in costs.items()}
    trust = measure(
        matrix_RA[:, order], calibration_A=accuracy_A[order], choices_AB=np.array(ordered), trained_R=trained_R
    )
    failed_A = np.array([np.isnan(accuracies.get(one, 0.0)) for one in ordered], dtype=bool)
    cost_A = None if cost is None or not order else costs_A[cost]
    chosen = _choose(merged_A[order], cost_A, failed_A, trust, finalists, seed=seed)
    known = set(calibration)
    return Ranking(
        aggregator=aggregator.__name__,
        architectures=ordered,
        consensus_A=merged_A[order],
        accuracy_A=accuracy_A[order],
        held_out_A=held_out_A[order],
        rankers=tuple(scores),
        scores_RA=matrix_RA[:, order],
        costs=costs_A,
        calibration_A=np.array([one in known for one in ordered]),
        on_front_A=chosen.on_front_A,
        front_probability_A=chosen.front_probability_A,
        finalist_A=chosen.finalist_A,
        hypervolume=chosen.hypervolume,
        trust=trust,
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """Who is on the front and who is trained from scratch, as in `Ranking`."""

    on_front_A: NDArray[np.bool_]
    front_probability_A: NDArray[np.float64]
    finalist_A: NDArray[np.bool_]
    hypervolume: Mapping[str, float] | None


def _choose(
    consensus_A: NDArray[np.float64],
    cost_A: NDArray[np.float64] | None,
    failed_A: NDArray[np.bool_],
    trust: Trust,
    finalists: int,
    *,
    seed: int,
) -> _Choice:
    """Of architectures in the order of the consensus."""
    count = len(consensus_A)

    def filled_up(first: Sequence[int], on_front_A: NDArray[np.bool_]) -> NDArray[np.bool_]:
        rest = sorted(range(count), key=lambda a: (failed_A[a], not on_front_A[a], a))
        return np.isin(np.arange(count), list(dict.fromkeys([*first, *rest]))[:finalists])

    if cost_A is None:
        best_A = np.arange(count) == 0
        return _Choice(best_A, np.full(count, np.nan), filled_up([], best_A), None)
    trained_A = np.where(failed_A, np.nan, cost_A)  # what cannot be trained is on no front
    on_front_A = pareto_front(np.stack([-consensus_A, trained_A], axis=1))
    probability_A = front_probability(-trust.merit_A, trust.deviation_A, trained_A, seed=seed)
    objectives_A2, members = rank_and_cost(consensus_A, cost_A), np.flatnonzero(on_front_A)
    finalist_A = filled_up(members[most_hypervolume(objectives_A2[members], finalists)].tolist(), on_front_A)
    parts = {"front": on_front_A, "finalists": on_front_A & finalist_A}
    volumes = {name: hypervolume(objectives_A2[part_A]) for name, part_A in parts.items()}
    return _Choice(on_front_A, probability_A, finalist_A, volumes)


def rank_and_cost(consensus_A: NDArray[np.float64], cost_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank by consensus and logarithm of the cost, each from 0 (best) to 1 (worst of these): shape (A,) -> (A, 2).

    What finalists are spread over. Ranks, as a consensus has no unit that all aggregators share: so a place counts the
    same anywhere, although the first hundred may differ less in accuracy than the last two, and who is ranked, the bad
    ones too, says how far from the worst a place is. Half the cost counts the same anywhere. The worst in either adds
    no hypervolume, and is chosen last. A cost of 0 counts as the smallest above.
    """
    positive = cost_A[cost_A > 0]
    log_cost_A = np.log(np.maximum(cost_A, positive.min())) if len(positive) else np.zeros(len(cost_A))
    return np.stack([_unit(ranks(consensus_A[None])[0]), _unit(log_cost_A)], axis=1)


def _unit(values_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0, the least, to 1, the most."""
    least, most = np.nanmin(values_A), np.nanmax(values_A)
    return np.asarray((values_A - least) / (most - least if most > least else 1.0))


def _held_out(
    architectures: Sequence[Architecture],
    scores_RA: NDArray[np.float64],
    aggregator: Aggregator,
    accuracy_A: NDArray[np.float64],
    trained_R: NDArray[np.bool_],
) -> NDArray[np.float64]:
    known = np.flatnonzero(~np.isnan(accuracy_A))
    held_out_A = np.full(len(architectures), np.nan)
    if not len(known):
        return held_out_A
    by_encoding = sorted(range(len(architectures)), key=lambda row: architectures[row])
    kept = sorted({*(by_encoding[place] for place in evenly(len(architectures), AMONG)), *known.tolist()})
    among, scores_RK = [architectures[row] for row in kept], scores_RA[:, kept]
    for row in known:
        others_K = np.where(np.array(kept) == row, np.nan, accuracy_A[kept])
        held_out_A[row] = consensus(among, scores_RK, aggregator, others_K, trained_R)[kept.index(row)]
    return held_out_A


def candidates_table(
    architectures: Sequence[Architecture],
    scores: Mapping[str, Sequence[float]],
    costs: Mapping[str, Sequence[float]],
    calibration: Sequence[Architecture],
) -> pa.Table:
    """The rows of `candidates.parquet`: all that is ranked, with what every ranker says, before anything is merged."""
    chosen = set(calibration)
    return pa.table(
        {
            "architecture": [encode(one) for one in architectures],
            **{f"{SCORE}{name}": pa.array(row, pa.float64()) for name, row in scores.items()},
            **{name: pa.array(values, pa.float64()) for name, values in costs.items()},
            "calibration": pa.array([one in chosen for one in architectures], pa.bool_()),
        }
    )


def with_race(table: pa.Table, rungs: Rungs) -> pa.Table:
    """Candidates with the one ranker that short trainings make, and columns `short_N` of what was measured.

    The ranker has the name of the last rung, and of each network what was measured there or is foretold. A column
    `short_N` has nothing (null) of a network that was not trained for so long, and NaN of one that failed.
    """
    networks = [decode(one) for one in table.column("architecture").to_pylist()]
    told = foretold(rungs)
    columns: dict[str, list[float | None]] = {f"{SCORE}{SHORT}{max(rungs)}": [told[one] for one in networks]}
    columns |= {f"{SHORT}{epochs}": [scores.get(one) for one in networks] for epochs, scores in rungs.items()}
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, pa.float64()))
    return table


def short_trainings(table: pa.Table, epochs: Sequence[float]) -> dict[float, int]:
    """By epochs, how many candidates had a short training; a race may end before its last rung."""
    measured = {number: f"{SHORT}{number}" for number in epochs if f"{SHORT}{number}" in table.column_names}
    return {number: len(table) - table.column(name).null_count for number, name in measured.items()}


def rank_candidates(table: pa.Table, config: Config, accuracies: Mapping[Architecture, float] | None = None) -> Ranking:
    """Order the rows of `candidates.parquet` as the settings say."""
    columns = table.to_pydict()
    architectures = [decode(one) for one in columns["architecture"]]
    return rank(
        architectures,
        scores_of(columns),
        {name: columns[name] for name in config.evaluation.costs},
        aggregator=load_aggregator(config),
        finalists=config.selector.finalists,
        cost=config.selector.cost or None,
        seed=config.seed,
        calibration=[one for one, chosen in zip(architectures, columns["calibration"], strict=True) if chosen],
        accuracies=accuracies,
    )


def scores_of(columns: Mapping[str, Any]) -> dict[str, Any]:
    """What each ranker says, by its name, in the columns, or in a row, of `candidates.parquet` or `ranking.parquet`."""
    return {name.removeprefix(SCORE): values for name, values in columns.items() if name.startswith(SCORE)}


def short_trained(rankers: Iterable[str]) -> NDArray[np.bool_]:
    """Which rankers are short trainings, `short_N`: shape (R,)."""
    return np.array([name.startswith(SHORT) and name[len(SHORT) :][:1].isdigit() for name in rankers], dtype=bool)


def load_aggregator(config: Config) -> Aggregator:
    """The aggregator that the settings name."""
    return load_member("raynas.aggregators", config.selector.aggregator)  # type: ignore[no-any-return]


def consensus(
    networks: Sequence[Architecture],
    scores_RA: NDArray[np.float64],
    aggregator: Aggregator,
    calibration_A: NDArray[np.float64] | None = None,
    trained_R: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """The merged score of each network, given in its canonical form: shape (R, A) -> (A,); higher is better.

    calibration_A: accuracies of training from scratch, NaN where there is none, for aggregators that heed them;
    trained_R: which rankers are short trainings, for those that ask.
    Aggregators see every network once, in the order of the encodings: where majorities go in circles their answer
    hangs on the order of the columns, and neither the order of the candidates nor a repeated one may change it.
    """
    column = {network: a for a, network in enumerate(networks)}
    distinct = sorted(column)
    columns = [column[network] for network in distinct]
    given: dict[str, NDArray[Any]] = {}
    if calibration_A is not None and heeds_calibration(aggregator):
        given["calibration_A"] = calibration_A[columns]
    if _takes(aggregator, "choices_AB"):
        given["choices_AB"] = np.array(distinct)
    if trained_R is not None and _takes(aggregator, "trained_R"):
        given["trained_R"] = trained_R
    merged = dict(zip(distinct, aggregator(scores_RA[:, columns], **given), strict=True))
    return np.array([merged[network] for network in networks])


def heeds_calibration(aggregator: Aggregator) -> bool:
    """Whether it is given accuracies of training from scratch."""
    return _takes(aggregator, "calibration_A")


def _takes(aggregator: Aggregator, keyword: str) -> bool:
    return keyword in inspect.signature(aggregator).parameters


def ranks(scores_RA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each ranker's ranks, 1 for its best; ties share their mean, what it did not score has none (NaN)."""
    return np.asarray(scipy.stats.rankdata(-scores_RA, axis=1, nan_policy="omit"), dtype=np.float64)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
