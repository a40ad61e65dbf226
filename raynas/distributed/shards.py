"""Shards: groups of actors that train supernets, one replica each, and survive the death of any of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raynas import device as devices
from raynas.checkpoint import CHECKPOINT, load_state, load_weights, save_state, save_weights, weights_file
from raynas.config import Config
from raynas.data import Dataset, split
from raynas.distributed.cluster import DEATHS, Progress, bundle, cause, total, words
from raynas.distributed.splits import decide_split, join_parts, read_split
from raynas.errors import UserError, breaks_process, lacks_memory, raise_mistake_of_user, reason
from raynas.plan import Plan, SupernetPlan, build_rule, build_supernet, load_space, predicted_limits, state_file
from raynas.replica_group import ReplicaGroup, lost_partner
from raynas.storage import Folder
from raynas.trainer import Trainer
from raynas.training_rule import DivergenceError

IN_FLIGHT = 2
"""Calls queued at each replica, so that none waits for the driver between two points of the curve."""
MOST_DEATHS = 5
"""After so many deaths without progress a shard is given up."""
PATIENCE_S = 10.0
"""After twice as long without room it is told that a shard waits."""


class Replica:
    """One data-parallel worker of a shard; a plain class, made remote by `train_supernet`."""

    def __init__(self, plan: SupernetPlan, config: Config, arrays: Mapping[str, Any], run: Folder) -> None:
        self.plan = plan
        self.config = config
        self.arrays = arrays
        self.run = run
        self.folder = run / f"supernets/{plan.id}"

    def address(self) -> tuple[str, int]:
        """Where the group's store may listen: this node's address and a free port."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def join(self, rank: int, world: int, address: str, port: int) -> int:
        """Become a replica of the group and go on from the newest checkpoint; returns the step it stands at."""
        with self._told():
            self.trainer = self._trainer(rank, world, address, port)
            if self.folder.exists(CHECKPOINT):
                self.trainer.load_state_dict(load_state(self.folder, CHECKPOINT))
        self.saved = time.monotonic()
        return self.trainer.step

    def _trainer(self, rank: int, world: int, address: str, port: int) -> Trainer:
        training = self.plan.training
        device = devices.prepare(training.cpus_per_replica, training.gpus_per_replica)
        dataset = Dataset.from_numpy(self.arrays)
        supernet = build_supernet(self.config, dataset, seed=self.plan.seed)
        space, partition = load_space(self.config.space), None
        if self.plan.split is not None and self.plan.part is not None:
            partition = read_split(self.run, self.plan.split)[self.plan.part]
            space = partition.restrict(space)
            warm_up = self.run / f"supernets/{self.plan.split.warm_up}"
            supernet.load_state_dict(load_weights(warm_up, weights_file()))
        return Trainer(
            supernet=supernet,
            rule=build_rule(self.plan, space),
            split=split(dataset, self.config.data.validation_fraction, self.config.seed),
            training=training,
            data=self.config.data,
            seed=self.plan.seed,
            device=device,
            group=ReplicaGroup.join(rank=rank, world=world, address=address, port=port, device=device),
            partition=partition,
            begin=self.plan.begin,
            end=self.plan.end,
            limits=predicted_limits(self.config),
        )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Raises UserError where memory does not suffice, or where a file of the user's own has a fault."""
        what = f"training supernet {self.plan.label}"
        try:
            yield
        except (UserError, DivergenceError):
            raise
        except Exception as fault:
            if lacks_memory(fault):
                wanted = ". ".join(reason(fault).split(". ")[:2])  # how the memory is shared out follows
                raise UserError(
                    f"{what}: {wanted}; lower training.batch_size, or choose smaller space.settings."
                ) from fault
            if not _is_death(fault):  # a network of the user's own loses its partner in the sums of its BatchNorm
                raise_mistake_of_user(what, fault)
            raise

    def advance(self) -> dict[str, float] | None:
        """Train up to the next point of the curve; None when there is nothing left to train."""
        if self.trainer.done:
            return None
        with self._told():
            point = self.trainer.advance()
        if self.trainer.group.rank == 0 and self.trainer.step in self.trainer.snapshot_steps:  # before a checkpoint
            save_weights(self.folder, weights_file(self.trainer.step), self.trainer.weights())
        due = time.monotonic() - self.saved >= self.plan.training.checkpoint_every_s
        if due and self.trainer.group.rank == 0:
            save_state(self.folder, CHECKPOINT, self.trainer.state_dict())
            self.saved = time.monotonic()
        return point

    def publish(self) -> dict[str, Any]:
        """Write the trained weights and curves; returns what the supernet's state.json says of them."""
        save_weights(self.folder, weights_file(), self.trainer.weights())
        curves = self.trainer.curves
        columns = {name: [point.get(name) for point in curves] for name in curves[0]}
        self.folder.write_table("curves.parquet", pa.table(columns))
        seconds = sum(point["seconds"] for point in curves)
        return {
            "probabilities": [p.tolist() for p in self.trainer.rule.probabilities()],
            "snapshots": self.trainer.snapshot_steps,
            "images_per_s": (self.plan.end - self.plan.begin) * self.plan.training.batch_size / seconds,
        }


