"""The whole run, stage after stage: each reads the files of the stage before and writes its own."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from raynas import device as devices
from raynas import shapes
from raynas.architecture import Architecture, decode, encode
from raynas.config import Config
from raynas.data import load, split
from raynas.distributed import cluster
from raynas.distributed.evaluator_pool import evaluator_pool
from raynas.distributed.population import MEMBERS, run_population
from raynas.distributed.retraining_trials import Trials, calibration_accuracies, calibration_trials, retrain, trials
from raynas.distributed.selector_actor import merits, start_selector
from raynas.distributed.shards import train_supernets
from raynas.errors import UserError
from raynas.evaluation import PREDICTOR, PROXY, SCORES, SHORT
from raynas.feasibility import check_constraints
from raynas.gap import measure_gap
from raynas.plan import Plan, make_plan, state_file
from raynas.progress import Progress
from raynas.racing import race
from raynas.run import same_data
from raynas.run_files import CANDIDATES
from raynas.run_record import read_timings
from raynas.search import read_evaluations, record_file
from raynas.selector import (
    consensus,
    heeds_calibration,
    load_aggregator,
    rank_candidates,
    scores_of,
    short_trained,
    short_trainings,
    with_race,
)
from raynas.storage import Folder

LOOK_S = 2.0
"""Between two looks at how far scoring is."""


@dataclass(frozen=True)
class Run:
    """What every stage works with."""

    plan: Plan
    folder: Folder
    arrays: dict[str, NDArray[Any]]
    fingerprint: str
    progress: Progress

    @contextlib.contextmanager
    def stage(self, name: str, tasks: dict[str, float], unit: str) -> Iterator[None]:
        """Show a stage's progress, and add its seconds to `timings.json` however it ends."""
        self.progress.begin(name, tasks, unit=unit)
        stopped = True
        try:
            yield
            stopped = False
        finally:
            self.progress.finish(stopped=stopped)
            ended = {"stage": name, "seconds": self.progress.seconds[name]}
            self.folder.write_json("timings.json", [*read_timings(self.folder), ended])

    @property
    def report(self) -> cluster.Progress:
        """Tells the progress of a task; Tune pickles what it is given, so this holds nothing of the run's images."""
        return functools.partial(_tell, self.progress)


def _tell(progress: Progress, task: str, done: float, facts: dict[str, float]) -> None:
    progress.update(task, done=done, facts=facts)


def start(config: Config, folder: Folder, address: str | None, progress: Progress) -> Run:
    """Check everything that can be checked before anything starts, and connect to Ray."""
    progress.begin("start", {}, unit="")
    devices.prepare(1)  # the networks are tried on two images: threads would only wait for those of others at work
    plan = make_plan(config)
    dataset = load(config.data.name, resolution=config.data.resolution)
    split(dataset, config.data.validation_fraction, config.seed)
    check_constraints(config, plan.space, dataset)
    same_data(folder, dataset.fingerprint)
    cluster.connect(address)
    cluster.require(plan)
    cluster.require_shared(folder)  # of the nodes that it waited for, too
    progress.finish()
    return Run(plan, folder, dataset.to_numpy(), dataset.fingerprint, progress)


def train(run: Run) -> None:
    """Train every supernet of the plan on shards; writes `supernets/<id>/`."""
    steps = {one.label: float(one.end - one.begin) for one in run.plan.supernets if not one.parts}
    with run.stage("supernets", steps, "steps"):
        train_supernets(run.plan, run.arrays, run.folder, run.report, run.progress.note)


def select(run: Run) -> None:
    """Let the population search, and rank what it found; writes `evaluations/`, `calibration/` and four files.

    Calibration architectures are trained from scratch before the ranking where its aggregator heeds their accuracies,
    and with the finalists where it does not.
    """
    if run.folder.exists("ranking.parquet") and run.folder.exists("agreement.json"):
        return
    if not (run.folder.exists(CANDIDATES) and run.folder.exists("snapshots.parquet")):
        _search(run)
    candidates, config = run.folder.read_table(CANDIDATES), run.plan.config
    accuracies = None
    if heeds_calibration(load_aggregator(config)) and (chosen := calibration_trials(run.folder)):
        _train(run, "calibration", chosen)
        accuracies = calibration_accuracies(run.folder)
    ranking = rank_candidates(candidates, config, accuracies)
    trained = short_trainings(candidates, config.selector.short_epochs)
    run.folder.write_json("agreement.json", ranking.agreement(run.plan.space, trained))
    run.folder.write_table("ranking.parquet", ranking.table(run.plan.space))


