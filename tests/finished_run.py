"""A run's folder with every stage finished, made in seconds without Ray, of the library's own parts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import torch

from raynas import seeds
from raynas.architecture import decode
from raynas.checkpoint import save_state, save_weights
from raynas.config import Config
from raynas.data import load, split
from raynas.evaluation import SCORES
from raynas.members import load_member
from raynas.plan import Plan, build_strategy, build_supernet, make_plan
from raynas.retraining import StandAloneTraining
from raynas.run import begin_run, open_run
from raynas.scoring_images import draw_images
from raynas.search import Record, search
from raynas.selector import Ranking, rank
from raynas.storage import Folder
from raynas.supernet_evaluator import Costs, SupernetEvaluator
from tests.helpers import make_trainer, small_config


def finished_config() -> Config:
    """One member, one supernet of a few steps, one finalist of one epoch."""
    return small_config(members=[{"method": "random_search"}], training={"steps": 4}, search={"evaluations": 6})


def make_finished_run(storage: Path, name: str) -> Path:
    """Train, search, rank and retrain; returns the run's folder."""
    config = finished_config()
    plan = make_plan(config)
    run = open_run(config, str(storage), name)
    dataset = load(config.data.name)
    begin_run(run, config, dataset.fingerprint)
    _train(plan, run)
    ranking = _search(plan, run)
    run.write_json("members.json", {"random_search": {"state": "done", "failure": None, "evaluations": 6}})
    run.write_json("agreement.json", ranking.agreement(plan.space, {}))
    run.write_table("ranking.parquet", ranking.table(plan.space))
    _retrain(plan, run)
    return Path(run.location)


def _train(plan: Plan, run: Folder) -> None:
    (supernet,) = plan.supernets
    trainer = make_trainer("uniform", plan.config)
    while trainer.step < supernet.training.steps:
        trainer.advance()
    place = run / f"supernets/{supernet.id}"
    save_weights(place, "weights.safetensors", trainer.weights())
    place.write_table("curves.parquet", pa.Table.from_pylist(trainer.curves))
    state = {"id": supernet.id, "label": supernet.label, "rule": supernet.rule, "seed": supernet.seed, "failure": None}
    state |= {"settings": supernet.training.model_dump(), "partitions": None, "snapshots": []}
    place.write_json("state.json", {**state, "probabilities": None, "steps": supernet.training.steps})


def _search(plan: Plan, run: Folder) -> Ranking:
    config, (member,), (supernet_plan,) = plan.config, plan.members, plan.supernets
    dataset = load(config.data.name)
    supernet = build_supernet(config, dataset, seed=supernet_plan.seed)
    evaluator = SupernetEvaluator(
        supernet=supernet,
        space=plan.space,
        images=draw_images(split(dataset, config.data.validation_fraction, config.seed), config, torch.device("cpu")),
        settings=config.evaluation,
        costs=Costs(config.evaluation.costs, {}, supernet, dataset.image_shape_CHW),
        device=torch.device("cpu"),
    )
    record = Record(run, member, plan.space, config)
    for batch in search(
        build_strategy(member, plan.space, ()),
        evaluator,
        member.objectives,
        evaluations=config.search.evaluations,
        batch_size=config.search.batch_size,
    ):
        record.append(batch)
    evaluations = {plan.space.canonicalise(one.architecture): one for one in record.known().values()}
    return rank(
        list(evaluations),
        {supernet_plan.label: [-one.objectives[0] for one in evaluations.values()]},
        {
            cost: [one.objectives[len(SCORES) + column] for one in evaluations.values()]
            for column, cost in enumerate(config.evaluation.costs)
        },
        aggregator=load_member("raynas.aggregators", config.selector.aggregator),
        finalists=1,
        cost=config.selector.cost,
        seed=config.seed,
    )


def _retrain(plan: Plan, run: Folder) -> None:
    config = plan.config
    row = next(row for row in run.read_table("ranking.parquet").to_pylist() if row["finalist"])
    dataset = load(config.data.name)
    seed = seeds.integer(config.seed, "stand-alone", row["architecture"])
    training = StandAloneTraining(
        build_supernet(config, dataset, seed=seed, stand_alone=True).subnet(decode(row["architecture"])),
        split(dataset, config.data.validation_fraction, config.seed),
        settings=config.retraining,
        data=config.data,
        seed=seed,
        device=torch.device("cpu"),
    )
    (point,) = training.epochs()
    place = run / f"finalists/{row['rank']}"
    save_state(place, "checkpoint.safetensors", training.state_dict())
    save_weights(place, "weights.safetensors", training.network.finished().state_dict())
    place.write_table("curves.parquet", pa.Table.from_pylist(training.curves))
    known = {"architecture": row["architecture"], "name": row["name"], "rank": row["rank"], "role": "finalist"}
    place.write_json("architecture.json", known)
    figures = {"validation_error": point["validation_error"], "test_error": training.error(training.test)}
    costs = {cost: row[cost] for cost in config.evaluation.costs}
    place.write_json("result.json", {**known, **costs, **figures, "epochs": 1, "seconds": 1.0, "failure": None})
