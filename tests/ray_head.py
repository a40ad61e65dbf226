"""A Ray cluster of a test's own, as `ray start` makes it: drivers join it from other processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

STARTS_WITHIN_S = 120.0
"""8 s on idle cores."""
ATTEMPTS = 3
"""Ray gives up where a node takes 30 s to register, as it may on a busy machine, or where a port was taken."""
PORTS = (
    *("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "ray-client-server-port"),
    *("metrics-export-port", "runtime-env-agent-port", "node-manager-port", "object-manager-port"),
)
"""A second cluster on this machine must meet the first at none of them."""


@dataclass(frozen=True)
class Head:
    """A head node on this machine's loopback; `environment` is for the processes that join it."""

    address: str
    dashboard: str
    temp: Path
    environment: dict[str, str]


@contextlib.contextmanager
def ray_head(cpus: int, token: str | None = None, *, dashboard: bool = True) -> Iterator[Head]:
    """A head node with so many CPUs, with a token's protection or none; all of its processes end with it.

    dashboard: whether it takes jobs.
    """
    temp = Path(tempfile.mkdtemp(prefix="rn", dir="/tmp"))  # a socket's path may have 107 bytes
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "token" if token else "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "HOME": str(temp),  # no token of the user's own
        **({"RAY_AUTH_TOKEN": token} if token else {}),
    }
    process, ports = None, dict[str, int]()
    try:
        for attempt in range(ATTEMPTS):
            ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
            log = temp / f"start{attempt}.log"
            process = _start(cpus, ports, temp, environment, log, dashboard)
            wait_until(partial(_has_started_or_failed, process, log), STARTS_WITHIN_S)
            if process.poll() is None:
                break
            end(process)
        else:
            raise AssertionError(log.read_text())
        yield Head(f"127.0.0.1:{ports['port']}", f"http://127.0.0.1:{ports['dashboard-port']}", temp, environment)
    finally:
        if process is not None:
            end(process)
        shutil.rmtree(temp, ignore_errors=True)


def _start(
    cpus: int, ports: dict[str, int], temp: Path, environment: dict[str, str], log: Path, dashboard: bool
) -> subprocess.Popen[bytes]:
    arguments = ["--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--num-cpus={cpus}"]
    arguments += [f"--{name}={port}" for name, port in ports.items()]
    arguments += [f"--temp-dir={temp}", "--object-store-memory=200000000", f"--include-dashboard={dashboard}"]
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _has_started_or_failed(process: subprocess.Popen[bytes], log: Path) -> bool:
    return "Ray runtime started" in log.read_text() or process.poll() is not None


def end(process: subprocess.Popen[bytes]) -> None:
    """End the leader of a session and all that it started, and nothing else: politely, then by force."""
    family = _family(process.pid)
    process.terminate()  # nothing, if it has ended
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for pid in family | _family(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(20)


def _family(leader: int) -> set[int]:
    """The processes of a leader's session, and all that descend from it or from them."""
    listing = ["ps", "-e", "-o", "pid=,ppid=,sess="]
    listed = subprocess.run(listing, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    rows = [tuple(map(int, line.split())) for line in listed]
    found = {pid for pid, _, session in rows if session == leader}
    while more := {pid for pid, parent, _ in rows if parent in found} - found:
        found |= more
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, outside those that Ray's workers use (10002 to 19999)."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_until(is_so: Callable[[], object], deadline_s: float, every_s: float = 0.2) -> None:
    """Wait for something to become true; fails at the deadline."""
    until = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < until, f"still waiting after {deadline_s:g} s"
        time.sleep(every_s)
