"""Shards: replicas that are killed are replaced, and the weights are those of an undisturbed run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group

from raynas.checkpoint import CHECKPOINT, load_weights
from raynas.data import load
from raynas.distributed import shards
from raynas.distributed.shards import MOST_DEATHS, Replica, train_supernet, train_supernets
from raynas.errors import UserError
from raynas.plan import make_plan
from raynas.storage import Folder
from raynas.training_rule import DivergenceError
from tests.distributed.processes import actors, kill, needs_proc
from tests.helpers import make_trainer, rule_plan, small_config

STEPS = 10
"""A third of an epoch of digits in batches of 32."""


@pytest.fixture(scope="module")
def data(cluster: None) -> ray.ObjectRef:
    return ray.put(load("digits").to_numpy())


def silent(task: str, done: float, facts: dict[str, float]) -> None:
    """A progress that nobody looks at."""


@needs_proc
def test_replicas_killed_in_mid_epoch_are_replaced_and_the_weights_are_those_of_an_undisturbed_run(
    data: ray.ObjectRef, tmp_path: Path
) -> None:
    config = small_config(training={"steps": STEPS, "replicas": 2})
    plan, supernet = rule_plan("uniform", config)
    whole, broken = Folder(str(tmp_path / "whole")), Folder(str(tmp_path / "broken"))
    asyncio.run(train_supernet(supernet, plan.config, data, whole, silent, print, set()))
    killed: list[int] = []
    begun: list[float] = []

    def disturb(task: str, done: float, facts: dict[str, float]) -> None:
        if not facts:  # a replica that joins its group tells where it stands
            begun.append(done)
        if len(killed) == 0 or (len(killed) == 1 and done == 4):  # before the first checkpoint, and after the fourth
            replicas = actors(os.getpid(), "Replica")
            assert len(replicas) == 2
            killed.extend(kill(lambda: [replicas[len(killed)]], lambda: True))

    asyncio.run(train_supernet(supernet, plan.config, data, broken, disturb, print, set()))
    assert len(killed) == 2
    weights = f"supernets/{supernet.id}/weights.safetensors"
    assert whole.read(weights) == broken.read(weights)
    assert begun == [0, 0, 0, 0, begun[-1], begun[-1]] and begun[-1] >= 3, "the third group goes on from a checkpoint"
    curves = [folder.read_table(f"supernets/{supernet.id}/curves.parquet").to_pylist() for folder in (whole, broken)]
    assert [[point["loss"] for point in curve] for curve in curves] == [[point["loss"] for point in curves[0]]] * 2
    assert [point["step"] for point in curves[1]] == list(range(1, STEPS + 1)), "no step counted twice"


def test_one_replica_trains_what_a_bare_trainer_trains(data: ray.ObjectRef, tmp_path: Path) -> None:
    config = small_config(training={"averaging": 0.5, "snapshots": 1})
    plan, supernet = rule_plan("parsec", config, samples=2)
    asyncio.run(train_supernet(supernet, plan.config, data, Folder(str(tmp_path)), silent, print, set()))
    bare = make_trainer("parsec", config, samples=2)
    while bare.step < supernet.training.steps:
        bare.advance()
        if bare.step == 10:
            late = {name: value.clone() for name, value in bare.weights().items()}
    folder = Folder(str(tmp_path)) / f"supernets/{supernet.id}"
    weights = load_weights(folder, "weights.safetensors")
    assert weights.keys() == bare.weights().keys()
    assert all(value.equal(weights[name]) for name, value in bare.weights().items())
    state = folder.read_json("state.json")
    assert state["failure"] is None
    assert state["snapshots"] == [10]
    snapshot = load_weights(folder, "snapshot-10.safetensors")
    assert all(value.equal(snapshot[name]) for name, value in late.items())
    assert state["probabilities"] == [p.tolist() for p in bare.rule.probabilities()]


def test_a_diverging_supernet_is_written_down_as_failed_and_the_others_are_trained(
    cluster: None, tmp_path: Path
) -> None:
    config = small_config(
        members=[
            {"method": "random_search", "training": {"learning_rate": 1e30}},
            {"method": "regularized_evolution"},
        ]
    )
    plan, run = make_plan(config), Folder(str(tmp_path))
    train_supernets(plan, load("digits").to_numpy(), run, silent, print)
    diverged, trained = (run.read_json(f"supernets/{one.id}/state.json") for one in plan.supernets)
    assert diverged["failure"].startswith("diverged: the loss is ")
    assert not run.exists(f"supernets/{diverged['id']}/weights.safetensors")
    assert trained["failure"] is None
    assert run.exists(f"supernets/{trained['id']}/weights.safetensors")


@pytest.mark.parametrize(("at_work", "told"), [(set(), 1), ({"another"}, 0)])
def test_a_shard_that_gets_no_room_is_told_unless_others_of_the_run_are_at_work(
    at_work: set[str], told: int, data: ray.ObjectRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PATIENCE_S", 0.1)
    plan, supernet = rule_plan("uniform", small_config(training={"steps": 2, "cpus_per_replica": 2}))
    taken = placement_group([{"CPU": 1}])
    ray.get(taken.ready())
    noted: list[str] = []

    async def train() -> None:
        training = asyncio.create_task(
            train_supernet(supernet, plan.config, data, Folder(str(tmp_path)), silent, noted.append, at_work)
        )
        await asyncio.sleep(1)
        remove_placement_group(taken)
        await training

    asyncio.run(train())
    assert len(noted) == told
    assert all(one.startswith("training supernet uniform waits for 2 CPUs: there is no room") for one in noted)
    assert supernet.id not in at_work


def test_what_is_no_death_is_told_and_not_tried_again(data: ray.ObjectRef, tmp_path: Path) -> None:
    plan, supernet = rule_plan("uniform")
    run = Folder(str(tmp_path))
    run.write(f"supernets/{supernet.id}/{CHECKPOINT}", b"half a checkpoi")
    with pytest.raises(ray.exceptions.RayTaskError) as told:
        asyncio.run(train_supernet(supernet, plan.config, data, run, silent, print, set()))
    assert isinstance(told.value.cause, UserError)
    assert "delete the folder" in str(told.value.cause)
    assert not run.exists(f"supernets/{supernet.id}/state.json")


def step_of_a_user(fault: Exception) -> Callable[..., Any]:
    """What fails in a file of the user's own, for which this one stands."""

    def step(*_: Any, **__: Any) -> Any:
        raise fault

    return step


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Replica:
    """The only one of its group, in this process."""
    plan, supernet = rule_plan("uniform")
    run = Folder(str(tmp_path_factory.mktemp("replica")))
    one = Replica(supernet, plan.config, load("digits").to_numpy(), run)
    one.join(0, 1, "", 0)
    return one


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."),
            "training supernet uniform: CUDA out of memory. Tried to allocate 2.00 GiB; lower training.batch_size, or ",
        ),
        (RuntimeError("mat1 and mat2 cannot be multiplied"), "test_shards.py:"),
    ],
)
def test_too_little_memory_and_faults_of_the_users_own_are_told_to_the_user(
    fault: Exception, told: str, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica.trainer.rule, "step", step_of_a_user(fault))
    with pytest.raises(UserError) as mistake:
        replica.advance()
    assert told in str(mistake.value) and "\n" not in str(mistake.value)
    assert not shards._is_death(mistake.value)


