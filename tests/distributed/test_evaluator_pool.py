"""The pool scores as one process would, each network once, whoever asks and whoever dies."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raynas import device as devices
from raynas.architecture import Architecture
from raynas.checkpoint import load_weights, save_weights
from raynas.config import Config
from raynas.data import Dataset, load, split
from raynas.distributed import evaluator_pool as evaluator_pool_module
from raynas.distributed import pipeline
from raynas.distributed.evaluator_pool import EvaluatorPool, EvaluatorWorker, _once, evaluator_pool
from raynas.distributed.population import PooledEvaluator
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.plan import build_supernet
from raynas.proxy_evaluator import ProxyEvaluator
from raynas.scoring_images import draw_images
from raynas.storage import Folder
from raynas.strategies.random_search import RandomSearch
from raynas.supernet_evaluator import Costs, SupernetEvaluator
from search_spaces.nas_bench_201 import SPACE
from tests.distributed.fatal_cost import FATAL
from tests.distributed.processes import actors, kill, needs_proc
from tests.distributed.slow_cost import SECONDS
from tests.helpers import short_training, small_config
from tests.ray_head import wait_until

FIRST, SECOND = "supernet-one", "supernet-two"
ISOMORPHIC = [(1, 4, 4, 0, 4, 1), (4, 4, 1, 0, 1, 1), (0, 2, 0, 0, 2, 1), (0, 0, 1, 2, 0, 1)]
ASKED = [*RandomSearch(SPACE, seed=0).ask(16), *ISOMORPHIC]
DISTINCT = len({SPACE.canonicalise(one) for one in ASKED})
PLAIN = small_config(retraining={"space_settings": {"cells_per_stage": 2}}, selector={"short_epochs": 1})
SLOW = small_config(evaluation={"costs": ("macs", "tests.distributed.slow_cost")})
CHOOSY = small_config(evaluation={"costs": ("macs", "tests.distributed.fatal_cost")}, constraints={"macs": 60_000})
BREAKING = small_config(evaluation={"costs": ("macs", "tests.distributed.breaking_cost")})


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def data(cluster: None, digits: Dataset) -> ray.ObjectRef:
    return ray.put(digits.to_numpy())


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with the weights of two supernets, which no evaluator is built with."""
    folder = Folder(str(tmp_path_factory.mktemp("run")))
    for seed, name in ((7, FIRST), (8, SECOND)):
        _publish(folder, digits, name, seed)
    return folder


def _publish(folder: Folder, digits: Dataset, name: str, seed: int) -> None:
    weights = build_supernet(PLAIN, digits, seed=seed).state_dict()
    save_weights(folder, f"supernets/{name}/weights.safetensors", weights)


def locally(config: Config, run: Folder, digits: Dataset, name: str) -> list[Evaluation]:
    """ASKED, scored in this process."""
    supernet = build_supernet(config, digits, seed=0)
    supernet.load_state_dict(load_weights(run, f"supernets/{name}/weights.safetensors"))
    evaluator = SupernetEvaluator(
        supernet=supernet,
        space=SPACE,
        images=draw_images(split(digits, config.data.validation_fraction, config.seed), config, devices.prepare(1)),
        settings=config.evaluation,
        costs=Costs(config.evaluation.costs, config.constraints, supernet, digits.image_shape_CHW),
        device=devices.prepare(1),
    )
    return list(evaluator.evaluate(ASKED))


def by_naswot(digits: Dataset) -> list[float]:
    """The scores of ASKED, in this process."""
    evaluator = ProxyEvaluator(
        proxy="naswot",
        supernet=build_supernet(PLAIN, digits, seed=PLAIN.seed, stand_alone=True),
        canonicalise=SPACE.canonicalise,
        split=split(digits, PLAIN.data.validation_fraction, PLAIN.seed),
        data=PLAIN.data,
        images=PLAIN.selector.proxy_images,
        seed=PLAIN.seed,
        device=devices.prepare(1),
    )
    return [-evaluator.measure(one).objectives[0] for one in ASKED]


def ask(pool: Any, name: str, architectures: list[Architecture]) -> list[Evaluation]:
    """What the pool answers."""
    return list(PooledEvaluator(pool, name, PLAIN.evaluation.costs).evaluate(architectures))


@pytest.fixture(scope="class")
def pool(data: ray.ObjectRef, run: Folder) -> Iterator[Any]:
    """Two workers."""
    with evaluator_pool(PLAIN, data, run, 2, print) as pool:
        yield pool


