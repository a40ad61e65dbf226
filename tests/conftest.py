"""Tests share two cores with Ray's workers: one torch thread each, and one of pytest's workers with all of Ray."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.driver import Driver

RAY = ("tests/distributed/", "tests/test_pipeline.py", "tests/test_jobs.py", "::test_on_ray")
"""Whose tests start clusters: one after the other, as two at a time starve each other on two cores."""
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests with Ray in one process; each other test goes to whichever process is free (`pytest -n 2`)."""
    from xdist.scheduler import LoadScopeScheduling

    class RayTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "ray" if any(part in nodeid for part in RAY) else nodeid

    return RayTogether(config, log)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, to be read; who changes it copies it first."""
    from tests.finished_run import make_finished_run  # here, as torch takes seconds

    return make_finished_run(tmp_path_factory.mktemp("runs"), "finished")


@pytest.fixture(scope="session")
def place_of_runs() -> Iterator[Path]:
    """A folder with a short name, as Ray's sockets need, for searches with a Ray of their own."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def undisturbed(place_of_runs: Path) -> "Driver":
    """A whole search that nothing happened to, with two evaluation workers; who changes its folder copies it first."""
    from tests.driver import Driver

    with Driver(place_of_runs, "undisturbed", "--set", "evaluation.workers=2", cpus=3) as driver:
        driver.finish()
    return driver
