"""A space that is split: one warm-up, a shard for each partition, and together one supernet that scores."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from rich.console import Console

from raynas import device as devices
from raynas.architecture import decode
from raynas.checkpoint import CHECKPOINT, load_weights, save_state, weights_file
from raynas.config import Config
from raynas.data import load, split
from raynas.distributed import pipeline
from raynas.distributed.cluster import demands
from raynas.distributed.evaluator_pool import evaluator_pool
from raynas.distributed.population import PooledEvaluator
from raynas.distributed.shards import train_supernets
from raynas.distributed.splits import decide_split, read_joined, read_split
from raynas.evaluation import Evaluation
from raynas.plan import Plan, SupernetPlan, build_rule, build_supernet, make_plan
from raynas.progress import Progress
from raynas.run_files import JOINED, check_files
from raynas.scoring_images import draw_images
from raynas.storage import Folder
from raynas.strategies.random_search import RandomSearch
from raynas.supernet_evaluator import Costs, SupernetEvaluator
from raynas.trainer import Trainer
from search_spaces.nas_bench_201 import SPACE
from tests.helpers import small_config
from tests.partitioned_evaluator import PartitionedEvaluator

ASKED = RandomSearch(SPACE, seed=3).ask(12)
SETTINGS: dict[str, Any] = {
    "training": {"steps": 8, "batch_size": 32, "checkpoint_every_s": 0.0, "snapshots": 1},
    "members": [
        {
            "method": "few_shot",
            "partitions": {"paths": 1, "reference": 4},
            "settings": {"population_size": 4, "tournament_size": 2},
        },
        {"method": "random_search", "training_rule": "fair", "training": {"steps": 2, "snapshots": 0}},
    ],
}
CONFIG = small_config(**SETTINGS)


def silent(task: str, done: float, facts: dict[str, float]) -> None:
    """A progress that nobody looks at."""


def files(run: Folder, *endings: str) -> dict[str, bytes]:
    """What a run's supernets are, without the times that they took."""
    names = [f"supernets/{net}/{name}" for net in run.names("supernets") for name in run.names(f"supernets/{net}")]
    return {name: run.read(name) for name in names if name.endswith(endings or (".safetensors", ".json"))}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(CONFIG)