class TestTwoWorkers:
    """What holds of a pool whose workers live."""

    def test_the_pool_equals_the_local_evaluator_and_scores_each_network_once(
        self, pool: Any, run: Folder, digits: Dataset
    ) -> None:
        assert len(ASKED) > DISTINCT
        calls = [pool.evaluate.remote(FIRST, ASKED[turn:] + ASKED[:turn]) for turn in range(0, len(ASKED), 5)]
        expected = locally(PLAIN, run, digits, FIRST)
        assert len({one.objectives for one in expected}) == DISTINCT
        for turn, call in zip(range(0, len(ASKED), 5), calls, strict=True):
            assert ray.get(call) == expected[turn:] + expected[:turn]
        assert ray.get(pool.counts.remote()) == {"scored": DISTINCT, "known": DISTINCT}

    def test_another_supernet_gives_other_scores_of_the_same_networks(
        self, pool: Any, run: Folder, digits: Dataset
    ) -> None:
        expected = locally(PLAIN, run, digits, SECOND)
        assert ask(pool, SECOND, ASKED) == expected
        assert [one.objectives[0] for one in expected] != [one.objectives[0] for one in ask(pool, FIRST, ASKED)]
        assert [one.objectives[2:] for one in expected] == [one.objectives[2:] for one in ask(pool, FIRST, ASKED)]

    def test_a_proxy_ranks_networks_as_they_are_trained_from_scratch_and_needs_no_supernet(
        self, pool: Any, digits: Dataset
    ) -> None:
        expected = [Evaluation(one, (-score,)) for one, score in zip(ASKED, by_naswot(digits), strict=True)]
        known = ray.get(pool.counts.remote())["known"]
        assert ask(pool, "proxy_naswot", ASKED) == ask(pool, "proxy_naswot", ASKED) == expected
        assert ray.get(pool.counts.remote())["known"] == known + DISTINCT

    def test_a_short_training_is_a_ranker_too(self, pool: Any, digits: Dataset) -> None:
        alone = short_training(PLAIN, digits, epochs=1)
        assert ask(pool, "short_1", ASKED[:2]) == [alone.measure(one) for one in ASKED[:2]]

    def test_what_an_earlier_attempt_scored_is_not_scored_again(self, pool: Any) -> None:
        before = ray.get(pool.counts.remote())
        earlier = [Evaluation(one, (0.5, 0.25, 1.0, 2.0)) for one in ISOMORPHIC[:1]]
        ray.get(pool.remember.remote("supernet-of-before", earlier))
        assert ask(pool, "supernet-of-before", ISOMORPHIC[:2]) == [
            Evaluation(one, (0.5, 0.25, 1.0, 2.0)) for one in ISOMORPHIC[:2]
        ]
        assert ray.get(pool.counts.remote())["scored"] == before["scored"]

    def test_weights_that_cannot_be_read_are_told_to_the_asker_and_the_pool_goes_on(
        self, pool: Any, run: Folder, digits: Dataset
    ) -> None:
        run.write("supernets/broken/weights.safetensors", b"half a superne")
        with pytest.raises(ray.exceptions.RayTaskError) as told:
            ask(pool, "broken", ASKED)
        assert isinstance(told.value.cause, UserError)
        assert "not a whole checkpoint" in str(told.value.cause)
        _publish(run, digits, "broken", 7)
        assert ask(pool, "broken", ASKED) == ask(pool, FIRST, ASKED)

    def test_nothing_asked_is_nothing_answered(self, pool: Any) -> None:
        assert ask(pool, FIRST, []) == []


@pytest.mark.slow  # test_survival.py kills both, too, within a search
@needs_proc
def test_a_worker_or_the_pool_killed_in_the_middle_changes_nothing(
    data: ray.ObjectRef, run: Folder, digits: Dataset
) -> None:
    """One worker, which besides shows that its number makes no difference."""
    with evaluator_pool(SLOW, data, run, 1, print) as pool:

        def at_work() -> bool:
            return 0 < ray.get(pool.counts.remote())["scored"] < DISTINCT

        call = pool.evaluate.remote(FIRST, ASKED)
        kill(lambda: actors(os.getpid(), "EvaluatorWorker"), at_work)
        assert ray.get(call) == locally(SLOW, run, digits, FIRST)
        assert ray.get(pool.counts.remote()) == {"scored": DISTINCT, "known": DISTINCT}
        call = pool.evaluate.remote(SECOND, ASKED)
        kill(lambda: actors(os.getpid(), "EvaluatorPool"), lambda: True)
        assert ray.get(call) == locally(SLOW, run, digits, SECOND)


