"""Connecting to Ray, and refusing what cannot fit before anything starts."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raynas.config import Config
from raynas.errors import UserError
from raynas.plan import Plan
from raynas.storage import Folder

Bundle = dict[str, float]

ROUNDING = 1e-9
"""What sums of shares such as 0.2 may be off by: Ray counts in ten-thousandths."""

LOOK_S = 120.0
"""Far more than a node needs to start a process and look for a file."""

UNREACHABLE = (OSError, ValueError, OverflowError, RuntimeError, ray.exceptions.RayError)
"""What connecting raises where there is no cluster, or no address."""

DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
"""What a call to an actor raises when its process is killed: the second, when Ray did so for want of memory."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The least that a stage needs at once: bundles, each of which must fit on one node.

    settings: what to lower where there are too few CPUs, and where too few GPUs.
    """

    stage: str
    bundles: tuple[Bundle, ...]
    arithmetic: str
    settings: Mapping[str, Sequence[str]]


def connect(address: str | None) -> None:
    """Join the cluster at `address`, the one named by RAY_ADDRESS, or start one on this machine."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables; raynas shows the progress
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # TensorBoard is asked for explicitly
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the run, not only the stage
    meant = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        _knock(meant)
        ray.init(
            address=meant,
            namespace=f"raynas-{uuid.uuid4().hex}",  # a driver that was killed may still hold its names for seconds
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({"include_dashboard": False} if meant == "local" else {}),
        )
    except UNREACHABLE as fault:
        if meant == "local":
            raise
        raise UserError(
            f"cannot reach a Ray cluster at {meant}: {' '.join(str(fault).split()).rstrip('.')}; "
            "start one with `ray start --head`, or leave --address out to run on this machine."
        ) from None
    except Exception as fault:  # Ray has no type for it
        if "timed out during startup" not in str(fault):
            raise
        raise UserError(
            "Ray did not start on this machine within half a minute, as where much else is at work; give the same "
            "command again when less is."
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C; Ray's own ends in a dump of the stack


def bundle(cpus: float, gpus: float = 0.0) -> Bundle:
    """What one actor or trial asks for."""
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def demands(plan: Plan) -> list[Demand]:
    """The least that each stage of a run needs at once."""
    config = plan.config
    found = []
    for supernet in plan.supernets:
        if supernet.parts:  # it is made of others
            continue
        training = supernet.training
        one = bundle(training.cpus_per_replica, training.gpus_per_replica)
        several = ("training.replicas",) if training.replicas > 1 else ()
        found.append(
            Demand(
                f"training supernet {supernet.label}",
                (one,) * training.replicas,
                f"{training.replicas} replicas x {words(one)}",
                {"CPU": (*several, "training.cpus_per_replica"), "GPU": (*several, "training.gpus_per_replica")},
            )
        )
    evaluation, search = config.evaluation, config.search
    worker, member = bundle(evaluation.cpus_per_worker, evaluation.gpus_per_worker), bundle(search.cpus_per_member)
    workers = evaluation.workers or 1
    several = ("evaluation.workers",) if workers > 1 else ()
    found.append(
        Demand(
            "the population",
            (worker,) * workers + (member,),
            f"{workers} evaluation workers x {words(worker)} + at least one of {len(plan.members)} members x "
            f"{words(member)}",
            {
                "CPU": (*several, "evaluation.cpus_per_worker", "search.cpus_per_member"),
                "GPU": (*several, "evaluation.gpus_per_worker"),
            },
        )
    )
    trial = bundle(config.retraining.cpus_per_trial, config.retraining.gpus_per_trial)
    settings = {"CPU": ("retraining.cpus_per_trial",), "GPU": ("retraining.gpus_per_trial",)}
    found.append(Demand("retraining", (trial,), f"1 trial x {words(trial)}", settings))
    return found


def require(plan: Plan) -> None:
    """Wait up to cluster.wait_s for room for every stage; raises UserError with the arithmetic where there is none."""
    deadline = time.monotonic() + plan.config.cluster.wait_s
    asked: Demand | None = None
    try:
        while lacking := next((one for one in demands(plan) if not fits(one.bundles, _nodes())), None):
            if time.monotonic() >= deadline:
                nodes = _nodes()
                raise UserError(
                    f"{lacking.stage} needs {words(total(lacking.bundles))} ({lacking.arithmetic}), but the cluster "
                    f"has {words(total(nodes))} on {len(nodes)} node(s); lower "
                    f"{' or '.join(_to_lower(lacking, nodes))}, add nodes, or set cluster.wait_s for a cluster that "
                    "grows."
                )
            if lacking != asked:  # a request replaces the one before
                _request(lacking.bundles)
                asked = lacking
            time.sleep(1.0)
    finally:
        if asked is not None:
            _request(())  # a request that stands would keep the cluster from shrinking again


def _to_lower(demand: Demand, nodes: Sequence[Bundle]) -> list[str]:
    """The settings of what there is too little of: CPUs, GPUs, or both."""

    def alone(bundles: Sequence[Bundle], kind: str) -> list[Bundle]:
        return [{"CPU": 0, kind: one.get(kind, 0)} for one in bundles]

    short = [kind for kind in demand.settings if not fits(alone(demand.bundles, kind), alone(nodes, kind))]
    return list(dict.fromkeys(setting for kind in short or demand.settings for setting in demand.settings[kind]))


def require_shared(folder: Folder) -> None:
    """Raises UserError if the folder is not the same on every node of a cluster of several."""
    nodes = _alive()
    if len(nodes) == 1:
        return
    probe = f".shared.{uuid.uuid4().hex}"
    folder.write(probe, b"")
    try:
        looks = [_look(node, folder, probe) for node in nodes]
        for node, look in zip(nodes, looks, strict=True):
            try:
                seen = ray.get(look, timeout=LOOK_S)
            except ray.exceptions.RayTaskError:
                raise
            except ray.exceptions.GetTimeoutError:
                where = node["NodeManagerAddress"]
                raise UserError(
                    f"node {where} of the cluster has run no task within {LOOK_S:g} s; mend it, or take it out."
                ) from None
            except ray.exceptions.RayError:  # the node has died by now
                continue
            if not seen:
                raise UserError(
                    f"expected a folder that all nodes share, but {node['NodeManagerAddress']} does not see what this "
                    f"machine writes to {folder.location}; name such a folder, or s3://BUCKET/FOLDER, by --storage."
                )
    finally:
        with contextlib.suppress(OSError):
            folder.filesystem.delete_file(f"{folder.root}/{probe}")


def _look(node: Mapping[str, Any], folder: Folder, name: str) -> ray.ObjectRef:
    """Let a node say whether it sees a file."""
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(Folder.exists).options(num_cpus=0, scheduling_strategy=there).remote(folder, name)


def _request(bundles: Sequence[Bundle]) -> None:
    """Ask the autoscaler for room for these, in place of what was asked for before."""
    from ray.autoscaler.sdk import request_resources  # here, as only who waits for a cluster to grow needs it

    request_resources(bundles=list(bundles))


def fits(bundles: Sequence[Bundle], nodes: Sequence[Bundle]) -> bool:
    """Whether the bundles can be placed on the nodes, the largest first, each on the first node with room."""
    free = [dict(node) for node in nodes]
    for wanted in sorted(bundles, key=lambda one: (one.get("GPU", 0), one["CPU"]), reverse=True):
        place = next(
            (node for node in free if all(node.get(key, 0) + ROUNDING >= much for key, much in wanted.items())), None
        )
        if place is None:
            return False
        for key, much in wanted.items():
            place[key] -= much
    return True


def evaluation_workers(config: Config) -> int:
    """How many evaluator actors to start: as configured, or one for every slot that the members leave.

    The members are left a CPU, or what they need if that is less. More evaluators than candidates that can be asked
    for at once would be idle.
    """
    if config.evaluation.workers is not None:
        return config.evaluation.workers
    one = bundle(config.evaluation.cpus_per_worker, config.evaluation.gpus_per_worker)
    members, search = len(config.members), config.search
    left = max(search.cpus_per_member, min(1.0, members * search.cpus_per_member))
    nodes = _nodes()
    lost = (
        _slots(node, one) - _slots({**node, "CPU": node["CPU"] - left}, one) for node in nodes if node["CPU"] >= left
    )
    slots = sum(_slots(node, one) for node in nodes) - min(lost, default=0)
    return max(1, min(slots, members * search.batch_size))


def cause(fault: BaseException) -> BaseException:
    """What was really raised in an actor or a task, without Ray's wrapping."""
    return fault.cause if isinstance(fault, ray.exceptions.RayTaskError) else fault


def total(bundles: Sequence[Bundle]) -> Bundle:
    """What several ask for together."""
    return {key: sum(one.get(key, 0.0) for one in bundles) for key in ("CPU", "GPU")}


def words(one: Bundle) -> str:
    """A bundle as people say it: `1 CPU and 2 GPUs`."""
    return " and ".join(f"{much:g} {key}{'s' if much != 1 else ''}" for key, much in one.items() if much) or "nothing"


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _nodes() -> list[Bundle]:
    return [{key: node["Resources"].get(key, 0.0) for key in ("CPU", "GPU")} for node in _alive()]


def _slots(node: Bundle, one: Bundle) -> int:
    """How many such bundles a node has room for."""
    return min(int(node.get(key, 0.0) / much + ROUNDING) for key, much in one.items())


def _knock(address: str) -> None:
    """Raises OSError where nothing listens at host:port, which Ray itself would try to reach for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


Progress = Callable[[str, float, dict[str, float]], None]
"""Told the name of a task, how far it is, and facts to show."""