@pytest.fixture(scope="module")
def run(cluster: None, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A run whose supernets are trained."""
    folder = Folder(str(tmp_path_factory.mktemp("run")))
    train_supernets(plan, load("digits").to_numpy(), folder, silent, print)
    return folder


def local(run: Folder, plan: Plan, supernet: str, config: Config = CONFIG) -> SupernetEvaluator:
    """An evaluator in this process with the weights of a supernet that has some."""
    dataset = load("digits")
    network = build_supernet(config, dataset, seed=0)
    identity, _, step = supernet.partition("@")
    weights = load_weights(run / f"supernets/{identity}", weights_file(int(step) if step else None))
    network.load_state_dict(weights)
    return SupernetEvaluator(
        supernet=network,
        space=plan.space,
        images=draw_images(split(dataset, config.data.validation_fraction, config.seed), config, devices.prepare(1)),
        settings=config.evaluation,
        costs=Costs(config.evaluation.costs, config.constraints, network, dataset.image_shape_CHW),
        device=devices.prepare(1),
    )


def joined(run: Folder, plan: Plan, config: Config = CONFIG, at: str = "") -> PartitionedEvaluator:
    """The few-shot supernet as one evaluator in this process."""
    found = read_joined(run, plan.rankers[0].id + at)
    assert found is not None
    return PartitionedEvaluator(
        space=plan.space,
        partitions=found.partitions,
        parts=[local(run, plan, one, config) for one in found.parts],
        reference=local(run, plan, found.warm_up, config),
        settings=found.settings,
        seed=config.seed,
    )


def bare(run: Folder, plan: Plan, one: SupernetPlan) -> Trainer:
    """A trainer in this process for the warm-up or a partition."""
    dataset, space, partition = load("digits"), plan.space, None
    network = build_supernet(CONFIG, dataset, seed=one.seed)
    if one.split is not None and one.part is not None:
        partition = read_split(run, one.split)[one.part]
        space = partition.restrict(space)
        network.load_state_dict(load_weights(run, f"supernets/{one.split.warm_up}/weights.safetensors"))
    return Trainer(
        supernet=network,
        rule=build_rule(one, space),
        split=split(dataset, CONFIG.data.validation_fraction, CONFIG.seed),
        training=one.training,
        data=CONFIG.data,
        seed=one.seed,
        device=torch.device("cpu"),
        partition=partition,
        begin=one.begin,
        end=one.end,
    )


def test_each_partition_trains_what_a_bare_trainer_trains_from_the_weights_of_the_warm_up(
    run: Folder, plan: Plan
) -> None:
    *trained, whole = (one for one in plan.supernets if one.rule == "uniform")
    for one in trained:
        trainer = bare(run, plan, one)
        while not trainer.done:
            trainer.advance()
        weights = load_weights(run, f"supernets/{one.id}/weights.safetensors")
        assert all(value.equal(weights[name]) for name, value in trainer.supernet.state_dict().items())
        curve = run.read_table(f"supernets/{one.id}/curves.parquet").to_pydict()
        assert curve["step"] == list(range(one.begin + 1, one.end + 1))
    state = run.read_json(f"supernets/{whole.id}/state.json")
    assert state["failure"] is None and state["label"] == "uniform_few_shot"
    assert all(p == pytest.approx([0.2] * 5) for p in state["probabilities"])
    assert state["snapshots"] == [6] and run.read_json(f"supernets/{trained[0].id}/state.json")["snapshots"] == []
    assert whole.split is not None and len(trained) == 3
    assert state["partitions"] == whole.split.settings.model_dump(mode="json")
    assert sum(partition.size for partition in read_split(run, whole.split)) == plan.space.size


@pytest.mark.parametrize("moment", [pytest.param("after the warm-up", marks=pytest.mark.slow), "within a partition"])
def test_a_run_that_is_killed_and_continued_is_the_undisturbed_one_to_the_byte(
    moment: str, run: Folder, plan: Plan, tmp_path: Path
) -> None:
    warm_up, first, second, whole = (one for one in plan.supernets if one.rule == "uniform")
    assert whole.split is not None
    kept = tmp_path / "run"
    shutil.copytree(run.location, kept)
    again = Folder(str(kept))
    gone = [whole, second, first] if moment == "after the warm-up" else [whole, second]
    for one in gone:
        shutil.rmtree(kept / "supernets" / one.id)
    if moment == "after the warm-up":
        (kept / whole.split.file).unlink()
    begun: dict[str, float] = {}

    def note(task: str, done: float, facts: dict[str, float]) -> None:
        begun.setdefault(task, done)

    if moment == "within a partition":
        half = bare(run, plan, second)
        half.advance()
        save_state(again, f"supernets/{second.id}/{CHECKPOINT}", half.state_dict())
    train_supernets(plan, load("digits").to_numpy(), again, note, print)
    assert begun == {one.label: float(moment == "within a partition") for one in gone if not one.parts}
    results = ("weights.safetensors", "snapshot-6.safetensors", JOINED)
    assert files(again, *results) == files(run, *results)
    assert again.read(whole.split.file) == run.read(whole.split.file)
    assert again.read_json(f"supernets/{whole.id}/state.json") == run.read_json(f"supernets/{whole.id}/state.json")
    assert warm_up.label not in begun


def test_a_split_that_is_being_decided_counts_as_at_work(run: Folder, plan: Plan) -> None:
    part = next(one for one in plan.supernets if one.part == 0)
    assert part.split is not None
    decided, data = run.read(part.split.file), ray.put(load("digits").to_numpy())
    at_work: set[str] = set()

    async def decide() -> set[str]:
        deciding = asyncio.create_task(decide_split(part, plan.config, data, run, at_work))
        await asyncio.sleep(0)
        seen = set(at_work)
        await deciding
        return seen

    assert asyncio.run(decide()) == {part.split.file} and not at_work
    assert run.read(part.split.file) == decided


def test_the_pool_scores_a_split_space_with_limits_as_one_process_would(run: Folder, plan: Plan) -> None:
    data, supernet = ray.put(load("digits").to_numpy()), plan.rankers[0].id
    limited = small_config(**SETTINGS, constraints={"macs": 60_000})
    earlier = [Evaluation(ASKED[0], (0.5, 0.25, 1.0, 2.0))]
    with evaluator_pool(limited, data, run, 1, print) as pool:
        ray.get(pool.remember.remote(supernet, earlier))
        evaluator = PooledEvaluator(pool, supernet, CONFIG.evaluation.costs)
        some = list(evaluator.evaluate(ASKED[6:]))
        found = list(evaluator.evaluate(ASKED))
    expected = list(joined(run, plan).evaluate(ASKED))
    assert len({one.objectives for one in expected}) > 6
    assert found[6:] == some
    assert found[0] == earlier[0]
    rejected = [one for one in found if not one.objectives]
    assert rejected and all(str(one.failure).startswith("constraint: macs") for one in rejected)
    assert all(one == other for one, other in zip(found[1:], expected[1:], strict=True) if one.objectives)
    assert found[1:] == list(joined(run, plan, limited).evaluate(ASKED[1:]))


def test_a_warm_up_that_diverges_ends_its_partitions_and_nothing_else(cluster: None, tmp_path: Path) -> None:
    member, other = SETTINGS["members"]
    config = small_config(**{**SETTINGS, "members": [{**member, "training": {"learning_rate": 1e30}}, other]})
    plan, folder = make_plan(config), Folder(str(tmp_path))
    train_supernets(plan, load("digits").to_numpy(), folder, silent, print)
    warm_up, first, second, whole, fair = (folder.read_json(f"supernets/{one.id}/state.json") for one in plan.supernets)
    assert warm_up["failure"].startswith("diverged: ")
    assert first["failure"] == second["failure"] == f"goes on from uniform_few_shot_warm_up, which {warm_up['failure']}"
    assert whole["failure"] == f"is made of uniform_few_shot_part_1, which {first['failure']}"
    assert fair["failure"] is None
    check_files(folder, config)


def test_a_run_with_partitions_goes_through_the_pipeline_as_one_ranker(run: Folder, plan: Plan, tmp_path: Path) -> None:
    shutil.copytree(run.location, tmp_path / "run")
    folder = Folder(str(tmp_path / "run"))
    folder.write("config.toml", b"")
    with Progress(Console(quiet=True)) as progress:
        whole = pipeline.Run(plan, folder, load("digits").to_numpy(), "", progress)
        pipeline.select(whole)
        ranked = pipeline.score(whole, ASKED)
    assert ranked.column_names == ["architecture", "name", "uniform_few_shot", "fair", "consensus"]
    expected = [-one.objectives[0] for one in joined(run, plan).evaluate(ASKED)]
    assert ranked["uniform_few_shot"].to_pylist() == expected
    late = folder.read_table("snapshots.parquet")
    networks = [decode(one) for one in late["architecture"].to_pylist()]
    scored = joined(run, plan, at="@6").evaluate(networks)
    assert late["uniform_few_shot@6"].to_pylist() == [-one.objectives[0] for one in scored]
    ranking = folder.read_table("ranking.parquet")
    assert [name for name in ranking.column_names if name.startswith("rank_")] == [
        "rank_uniform_few_shot",
        "rank_fair",
    ]
    assert {end["state"] for end in folder.read_json("members.json").values()} == {"done"}
    check_files(folder, plan.config)


def test_partitions_are_counted_in_what_a_run_needs(plan: Plan) -> None:
    stages = [one.stage for one in demands(plan)]
    assert [one.removeprefix("training supernet ") for one in stages if one.startswith("training")] == [
        "uniform_few_shot_warm_up",
        "uniform_few_shot_part_1",
        "uniform_few_shot_part_2",
        "fair",
    ]