def test_a_network_that_does_not_fit_a_gpu_is_told_when_it_is_built(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "build_supernet", step_of_a_user(torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(UserError, match=r"CUDA out of memory; lower training\.batch_size"):
        replica.join(0, 1, "", 0)


@pytest.mark.parametrize(
    "fault",
    [
        DivergenceError("the loss is nan"),
        UserError("mend it"),
        torch.distributed.DistNetworkError("Failed to recv, got 0 bytes."),
        RuntimeError("[/src/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"),
    ],
)
def test_a_lost_partner_is_no_fault_of_the_network_that_noticed_it(
    fault: Exception, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of the user's own meets it in the sums of its BatchNorm."""
    monkeypatch.setattr(replica.trainer.rule, "step", step_of_a_user(fault))
    with pytest.raises(type(fault)) as raised:
        replica.advance()
    assert raised.value is fault


@pytest.mark.parametrize(("progress", "starts"), [(0, MOST_DEATHS + 1), (1, None)])
def test_a_shard_is_given_up_only_when_it_dies_again_and_again_without_progress(
    progress: int, starts: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt dies; with progress the checkpoint is further each time, and at last it ends."""
    plan, supernet = rule_plan("uniform")
    attempts: list[int] = []

    async def run(*_: Any) -> dict[str, Any]:
        attempts.append(1)
        if len(attempts) > 5 * MOST_DEATHS:
            return {}
        raise ray.exceptions.ActorDiedError()

    class Checkpoints:
        def __truediv__(self, name: str) -> Checkpoints:
            return self

        def exists(self, name: str) -> bool:
            return True

    monkeypatch.setattr(shards, "_start", lambda *_: [])
    monkeypatch.setattr(shards, "_run", run)
    monkeypatch.setattr(shards, "load_state", lambda folder, name: {"step": progress * len(attempts)})
    if starts is None:
        assert asyncio.run(shards._train(supernet, plan.config, None, Checkpoints(), None, silent)) == {}
    else:
        with pytest.raises(ray.exceptions.RayActorError):
            asyncio.run(shards._train(supernet, plan.config, None, Checkpoints(), None, silent))
        assert len(attempts) == starts
