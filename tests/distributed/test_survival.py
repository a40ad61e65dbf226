"""kill -9 of the driver, of actors and of trials, at several stages: the same files as an undisturbed run.

The undisturbed one has another number of evaluation workers, so that this is held to change nothing as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq
import pytest
import tomli_w

from raynas.run import settings_of
from tests.distributed.processes import actors, end_session, kill, needs_proc
from tests.helpers import small_config

pytestmark = needs_proc
DEADLINE_S = 600
RUN_S = 300.0
"""Far more than a run needs on a busy machine."""
EVALUATIONS = 24
CONFIG = small_config(
    training={"steps": 40, "batch_size": 32},
    evaluation={"costs": ("parameters", "macs", "tests.distributed.slow_cost")},
    search={"evaluations": EVALUATIONS, "batch_size": 4},
    retraining={"epochs": 3, "calibration": 1},
    members=[
        {"method": "random_search"},
        {
            "method": "regularized_evolution",
            "training_rule": "fair",
            "settings": {"population_size": 8, "tournament_size": 3},
            "training": {"steps": 20},
        },
        {"method": "parsec", "rule_settings": {"samples": 2}},
    ],
)
MEMBERS = ("random_search", "regularized_evolution", "parsec")


class Driver:
    """`raynas search` as a user runs it, with a Ray of its own on two CPUs."""

    def __init__(self, place: Path, name: str, *arguments: str, cpus: int = 2) -> None:
        config = place / "config.toml"
        config.write_text(tomli_w.dumps(settings_of(CONFIG)))
        self.run = place / "runs" / name
        self.log: IO[Any] = (place / f"{name}.log").open("a")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "raynas.cli",
                "search",
                config,
                "--storage",
                place / "runs",
                "--name",
                name,
                *arguments,
            ],
            start_new_session=True,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "RAY_TMPDIR": str(place),
                "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": cpus, "object_store_memory": 200 << 20}),
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
            },
        )

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        end_session(self.process.pid)
        self.log.close()

    def finish(self) -> None:
        """Wait for the end, which must be a good one."""
        code = self.process.wait(RUN_S)
        assert code == 0, Path(self.log.name).read_text()

    def kill(self, when: Callable[[], bool]) -> None:
        """SIGKILL the driver itself, and leave the rest as it is."""
        kill(lambda: [self.process.pid], lambda: self._lives() and when(), within_s=RUN_S)
        self.process.wait(60)

    def kill_actors(self, name: str, when: Callable[[], bool]) -> None:
        """SIGKILL the actors of a class that this driver's Ray runs."""
        kill(lambda: actors(self.process.pid, name), lambda: self._lives() and when(), within_s=RUN_S)

    def training(self) -> bool:
        """Whether a supernet is between its first checkpoint and its end, and none has ended."""
        supernets = list(self.run.glob("supernets/*"))
        return any((one / "checkpoint.safetensors").exists() for one in supernets) and not any(
            (one / "weights.safetensors").exists() for one in supernets
        )

    def searching(self, least: int = 1) -> bool:
        """Whether the members have `least` evaluations together, and at least one of them is to search on."""
        counts = [len(rows(self.run, member)) for member in MEMBERS]
        return sum(counts) >= least and min(counts) < EVALUATIONS

    def retraining(self) -> bool:
        """Whether a network has been trained from scratch for an epoch at least, and not to its end."""
        places = [*self.run.glob("finalists/*"), *self.run.glob("calibration/*")]
        return any((one / "checkpoint.safetensors").exists() for one in places) and not any(
            (one / "result.json").exists() for one in places
        )

    def _lives(self) -> bool:
        assert self.process.poll() is None, Path(self.log.name).read_text()
        return True


def rows(run: Path, member: str) -> list[dict[str, Any]]:
    """A member's evaluations so far."""
    path = run / f"evaluations/{member}.parquet"
    return pq.read_table(path).to_pylist() if path.exists() else []


def evaluated(run: Path) -> dict[str, list[dict[str, Any]]]:
    """All evaluations so far."""
    return {member: rows(run, member) for member in MEMBERS}


def keeps(run: Path, before: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether what was evaluated before is still there, and was not measured again: the seconds are those of then."""
    assert any(before.values())
    return all(rows(run, member)[: len(one)] == one for member, one in before.items())


def outcome(run: Path) -> dict[str, Any]:
    """All of a run that must not depend on what happened to it."""
    files = ["ranking.parquet", "agreement.json", "gap.json"]
    files += [str(path.relative_to(run)) for path in run.glob("*/*/weights.safetensors")]
    columns = ("index", "architecture", "canonical", "loss", "error", *CONFIG.evaluation.costs, "failure")
    return {name: (run / name).read_bytes() for name in sorted(files)} | {
        member: [[row[column] for column in columns] for row in rows(run, member)] for member in MEMBERS
    }


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with a short name, as Ray's sockets need."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> dict[str, Any]:
    """With two evaluation workers where the others have one: that too must not change a byte."""
    with Driver(place, "undisturbed", "--set", "evaluation.workers=2", cpus=3) as driver:
        driver.finish()
    found = outcome(driver.run)
    assert [len(found[member]) for member in MEMBERS] == [EVALUATIONS] * 3
    assert len(found) == 3 + 3 + 2 + 3, "ranking, agreement, gap, supernets, networks from scratch, members"
    return found


def test_a_driver_killed_at_three_stages_continues_to_the_same_ranking(
    place: Path, undisturbed: dict[str, Any]
) -> None:
    """What its Ray leaves behind is not cleaned up between the attempts: a user would not."""
    with ExitStack() as attempts:
        first = attempts.enter_context(Driver(place, "driver"))
        first.kill(first.training)
        second = attempts.enter_context(Driver(place, "driver"))
        second.kill(second.searching)
        before = evaluated(second.run)
        third = attempts.enter_context(Driver(place, "driver"))
        third.kill(third.retraining)
        last = attempts.enter_context(Driver(place, "driver"))
        last.finish()
    assert outcome(last.run) == undisturbed
    assert keeps(last.run, before)


def test_actors_and_trials_killed_at_every_stage_change_nothing(place: Path, undisturbed: dict[str, Any]) -> None:
    with Driver(place, "others") as driver:
        driver.kill_actors("Replica", driver.training)
        driver.kill_actors("ImplicitFunc", driver.searching)
        before = evaluated(driver.run)
        driver.kill_actors("EvaluatorWorker", lambda: driver.searching(12))
        driver.kill_actors("Selector", lambda: driver.searching(20))
        driver.kill_actors("EvaluatorPool", lambda: driver.searching(28))
        driver.kill_actors("ImplicitFunc", lambda: driver.searching(40))
        driver.kill_actors("ImplicitFunc", driver.retraining)
        driver.finish()
    assert outcome(driver.run) == undisturbed
    assert keeps(driver.run, before)