def _search(run: Run) -> None:
    config = run.plan.config
    with _pool(run, config) as pool:
        for member in run.plan.members:
            name = record_file(member.name)
            if run.folder.exists(name):
                rows = run.folder.read_table(name).to_pylist()
                known = read_evaluations(rows, (*SCORES, *config.evaluation.costs))
                ray.get(pool.remember.remote(member.supernet, known))
        selector = start_selector(run.plan, run.folder)
        with run.stage(
            "population", {one.name: float(config.search.evaluations) for one in run.plan.members}, "evaluations"
        ):
            run_population(run.plan, run.folder, pool, selector, run.report)
        for name, end in run.folder.read_json(MEMBERS).items():
            if end["state"] == "failed":
                run.progress.note(f"member {name} failed: {end['failure']}")
        with run.stage("ranking", {}, "scores"):
            began = ray.get(pool.counts.remote())["scored"]
            candidates = _followed(run, pool, selector.candidates.remote(pool), began=began)
            architectures = [decode(one) for one in candidates.column("architecture").to_pylist()]
            late = _followed(run, pool, selector.score_snapshots.remote(pool, architectures), began=began)
        ray.kill(selector)
        if config.selector.short_epochs and len(candidates):
            candidates = _race(run, pool, candidates)
        run.folder.write_table(CANDIDATES, candidates)
        run.folder.write_table("snapshots.parquet", late)


def train_briefly(run: Run, candidates: pa.Table) -> pa.Table:
    """Rows as of `candidates.parquet` with what short trainings say of them, for a ranking made elsewhere."""
    with _pool(run, run.plan.config) as pool:
        return _race(run, pool, candidates)


def _race(run: Run, pool: Any, candidates: pa.Table) -> pa.Table:
    """The candidates with what short trainings say of them, each of which is on file in `race/` once it has ended.

    What failed is not, and is tried again.
    """
    settings = run.plan.config.selector
    networks = [decode(one) for one in candidates.column("architecture").to_pylist()]
    said = scores_of({name: candidates.column(name).to_numpy() for name in candidates.column_names})

    def train(epochs: float, runners: list[Architecture]) -> list[float]:
        ranker, file = f"{SHORT}{epochs}", f"race/{SHORT}{epochs}.parquet"
        rows = run.folder.read_table(file).to_pylist() if run.folder.exists(file) else []
        ended = {decode(one["architecture"]): one["score"] for one in rows}
        calls = {pool.evaluate.remote(ranker, [one]): one for one in runners if one not in ended}
        waiting = list(calls)
        while True:
            run.report(ranker, float(len(runners) - len(waiting)), {"of": float(len(runners))})
            if not waiting:
                return [ended[one] for one in runners]
            done, waiting = ray.wait(waiting)
            for call in done:
                (ended[calls[call]],) = merits({ranker: ray.get(call)}, 0)[ranker]
            known = [(one, score) for one, score in sorted(ended.items()) if not math.isnan(score)]
            columns = {"architecture": [encode(one) for one, _ in known], "score": [score for _, score in known]}
            run.folder.write_table(file, pa.table(columns, shapes.RACE))

    with run.stage("race", {f"{SHORT}{settings.short_epochs[0]}": float(len(networks))}, "trainings"):
        rungs = race(networks, np.array(list(said.values())), settings.short_epochs, settings.finalists, train)
    return with_race(candidates, rungs)


def stand_alone(run: Run) -> None:
    """Train finalists and calibration architectures from scratch, and measure the gap; writes `gap.json`."""
    _train(run, "retraining", trials(run.folder))
    with run.stage("gap", {}, ""):
        measure_gap(run.folder)


def _train(run: Run, stage: str, chosen: Trials) -> None:
    epochs = float(run.plan.config.retraining.epochs)
    with run.stage(stage, dict.fromkeys(chosen, epochs), "epochs"):
        retrain(run.plan, run.arrays, run.folder, chosen, run.report)


