"""Connecting to Ray, and what is refused before anything starts."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from raynas.distributed import cluster as module
from raynas.distributed.cluster import Bundle, bundle, connect, evaluation_workers, fits, require, require_shared
from raynas.errors import UserError
from raynas.plan import make_plan
from raynas.storage import Folder
from tests.helpers import small_config


def test_bundles_fit_where_each_has_a_node_with_room() -> None:
    nodes: list[Bundle] = [{"CPU": 2, "GPU": 1}, {"CPU": 1, "GPU": 0}]
    assert fits([bundle(1)] * 3, nodes)
    assert not fits([bundle(1)] * 4, nodes)
    assert not fits([bundle(3)], nodes), "three CPUs on two nodes are not three on one"
    assert fits([bundle(1, 1), bundle(1), bundle(1)], nodes)
    assert not fits([bundle(1, 1)] * 2, nodes)
    assert fits([bundle(0.5, 0.5)] * 2 + [bundle(1)] * 2, nodes)


@pytest.mark.parametrize(("count", "share", "gpus"), [(20, 0.2, 4), (20, 0.05, 1)])
def test_shares_of_gpus_fit_whatever_their_binary_fractions(count: int, share: float, gpus: int) -> None:
    """0.2 taken 19 times from 4 leaves a little less than 0.2."""
    nodes: list[Bundle] = [{"CPU": 64, "GPU": gpus}]
    assert fits([bundle(1, share)] * count, nodes)
    assert not fits([bundle(1, share)] * (count + 1), nodes)


def test_the_largest_bundle_is_placed_first() -> None:
    """Placed in the order given, the small one would take the place of the large one."""
    assert fits([bundle(1), bundle(2)], [{"CPU": 2}, {"CPU": 1}])
    assert fits([bundle(1), bundle(1, 1)], [{"CPU": 1, "GPU": 1}, {"CPU": 1}])


def test_fitting_changes_neither_bundles_nor_nodes() -> None:
    bundles, nodes = [bundle(1), bundle(1, 1)], [{"CPU": 2.0, "GPU": 1.0}]
    assert fits(bundles, nodes) and fits(bundles, nodes)
    assert nodes == [{"CPU": 2.0, "GPU": 1.0}]


@pytest.mark.parametrize(
    ("nodes", "changes", "workers"),
    [
        ([{"CPU": 2}], {}, 1),  # a whole CPU is left to the members ...
        ([{"CPU": 8}], {}, 7),
        ([{"CPU": 4}, {"CPU": 4}], {}, 7),
        ([{"CPU": 0}, {"CPU": 4}], {}, 3),  # a head that takes no work
        ([{"CPU": 5}, {"CPU": 4}], {"evaluation": {"cpus_per_worker": 2}}, 4),  # ... where that costs least
        ([{"CPU": 8, "GPU": 2}, {"CPU": 4, "GPU": 0}], {"evaluation": {"gpus_per_worker": 0.5}}, 4),
        ([{"CPU": 8, "GPU": 1}], {"evaluation": {"gpus_per_worker": 0.1}}, 7),
        ([{"CPU": 8, "GPU": 1}], {"evaluation": {"gpus_per_worker": 0.2}}, 5),  # 1 // 0.2 is 4 in binary fractions
        ([{"CPU": 2}], {"search": {"cpus_per_member": 2}}, 1),
        ([{"CPU": 8}], {"search": {"cpus_per_member": 2}}, 6),
        ([{"CPU": 64}], {}, 8),  # two members that ask for four at a time: more would be idle
        ([{"CPU": 2}], {"evaluation": {"workers": 5}}, 5),  # as configured; `require` says whether it fits
    ],
)
def test_one_evaluator_for_every_slot_that_the_members_leave(
    nodes: list[Bundle], changes: dict[str, Any], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_nodes", lambda: [{"CPU": 0.0, "GPU": 0.0, **node} for node in nodes])
    config = small_config(**{**changes, "evaluation": {"workers": None, **changes.get("evaluation", {})}})
    assert len(config.members) == 2
    assert evaluation_workers(config) == workers


def test_as_many_evaluators_as_are_started_fit_beside_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(evaluation={"workers": None})
    for cpus in range(2, 12):
        nodes: list[Bundle] = [{"CPU": float(cpus), "GPU": 0.0}]
        monkeypatch.setattr(module, "_nodes", lambda nodes=nodes: nodes)
        workers = evaluation_workers(config)
        assert fits([bundle(1)] * workers + [bundle(config.search.cpus_per_member)], nodes)


REFUSED = [
    (
        {"training": {"replicas": 4}},
        "training supernet uniform needs 4 CPUs (4 replicas x 1 CPU), but the cluster has 2 CPUs on 1 node(s); lower "
        "training.replicas or training.cpus_per_replica, add nodes, or set cluster.wait_s for a cluster that grows.",
    ),
    (
        {"training": {"gpus_per_replica": 1}},
        "needs 1 CPU and 1 GPU (1 replicas x 1 CPU and 1 GPU), but the cluster has 2 CPUs on 1 node(s); lower "
        "training.gpus_per_replica, add nodes,",
    ),
    (
        {"evaluation": {"workers": 2}},
        "the population needs 2.25 CPUs (2 evaluation workers x 1 CPU + at least one of 2 members x 0.25 CPUs",
    ),
    (
        {"evaluation": {"workers": 2, "gpus_per_worker": 0.5}},
        "; lower evaluation.workers or evaluation.cpus_per_worker or search.cpus_per_member or evaluation.gpus_per_wor",
    ),
    ({"search": {"cpus_per_member": 2}}, "the population needs 3 CPUs"),
    ({"retraining": {"cpus_per_trial": 3}}, "retraining needs 3 CPUs (1 trial x 3 CPUs"),
    ({"retraining": {"gpus_per_trial": 1}}, "; lower retraining.gpus_per_trial, add nodes"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_cannot_fit_is_refused_with_the_arithmetic(cluster: None, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refusal:
        require(make_plan(small_config(**changes)))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_fits_is_not_refused(cluster: None) -> None:
    require(make_plan(small_config(training={"replicas": 2})))


def test_the_autoscaler_is_asked_for_what_lacks_and_then_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster grows by a CPU a second: training 3 replicas fits before 3 evaluators and a member do."""
    asked: list[list[Bundle]] = []
    cpus = iter(range(2, 9))
    size = [next(cpus)]
    monkeypatch.setattr(module, "_nodes", lambda: [{"CPU": float(size[0]), "GPU": 0.0}])
    monkeypatch.setattr(module, "_request", lambda bundles: asked.append(list(bundles)))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: size.__setitem__(0, next(cpus)))
    config = small_config(
        training={"replicas": 3, "batch_size": 30}, evaluation={"workers": 3}, cluster={"wait_s": 60.0}
    )
    require(make_plan(config))
    assert asked == [[{"CPU": 1}] * 3, [{"CPU": 1}] * 3 + [{"CPU": 0.25}], []]
    assert size[0] == 4