def test_what_kills_its_worker_each_time_and_what_breaks_a_limit_have_failed_and_the_others_are_scored(
    data: ray.ObjectRef, run: Folder, digits: Dataset
) -> None:
    with evaluator_pool(CHOOSY, data, run, 1, print) as pool:
        *found, fatal = ask(pool, FIRST, [*ASKED, FATAL])
    assert fatal.objectives == ()
    assert fatal.failure is not None and fatal.failure.startswith("killed its evaluator 3 times: ")
    assert found == locally(CHOOSY, run, digits, FIRST)
    rejected = [one.failure for one in found if not one.objectives]
    assert 0 < len(rejected) < len(found)
    assert all(reason is not None and reason.startswith("constraint: macs ") for reason in rejected)


def test_what_breaks_the_device_of_its_worker_has_failed_and_takes_no_others_with_it(
    data: ray.ObjectRef, run: Folder, digits: Dataset
) -> None:
    with evaluator_pool(BREAKING, data, run, 1, print) as pool:
        fatal, *found = ask(pool, FIRST, [FATAL, *ASKED])
    reason = "killed its evaluator 3 times: CUDA error: device-side assert triggered"
    assert fatal == Evaluation(FATAL, (), reason)
    assert found == locally(BREAKING, run, digits, FIRST)


class Worker:
    """A worker that lives until it is told otherwise; what it scores is the sum of the choices."""

    def __init__(self) -> None:
        self.alive = True
        self.ready = SimpleNamespace(remote=lambda: self._answer(None))
        self.measure = SimpleNamespace(
            remote=lambda ranker, weights, asked: self._answer([Evaluation(one, (float(sum(one)),)) for one in asked])
        )

    async def _answer(self, value: Any) -> Any:
        await asyncio.sleep(0)
        if not self.alive:
            raise ray.exceptions.ActorDiedError
        return value


