"""Tests share two cores with Ray's workers: one torch thread each."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, to be read; who changes it copies it first."""
    from tests.finished_run import make_finished_run  # here, as torch takes seconds

    return make_finished_run(tmp_path_factory.mktemp("runs"), "finished")