def test_a_request_to_the_autoscaler_is_taken_back_when_the_wait_was_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Bundle]] = []
    clock = iter(range(1000))
    monkeypatch.setattr(module, "_nodes", lambda: [{"CPU": 2.0, "GPU": 0.0}])
    monkeypatch.setattr(module, "_request", lambda bundles: asked.append(list(bundles)))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(UserError, match="needs 4 CPUs"):
        require(make_plan(small_config(training={"replicas": 4}, cluster={"wait_s": 5.0})))
    assert asked == [[{"CPU": 1}] * 4, []], "one request for one want, however long the wait"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_an_address_without_a_cluster_is_told_in_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "raynas.cli", "search", "--storage", str(tmp_path), "--address", "here"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("raynas: cannot reach a Ray cluster at here:")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "no-such-host.invalid:6379", "127.0.0.1:70000"]
)
def test_a_place_where_nobody_listens_is_told_before_ray_tries(
    address: str, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself tries for minutes."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match=r"cannot reach a Ray cluster at .*leave --address out"):
        connect(address.format(port=closed_port))


FAULTS = [
    (
        RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.1\nThis process was started with:\n"),
        "Version mismatch: The cluster was started with: Ray: 2.1 This process was started with:; start one",
    ),
    (RuntimeError("Failed to connect to GCS. Last connection error: timed out"), "Failed to connect to GCS. Last conn"),
    (ray.exceptions.AuthenticationError("no token was found"), "no token was found. "),
]


@pytest.fixture(params=FAULTS, ids=lambda fault: type(fault[0]).__name__)
def refusing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Exception, str]:
    """What Ray raises when it is asked to join, and what is to be told of it."""
    fault: Exception = request.param[0]

    def init(**_: Any) -> None:
        raise fault

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    return fault, request.param[1]


def test_a_cluster_that_cannot_be_joined_is_told_in_one_line(refusing: tuple[Exception, str]) -> None:
    with pytest.raises(UserError) as told:
        connect("here")
    assert str(told.value).startswith(f"cannot reach a Ray cluster at here: {refusing[1]}")
    assert "\n" not in str(told.value)


def test_a_ray_that_does_not_start_on_this_machine_is_no_mistake_of_the_user(refusing: tuple[Exception, str]) -> None:
    with pytest.raises(type(refusing[0])) as raised:
        connect("local")
    assert raised.value is refusing[0]


def test_a_machine_too_busy_to_start_ray_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup. This could happen because some of the raylet ...")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match=r"^Ray did not start on this machine within half a minute"):
        connect("local")


def test_a_scheduler_that_ends_the_driver_is_as_a_user_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        connect("local")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


class OnOneDisk(Folder):
    """A folder that is another one in every other process, as on a disk that nodes do not share."""

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (f"{self.location}/of_another_node",)


@pytest.fixture
def two_nodes(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node there is, listed twice."""
    monkeypatch.setattr(module, "_alive", lambda: [node for node in ray.nodes() if node["Alive"]] * 2)


def test_a_folder_that_nodes_do_not_share_is_refused(two_nodes: None, tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        require_shared(OnOneDisk(str(tmp_path)))
    assert f"but {ray.util.get_node_ip_address()} does not see what this machine writes to {tmp_path};" in str(
        told.value
    )
    assert list(tmp_path.iterdir()) == [], "the probe is removed"


def test_a_folder_that_nodes_share_is_taken(two_nodes: None, tmp_path: Path) -> None:
    require_shared(Folder(str(tmp_path)))
    assert list(tmp_path.iterdir()) == [], "the probe is removed"


def test_a_node_that_has_died_by_now_is_not_asked(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = {"NodeID": "a" * 56, "NodeManagerAddress": "192.0.2.9"}
    monkeypatch.setattr(module, "_alive", lambda: [dead, *ray.nodes()])
    require_shared(Folder(str(tmp_path)))


def test_on_one_node_nothing_is_written(cluster: None, tmp_path: Path) -> None:
    require_shared(Folder(str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
