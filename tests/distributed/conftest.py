"""One small Ray for the tests that need actors but no driver of their own; and no test that hangs."""

from __future__ import annotations

import logging
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest
import ray

DEADLINE_S = 600
"""Far more than a test needs on a busy machine; a module may set its own."""


@pytest.fixture(autouse=True)
def deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    """A call to Ray that never returns fails its test instead of hanging; Ray lets signals through while it waits."""
    seconds = getattr(request.module, "DEADLINE_S", DEADLINE_S)

    def give_up(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    """A local Ray with two CPUs, whatever the machine has; gone before other tests ask for an address of their own."""
    place = tempfile.mkdtemp(prefix="r", dir="/tmp")  # sockets must have short names
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=place,
    )
    yield
    ray.shutdown()
    shutil.rmtree(place, ignore_errors=True)
