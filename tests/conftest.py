"""Tests share two cores with Ray's workers: one torch thread each, and two groups of those that start clusters."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.driver import Driver

SEARCHES = ("tests/distributed/test_survival.py", "tests/test_pipeline.py")
"""Whose tests share one undisturbed search."""
CLUSTERS = ("tests/distributed/", "tests/test_jobs.py", "::test_on_ray")
"""Whose tests start other clusters: one after the other, as more than two at a time starve each other."""
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # or else the other of pytest's processes comes first


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep each group of tests with Ray in one process; any other test goes to whichever is free (`pytest -n 2`)."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupsOfRay(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            groups = {"searches": SEARCHES, "clusters": CLUSTERS}
            return next((name for name, parts in groups.items() if any(part in nodeid for part in parts)), nodeid)

    return GroupsOfRay(config, log)


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