def test_workers_that_died_while_idle_are_no_candidates_fault(run: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    hired: list[Worker] = []

    def hire(pool: EvaluatorPool) -> Worker:
        hired.append(Worker())
        return hired[-1]

    async def scored() -> list[Evaluation]:
        pool = EvaluatorPool(PLAIN, b"", run, SimpleNamespace(bundle_count=5))  # type: ignore[arg-type]
        await asyncio.gather(*pool.tasks)
        for worker in hired:
            worker.alive = False
        return await pool.evaluate("proxy_sum", ASKED[:1])

    monkeypatch.setattr(EvaluatorPool, "_hire", hire)
    monkeypatch.setattr(ray, "kill", lambda worker: None)
    assert asyncio.run(scored()) == [Evaluation(ASKED[0], (float(sum(SPACE.canonicalise(ASKED[0]))),))]
    assert len(hired) == 10


class Intruder:
    """Takes a worker's place."""

    def ready(self) -> None:
        """It has it."""


def intrude(places: PlacementGroup) -> Any:
    """Ask for a place, the next that is free."""
    strategy = PlacementGroupSchedulingStrategy(places)
    return ray.remote(Intruder).options(num_cpus=1, scheduling_strategy=strategy).remote()


@pytest.mark.parametrize("moment", ["at the start", pytest.param("after a death", marks=needs_proc)])
def test_a_worker_that_never_gets_a_place_has_no_work_and_the_others_do_it(
    moment: str, data: ray.ObjectRef, run: Folder, digits: Dataset
) -> None:
    places = placement_group([{"CPU": 1}] * 2)
    try:
        early = [intrude(places)] if moment == "at the start" else []
        ray.get([one.ready.remote() for one in early])
        actor = ray.remote(EvaluatorPool).options(num_cpus=0, max_concurrency=100)
        pool = actor.remote(SLOW, ray.cloudpickle.dumps(data), run, places)
        if not early:
            wait_until(lambda: len(actors(os.getpid(), "EvaluatorWorker")) == 2, 120)
            workers = actors(os.getpid(), "EvaluatorWorker")
            call = pool.evaluate.remote(FIRST, ASKED)
            late = intrude(places)
            kill(lambda: workers[:1], lambda: 0 < ray.get(pool.counts.remote())["scored"] < DISTINCT)
            ray.get(late.ready.remote())
            assert ray.get(call) == locally(SLOW, run, digits, FIRST)
        assert ray.get(pool.evaluate.remote(SECOND, ASKED)) == locally(SLOW, run, digits, SECOND)
    finally:
        remove_placement_group(places)


def test_a_worker_parts_the_images_once_and_keeps_the_rankers_that_were_asked_for_last(
    data: ray.ObjectRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator_pool_module, "MOST_RANKERS", 2)
    worker = EvaluatorWorker(PLAIN, ray.cloudpickle.dumps(data))
    first = worker.measure("short_1", [], ASKED[:1])
    kept, parted = worker.evaluators["short_1"], worker.split
    for ranker in ("proxy_naswot", "short_1", "proxy_synflow"):
        worker.measure(ranker, [], ASKED[:1])
    assert list(worker.evaluators) == ["short_1", "proxy_synflow"] and worker.evaluators["short_1"] is kept
    worker.measure("proxy_naswot", [], ASKED[:1])
    assert worker.measure("short_1", [], ASKED[:1]) == first
    assert worker.evaluators["short_1"] is not kept and worker.split is parted


def test_all_supernets_of_a_worker_are_scored_on_the_same_copy_of_the_images(
    data: ray.ObjectRef, digits: Dataset
) -> None:
    worker = EvaluatorWorker(PLAIN, ray.cloudpickle.dumps(data))
    for seed, name in enumerate((FIRST, SECOND)):
        weights = build_supernet(PLAIN, digits, seed=seed).state_dict()
        worker.measure(name, [ray.put({key: value.numpy() for key, value in weights.items()})], ASKED[:1])
    first, second = (worker.evaluators[name] for name in (FIRST, SECOND))
    assert isinstance(first, SupernetEvaluator) and isinstance(second, SupernetEvaluator)
    assert first.images is second.images


def test_what_many_want_at_once_is_read_once_while_others_go_on() -> None:
    reads, others = [], threading.Event()

    def read() -> bool:
        reads.append(1)
        return others.wait(60)

    async def want() -> list[bool]:
        known: dict[str, asyncio.Future[bool]] = {}
        wanted = [asyncio.ensure_future(_once(known, "weights", read)) for _ in range(3)]
        await asyncio.sleep(0)
        others.set()
        return await asyncio.gather(*wanted)

    assert asyncio.run(want()) == [True] * 3 and len(reads) == 1


@needs_proc
def test_where_others_hold_part_of_the_cluster_fewer_workers_do(
    data: ray.ObjectRef, run: Folder, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator_pool_module, "PATIENCE_S", 0.5)
    other = placement_group([{"CPU": 1}])
    try:
        ray.get(other.ready())
        config = small_config(evaluation={"workers": None})
        with evaluator_pool(config, data, run, 2, print) as pool:
            assert ask(pool, FIRST, ASKED) == locally(PLAIN, run, digits, FIRST)
            assert len(actors(os.getpid(), "EvaluatorWorker")) == 1
    finally:
        remove_placement_group(other)


def test_evaluators_that_find_no_room_say_so_and_wait(
    data: ray.ObjectRef, run: Folder, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator_pool_module, "PATIENCE_S", 0.5)
    other, told = placement_group([{"CPU": 1}]), []
    ray.get(other.ready())

    def note(text: str) -> None:
        told.append(text)
        remove_placement_group(other)

    with evaluator_pool(small_config(evaluation={"workers": 2}), data, run, 2, note) as pool:
        assert ask(pool, FIRST, ASKED) == locally(PLAIN, run, digits, FIRST)
    assert told == ["evaluators wait for 2 CPUs: there is no room for them in the cluster now."]


def test_how_far_scoring_is_is_told(
    data: ray.ObjectRef, run: Folder, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "LOOK_S", SECONDS)
    told: list[float] = []
    asking: Any = SimpleNamespace(report=lambda task, done, facts: told.append(done))
    with evaluator_pool(SLOW, data, run, 1, print) as pool:
        call = pool.evaluate.remote(FIRST, ASKED)
        assert pipeline._followed(asking, pool, call, total=DISTINCT - 1.0) == locally(SLOW, run, digits, FIRST)
    assert len(set(told)) > 2 and told == sorted(told) and told[0] == 0 and told[-1] <= DISTINCT - 1