def train_supernets(
    plan: Plan, arrays: Mapping[str, NDArray[Any]], run: Folder, report: Progress, note: Callable[[str], None]
) -> None:
    """Train every supernet of a plan that the folder does not hold yet, as many at a time as there is room for.

    Those that are made of others wait for them: partitions for the split that follows their joint warm-up.
    """
    data = ray.put(arrays)
    at_work: set[str] = set()

    async def train() -> None:
        tasks: dict[str, asyncio.Task[None]] = {}

        def make(file: str, work: Callable[[], Awaitable[None]], *needs: str) -> None:
            if file not in tasks and not run.exists(file):
                tasks[file] = asyncio.create_task(_after([tasks[one] for one in needs if one in tasks], work))

        for one in plan.supernets:  # each stands behind those that it needs
            own = partial(train_supernet, one, plan.config, data, run, report, note, at_work)
            if one.split is None:
                make(state_file(one.id), own)
            elif one.part is not None:
                deciding = partial(decide_split, one, plan.config, data, run, at_work)
                make(one.split.file, deciding, state_file(one.split.warm_up))
                make(state_file(one.id), own, one.split.file)
            else:
                make(state_file(one.id), partial(_join, one, plan, run), *map(state_file, one.parts))
        await asyncio.gather(*tasks.values())

    asyncio.run(train())


async def _after(needs: Sequence[asyncio.Task[None]], work: Callable[[], Awaitable[None]]) -> None:
    await asyncio.gather(*needs)
    await work()


async def _join(one: SupernetPlan, plan: Plan, run: Folder) -> None:
    join_parts(one, plan, run, _untrained(one))


def _untrained(plan: SupernetPlan) -> dict[str, Any]:
    """What state.json says of a supernet whose training has not begun."""
    return {
        "id": plan.id,
        "label": plan.label,
        "rule": plan.rule,
        "seed": plan.seed,
        "steps": plan.end - plan.begin,
        "settings": {**plan.training.model_dump(), **plan.rule_settings},
        "partitions": None if plan.split is None else plan.split.settings.model_dump(),
        "failure": None,
        "probabilities": None,
        "snapshots": [],
        "images_per_s": None,
    }


