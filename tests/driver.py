"""`raynas search` in a process of its own, with a Ray of its own, as a user runs it on a machine with two CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from raynas import config
from raynas.costs.parameters import parameters
from raynas.data import load
from raynas.plan import build_supernet
from search_spaces.nas_bench_201 import SPACE
from tests.distributed.processes import actors, end_session, kill

EVALUATIONS = 16
MEMBERS = ("random_search", "nsga2", "parsec")
SETTINGS: dict[str, Any] = {
    "space": {"name": "nas_bench_201", "settings": {"channels": 4, "cells_per_stage": 1}},
    "training": {"steps": 40, "batch_size": 32, "snapshots": 1, "checkpoint_every_s": 0.0},
    "evaluation": {
        "images": 64,
        "batch_size": 40,
        "workers": 1,
        "costs": ["parameters", "macs", "tests.distributed.slow_cost"],
    },
    "search": {"evaluations": EVALUATIONS, "batch_size": 4, "cpus_per_member": 0.5},
    "selector": {"leaders": 6, "finalists": 2, "proxies": ["zico"], "short_epochs": [0.5, 2]},
    "retraining": {"epochs": 2, "calibration": 3},
    "members": [
        {"method": "nsga2", "settings": {"population_size": 6}},
        {"method": "parsec", "rule_settings": {"samples": 2}, "training": {"steps": 20}},
    ],
}
"""Two members share a supernet; a limit is set beside these, which rejects about every other architecture."""
RUN_S = 300.0
"""Far more than a run needs on a busy machine."""


class Driver:
    """A search in `place/runs/name`, which is killed, or killed in part, at moments of its choice."""

    def __init__(self, place: Path, name: str, *arguments: str, cpus: int = 2) -> None:
        self.toml = place / "config.toml"
        self.toml.write_text(tomli_w.dumps({**SETTINGS, "constraints": {"parameters": _limit()}}))
        self.arguments = [str(self.toml), "--storage", str(place / "runs"), "--name", name, *arguments]
        self.run = place / "runs" / name
        self.printed = place / f"{name}.log"
        self.log: IO[Any] = self.printed.open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raynas.cli", "search", *self.arguments],
            start_new_session=True,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "RAY_TMPDIR": str(place),
                "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": cpus, "object_store_memory": 200 << 20}),
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
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
        assert code == 0, self.printed.read_text()

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
        counts = [sum(row["failure"] is None for row in rows(self.run, member)) for member in MEMBERS]
        return sum(counts) >= least and min(counts) < EVALUATIONS

    def racing(self) -> bool:
        """Whether candidates are in their short trainings: the stage before has ended, and they are not on file."""
        timings = self.run / "timings.json"
        return (
            timings.exists() and '"ranking"' in timings.read_text() and not (self.run / "candidates.parquet").exists()
        )

    def retraining(self) -> bool:
        """Whether a network has been trained from scratch for an epoch at least, and not to its end."""
        places = [*self.run.glob("finalists/*"), *self.run.glob("calibration/*")]
        return any((one / "checkpoint.safetensors").exists() for one in places) and not any(
            (one / "result.json").exists() for one in places
        )

    def _lives(self) -> bool:
        assert self.process.poll() is None, self.printed.read_text()
        return True


def rows(run: Path, member: str) -> list[dict[str, Any]]:
    """A member's evaluations so far."""
    path = run / f"evaluations/{member}.parquet"
    if not path.exists():
        return []
    return pq.read_table(pa.BufferReader(path.read_bytes())).to_pylist()  # type: ignore[no-any-return]  # it is replaced


@cache
def _limit() -> float:
    """The median of the parameters."""
    dataset = load("digits")
    predict = parameters(build_supernet(config.check(SETTINGS), dataset, seed=0), dataset.image_shape_CHW)
    rng = np.random.default_rng(0)
    return float(np.median([predict(SPACE.canonicalise(SPACE.sample(rng))) for _ in range(200)]))
