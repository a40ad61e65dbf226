"""The central selector: one actor that hears of every evaluation and makes one ranking of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raynas.architecture import Architecture, encode
from raynas.evaluation import PREDICTOR, PROXY, SCORES, Evaluation
from raynas.members import load_member
from raynas.plan import Plan, state_file
from raynas.prediction import predictions
from raynas.search import Record
from raynas.selector import candidates_table, leaders, spread
from raynas.storage import Folder


class Selector:
    """Keeps what every member measured, once per network; its log is the members' files.

    What is lost with the actor is read again from those files, and the candidates are chosen from them alone, so they
    do not depend on the order in which evaluations came.
    """

    def __init__(self, plan: Plan, run: Folder) -> None:
        self.plan = plan
        self.run = run
        self.positions: dict[str, int] = {}
        self.networks: dict[Architecture, set[str]] = {}
        for member in plan.members:
            known = Record(run, member, plan.space, plan.config).known()
            self._take(member.name, len(known), list(known.values()))

    def submit(self, member: str, position: int, evaluations: Sequence[Evaluation]) -> int:
        """Hear of a member's newest batch, which ends at `position` of its record; a repeated one changes nothing.

        Returns how many distinct networks are known.
        """
        if position > self.positions.get(member, 0):
            self._take(member, position, evaluations)
        return len(self.networks)

    def standing(self) -> dict[str, int]:
        """How many distinct networks were scored, and how many of them by several members."""
        return {
            "networks": len(self.networks),
            "shared": sum(len(members) > 1 for members in self.networks.values()),
        }

    def candidates(self, pool: Any) -> pa.Table:
        """Have the pool score all members' leaders, and what calibrates, with every supernet and proxy."""
        config, space = self.plan.config, self.plan.space
        columns = (*SCORES, *config.evaluation.costs)
        candidates: dict[Architecture, None] = {}
        records = {one.name: one for one in self.plan.members}
        evaluations = {
            name: list(Record(self.run, member, space, config).known().values()) for name, member in records.items()
        }
        for name, member in records.items():
            objectives = [columns.index(objective) for objective in member.objectives]
            best = leaders(evaluations[name], objectives, config.selector.leaders, space.canonicalise)
            candidates |= dict.fromkeys(best)
        # an unbiased sample where there is one: random search's candidates were not chosen by any score
        baseline = [name for name, one in records.items() if one.strategy == "random_search" and evaluations[name]]
        sample = [one for name in baseline[:1] or evaluations for one in evaluations[name]]
        calibration = spread(sample, self._score, config.retraining.calibration, space.canonicalise)
        candidates |= dict.fromkeys(calibration)
        return self._scored(pool, list(candidates), calibration)

    def score(self, pool: Any, architectures: Sequence[Architecture]) -> dict[str, list[Evaluation]]:
        """Every trained supernet's evaluations of these architectures, by the supernet's label."""
        calls = {one.label: pool.evaluate.remote(one.id, list(architectures)) for one in self._trained()}
        return {label: ray.get(call) for label, call in calls.items()}

    def score_alone(
        self, pool: Any, architectures: Sequence[Architecture], rankers: Sequence[str]
    ) -> dict[str, list[float]]:
        """What these rankers say, which need no supernet; higher is better, NaN where one has no score."""
        calls = {name: pool.evaluate.remote(name, list(architectures)) for name in rankers}
        return merits({name: ray.get(call) for name, call in calls.items()}, 0)

    def predict(
        self, architectures: Sequence[Architecture], scores: Mapping[str, Mapping[Architecture, float]]
    ) -> dict[str, list[float]]:
        """What predictors say of these architectures, by their names; higher is better, NaN where one knows too little.

        They are fitted to all that the run knows of each supernet: what members had scored, and `scores`, by label.
        """
        config, space = self.plan.config, self.plan.space
        predictors = {f"{PREDICTOR}{one}": load_member("raynas.predictors", one) for one in config.selector.predictors}
        if not predictors:
            return {}
        measured = {label: dict(of_one) for label, of_one in scores.items()}
        for member in self.plan.members:
            known = [one for one in Record(self.run, member, space, config).known().values() if one.objectives]
            networks = [space.canonicalise(one.architecture) for one in known]
            (values,) = merits({"": known}, self._score).values()
            measured.get(self.plan.supernet(member.supernet).label, {}).update(zip(networks, values, strict=True))
        told = predictions(predictors, space, list(measured.values()), architectures, seed=config.seed)
        return {name: values_A.tolist() for name, values_A in told.items()}

    def score_snapshots(self, pool: Any, architectures: Sequence[Architecture]) -> pa.Table:
        """What late weights say of these architectures, a column `label@step` each; they have no say in the ranking."""
        calls = {
            f"{one.label}@{step}": pool.evaluate.remote(f"{one.id}@{step}", list(architectures))
            for one in self._trained()
            for step in self.run.read_json(state_file(one.id))["snapshots"]
        }
        scores = merits({name: ray.get(call) for name, call in calls.items()}, self._score)
        return pa.table({"architecture": [encode(one) for one in architectures], **scores})

    @property
    def _score(self) -> int:
        """Which objective ranks."""
        return SCORES.index(self.plan.config.evaluation.score)

    def _scored(self, pool: Any, candidates: Sequence[Architecture], calibration: Sequence[Architecture]) -> pa.Table:
        config = self.plan.config
        evaluations = self.score(pool, candidates)
        # a supernet that cannot score a candidate has no say on it; one that none can score is out
        kept = [a for a, _ in enumerate(candidates) if any(one[a].objectives for one in evaluations.values())]
        measured = [next(one[a] for one in evaluations.values() if one[a].objectives) for a in kept]
        costs = {
            name: [one.objectives[len(SCORES) + column] for one in measured]
            for column, name in enumerate(config.evaluation.costs)
        }
        proxies = [f"{PROXY}{name}" for name in config.selector.proxies]
        scores = merits(evaluations, self._score)
        known = {label: dict(zip(candidates, values, strict=True)) for label, values in scores.items()}
        scores |= self.score_alone(pool, candidates, proxies) | self.predict(candidates, known)
        return candidates_table(
            [candidates[a] for a in kept],
            {label: [values[a] for a in kept] for label, values in scores.items()},
            costs,
            calibration,
        )

    def _trained(self) -> list[Any]:
        return [one for one in self.plan.rankers if self.run.read_json(state_file(one.id))["failure"] is None]

    def _take(self, member: str, position: int, evaluations: Sequence[Evaluation]) -> None:
        self.positions[member] = position
        for one in evaluations:
            if one.objectives:
                self.networks.setdefault(self.plan.space.canonicalise(one.architecture), set()).add(member)


def merits(evaluations: Mapping[str, Sequence[Evaluation]], score: int) -> dict[str, list[float]]:
    """Each ranker's scores with higher better: minus the loss or error, NaN where it has none."""
    return {
        label: [-one.objectives[score] if one.objectives else np.nan for one in ones]
        for label, ones in evaluations.items()
    }


def start_selector(plan: Plan, run: Folder) -> Any:
    """The selector's actor; Ray restarts it, and it reads the members' files again."""
    return ray.remote(Selector).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote(plan, run)
