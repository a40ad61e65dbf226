"""The population: one Tune trial per member, never one per candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.logger import TBXLoggerCallback

from raynas.architecture import Architecture
from raynas.distributed.cluster import Progress, bundle
from raynas.errors import UserError
from raynas.evaluation import SCORES, Evaluation, in_words, nothing_scored
from raynas.members import load_member
from raynas.plan import MemberPlan, Plan, build_strategy, state_file
from raynas.search import Record, Remembering, record_file, search
from raynas.storage import Folder

MEMBERS = "members.json"
MOST_DEATHS = 5
"""A trial whose process is killed is begun again so often; it repeats itself from its record."""


def run_population(plan: Plan, run: Folder, pool: Any, selector: Any, report: Progress) -> None:
    """Let every member search that has not finished; writes `members.json` with how each of them ended."""
    ended: dict[str, Any] = run.read_json(MEMBERS) if run.exists(MEMBERS) else {}
    to_run = []
    for member in plan.members:
        if ended.get(member.name, {}).get("state") == "done" and run.exists(record_file(member.name)):
            continue
        failure = run.read_json(state_file(member.supernet))["failure"]
        if failure is None:
            to_run.append(member)
        else:
            ended[member.name] = _end(f"its supernet {plan.supernet(member.supernet).label} {failure}")
    if to_run:
        trainable = tune.with_resources(
            tune.with_parameters(_member_trial, plan=plan, run=run, pool=pool, selector=selector),
            tune.PlacementGroupFactory([bundle(plan.config.search.cpus_per_member)]),
        )
        results = run_trials(
            trainable,
            {"member": tune.grid_search([member.name for member in to_run])},
            run,
            "population",
            _Report(report, plan.config.search.evaluations),
        )
        for result in results:
            metrics = result.metrics or {}
            stopped = metrics.get("failure", "it was stopped before its end")  # only the last report has the word
            if not result.error:
                ended[result.config["member"]] = _end(stopped, metrics)
        run.write_json(MEMBERS, ended)
        for result in results:
            if result.error:  # a disk or a node failed, not the member: the same command goes on from here
                raise result.error
    run.write_json(MEMBERS, ended)
    if all(end["state"] == "failed" for end in ended.values()):
        name, end = next(iter(ended.items()))
        raise UserError(f"every member failed; {name}: {end['failure']}.")


def run_trials(trainable: Any, space: dict[str, Any], run: Folder, name: str, callback: tune.Callback) -> Any:
    """Run Tune trials quietly, with TensorBoard events in the run's folder under `events/`."""
    events = run / "events"
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(reuse_actors=True),  # a fresh process per trial would spend seconds on imports
        run_config=tune.RunConfig(
            name=name,
            storage_path=events.root,
            storage_filesystem=events.filesystem,
            failure_config=tune.FailureConfig(max_failures=MOST_DEATHS),
            callbacks=[TBXLoggerCallback(), callback],
            verbose=0,
        ),
    )
    return tuner.fit()


class PooledEvaluator:
    """The pool as an Evaluator of one supernet."""

    def __init__(self, pool: Any, supernet: str, costs: Sequence[str]) -> None:
        self.pool = pool
        self.supernet = supernet
        self.objectives = (*SCORES, *costs)

    def evaluate(self, architectures: Sequence[Architecture]) -> Iterator[Evaluation]:
        """One evaluation per architecture: loss, error in 0..1, and the costs; or why there is none."""
        yield from ray.get(self.pool.evaluate.remote(self.supernet, list(architectures)))


def member_search(member: MemberPlan, plan: Plan, run: Folder, pool: Any, selector: Any, probabilities: Any) -> Any:
    """Search with one member, from its record on; yields its figures after each batch."""
    search_settings = plan.config.search
    record = Record(run, member, plan.space, plan.config)
    evaluator = PooledEvaluator(pool, member.supernet, plan.config.evaluation.costs)
    derived = [load_member("raynas.derivations", member.derivation)(probabilities)] if member.derivation else []
    scores: list[float] = []
    score = evaluator.objectives.index(plan.config.evaluation.score)
    strategy = build_strategy(member, plan.space, probabilities)
    study = _study(strategy, run, member, plan, evaluator)
    for batch in search(
        strategy,
        Remembering(evaluator, record.known()),
        member.objectives,
        evaluations=search_settings.evaluations,
        batch_size=search_settings.batch_size,
        first=derived,
    ):
        record.append(batch)
        if study is not None:
            study.append(batch)
            if record.position == len(record.rows):  # and no earlier attempt has come further
                study.write()
        ray.get(selector.submit.remote(member.name, record.position, batch))
        scores += [one.objectives[score] for one in batch if one.objectives]
        best = min(scores, default=None)
        yield {"evaluations": len(scores), "best": best, "rejected": record.position - len(scores)}


def _study(strategy: Any, run: Folder, member: MemberPlan, plan: Plan, evaluator: PooledEvaluator) -> Any:
    """The study that a strategy of Optuna's is written to, too; None for the others, which need not import it."""
    if not getattr(strategy, "is_optuna", False):
        return None
    from raynas.study_file import StudyFile

    return StudyFile(run, member.name, plan.space, evaluator.objectives, member.objectives)


def _member_trial(config: dict[str, Any], *, plan: Plan, run: Folder, pool: Any, selector: Any) -> None:
    """A Tune trial: what goes wrong in a member's own code is that member's failure and nobody else's.

    A death, a full disk or a broken file is not: Tune begins the trial again, and in the end the run is stopped.
    """
    member = next(one for one in plan.members if one.name == config["member"])
    learnt = run.read_json(state_file(member.supernet))["probabilities"]
    probabilities = [np.array(p) for p in learnt] if learnt else plan.space.uniform_probabilities()
    figures: dict[str, Any] = {"evaluations": 0, "best": None, "rejected": 0}
    try:
        for figures in member_search(member, plan, run, pool, selector, probabilities):
            tune.report(figures)
        failure = None if figures["evaluations"] else _nothing_scored(member, plan, run)
    except (ray.exceptions.RayError, UserError):
        raise
    except (Exception, SystemExit) as fault:  # a strategy of the user's may hold a script that ends its process
        failure = in_words(fault)
    tune.report({**figures, "failure": failure})


def _nothing_scored(member: MemberPlan, plan: Plan, run: Folder) -> str:
    name = record_file(member.name)  # there is none where the strategy asked for nothing
    failures = run.read_table(name)["failure"].to_pylist() if run.exists(name) else []
    return nothing_scored(failures, plan.config.constraints)


def _end(failure: str | None, metrics: Mapping[str, Any] | None = None) -> dict[str, Any]:
    metrics = metrics or {}
    return {
        "state": "failed" if failure else "done",
        "failure": failure,
        "evaluations": metrics.get("evaluations", 0),
        "best": metrics.get("best"),
        "rejected": metrics.get("rejected", 0),
    }


class _Report(tune.Callback):
    """Tells the progress of each trial."""

    def __init__(self, report: Progress, total: int) -> None:
        self.report = report
        self.total = total

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Called by Tune after each batch of a member."""
        facts = {"best": result["best"]} if result.get("best") is not None else {}
        self.report(trial.config["member"], result["evaluations"], facts)