def score(run: Run, architectures: Sequence[Architecture]) -> pa.Table:
    """What every ranker and their consensus say of any architectures; higher is better in all.

    Limits do not matter. Nothing is raced: all are trained for as long as the run's last candidates were. Where the
    run's ranking heeds its calibration architectures the consensus does, too, and so they are scored beside the others.
    """
    config = run.plan.config.model_copy(update={"constraints": {}})
    plan, aggregator = replace(run.plan, config=config), load_aggregator(config)
    heeded = heeds_calibration(aggregator) and run.folder.exists("ranking.parquet")
    accuracies = calibration_accuracies(run.folder) if heeded else {}
    networks = [*(plan.space.canonicalise(one) for one in architectures), *accuracies]
    candidates = run.folder.read_table(CANDIDATES).to_pydict() if run.folder.exists(CANDIDATES) else None
    with _pool(run, config) as pool:
        selector = start_selector(plan, run.folder)
        alone = _alone(run, candidates)
        total = float(len(set(networks)) * (len(plan.rankers) + len(alone)))
        with run.stage("scoring", {"scores": total}, "scores"):
            evaluations = _followed(run, pool, selector.score.remote(pool, networks), total=total)
            scores = merits(evaluations, SCORES.index(config.evaluation.score))
            if not scores:
                raise UserError(
                    f"{run.folder.location} has no supernet that was trained to its end; see its state.json files."
                )
            if candidates is None:
                known = {label: dict(zip(networks, values, strict=True)) for label, values in scores.items()}
            else:
                known = _said(run, candidates)
            scores |= _followed(run, pool, selector.score_alone.remote(pool, networks, alone), total=total)
            scores |= ray.get(selector.predict.remote(networks, known))
            run.report("scores", total, {})
    accuracy_A = np.array([accuracies.get(one, np.nan) for one in networks])
    consensus_A = consensus(networks, np.array(list(scores.values())), aggregator, accuracy_A, short_trained(scores))
    asked = len(architectures)
    return pa.table(
        {
            "architecture": [encode(one) for one in architectures],
            "name": [plan.space.print(one) for one in architectures],
            **{name: values[:asked] for name, values in scores.items()},
            "consensus": consensus_A[:asked],
        }
    )


def _followed(run: Run, pool: Any, call: ray.ObjectRef, *, began: int = 0, total: float = math.inf) -> Any:
    """What the call comes to; until then, how many scores the pool has made since it had made `began`."""
    while True:
        made = ray.get(pool.counts.remote())["scored"] - began  # below 0: the pool has died, and counts anew
        run.report("scores", min(total, max(0, made)), {})
        if ray.wait([call], timeout=LOOK_S)[0]:
            return ray.get(call)


def _said(run: Run, candidates: Mapping[str, Sequence[Any]]) -> dict[str, dict[Architecture, float]]:
    """What each supernet said of the candidates, by its label; of the columns of `candidates.parquet`."""
    networks, labels = [decode(one) for one in candidates["architecture"]], {one.label for one in run.plan.rankers}
    said = {label: values for label, values in scores_of(candidates).items() if label in labels}
    return {label: dict(zip(networks, values, strict=True)) for label, values in said.items()}


def _alone(run: Run, candidates: Mapping[str, Sequence[Any]] | None) -> list[str]:
    """The rankers that ask nothing of supernets, as the candidates have them: a race may end before its last rung."""
    if candidates is not None:
        supernets = [one.label for one in run.plan.rankers]
        return [name for name in scores_of(candidates) if name not in supernets and not name.startswith(PREDICTOR)]
    settings = run.plan.config.selector
    return [*(f"{PROXY}{one}" for one in settings.proxies), *(f"{SHORT}{one}" for one in settings.short_epochs[-1:])]


def _pool(run: Run, config: Config) -> contextlib.AbstractContextManager[Any]:
    trained = [run.folder.exists(state_file(one.id)) for one in run.plan.supernets]
    if not all(trained):
        raise UserError(f"{run.folder.location} has supernets that are not trained; run `raynas train` on it first.")
    workers = cluster.evaluation_workers(config)
    return evaluator_pool(config, ray.put(run.arrays), run.folder, workers, run.progress.note)