async def train_supernet(
    plan: SupernetPlan,
    config: Config,
    data: ray.ObjectRef,
    run: Folder,
    report: Progress,
    note: Callable[[str], None],
    at_work: set[str],
) -> None:
    """Train one supernet on a shard of its own and write its files; a diverged one is written down as failed.

    note: told if there is no room for the shard, unless others of the run are `at_work`, which it joins.
    """
    state = _untrained(plan)
    if plan.split is not None:
        warm_up = run.read_json(state_file(plan.split.warm_up))
        if warm_up["failure"] is not None:
            run.write_json(
                state_file(plan.id), state | {"failure": f"goes on from {warm_up['label']}, which {warm_up['failure']}"}
            )
            return
    one = bundle(plan.training.cpus_per_replica, plan.training.gpus_per_replica)
    bundles = [one] * plan.training.replicas
    group = placement_group(bundles, strategy="PACK")
    try:
        placed, alone = asyncio.ensure_future(group.ready()), 0
        while not (await asyncio.wait({placed}, timeout=PATIENCE_S))[0]:
            alone = 0 if at_work else alone + 1
            if alone == 2:  # not only for a moment between two others
                note(
                    f"training supernet {plan.label} waits for {words(total(bundles))}: there is no room for it in the "
                    "cluster now."
                )
                break
        await placed
        at_work.add(plan.id)
        state |= await _train(plan, config, data, run, group, report)
    except (ray.exceptions.RayTaskError, DivergenceError) as fault:
        if not isinstance(reason := cause(fault), DivergenceError):
            raise
        state["failure"] = f"diverged: {reason}; lower the learning rate of this supernet's training"
    finally:
        at_work.discard(plan.id)
        remove_placement_group(group)
    run.write_json(state_file(plan.id), state)


async def _train(
    plan: SupernetPlan, config: Config, data: ray.ObjectRef, run: Folder, group: PlacementGroup, report: Progress
) -> dict[str, Any]:
    """Train to the end through any number of deaths, each answered by a new group from the newest checkpoint."""
    folder = run / f"supernets/{plan.id}"
    deaths, furthest = 0, -1
    while True:
        replicas = _start(plan, config, data, run, group)
        try:
            return await _run(plan, replicas, report)
        except (*DEATHS, ray.exceptions.RayTaskError) as fault:
            if not _is_death(fault):
                raise
            step = 0
            if folder.exists(CHECKPOINT):
                step = int(load_state(folder, CHECKPOINT)["step"])
            deaths = deaths + 1 if step <= furthest else 1
            furthest = max(furthest, step)
            if deaths > MOST_DEATHS:
                raise
        finally:
            for replica in replicas:
                ray.kill(replica)


def _start(plan: SupernetPlan, config: Config, data: ray.ObjectRef, run: Folder, group: PlacementGroup) -> list[Any]:
    actor = ray.remote(Replica).options(
        num_cpus=plan.training.cpus_per_replica,
        num_gpus=plan.training.gpus_per_replica,
        scheduling_strategy=PlacementGroupSchedulingStrategy(group),
    )
    return [actor.remote(plan, config, data, run) for _ in range(plan.training.replicas)]


async def _run(plan: SupernetPlan, replicas: list[Any], report: Progress) -> dict[str, Any]:
    await asyncio.gather(*(one.__ray_ready__.remote() for one in replicas))  # a node may take long to start
    address, port = await replicas[0].address.remote()
    joins = [one.join.remote(rank, len(replicas), address, port) for rank, one in enumerate(replicas)]
    for step in await asyncio.gather(*joins):
        report(plan.label, step - plan.begin, {})
    queue = deque([[one.advance.remote() for one in replicas] for _ in range(IN_FLIGHT)])
    while True:
        point, *_ = await asyncio.gather(*queue.popleft())  # raises the first failure of any replica
        if point is None:
            return await replicas[0].publish.remote()  # type: ignore[no-any-return]
        report(plan.label, point["step"] - plan.begin, {"loss": point["loss"], "images/s": point["images_per_s"]})
        queue.append([one.advance.remote() for one in replicas])


def _is_death(fault: Exception) -> bool:
    """Whether a replica died, or its device broke, or it lost a partner, of whose death Ray may tell later."""
    return isinstance(fault, DEATHS) or lost_partner(cause(fault)) or breaks_process(cause(fault))
