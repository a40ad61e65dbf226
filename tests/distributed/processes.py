"""Ray's processes as the kernel lists them, so that a test kills what it means and nobody else's."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROC = Path("/proc")
needs_proc = pytest.mark.skipif(not (PROC / "self/stat").exists(), reason="finds processes through Linux's /proc")


@dataclass(frozen=True)
class Process:
    """One line of the process table; `title` is what Ray names a worker after, e.g. `ray::Replica.advance`."""

    pid: int
    parent: int
    session: int
    title: str


def processes() -> Iterator[Process]:
    """All processes that live."""
    for place in PROC.iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):  # it may end while it is read
                state, parent, _, session = (place / "stat").read_text().rpartition(")")[2].split()[:4]
                title = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if state not in "ZX":
                    yield Process(int(place.name), int(parent), int(session), title)


def actors(root: int, name: str) -> list[int]:
    """The processes under `root` that run this actor class."""
    found = {one.pid: one for one in processes()}
    below, generation = set(), {root}
    while generation:
        generation = {pid for pid, one in found.items() if one.parent in generation}
        below |= generation
    return sorted(pid for pid in below if found[pid].title.startswith(f"ray::{name}"))


def kill(pids: Callable[[], list[int]], when: Callable[[], bool], *, within_s: float = 120.0) -> list[int]:
    """SIGKILL these processes at a moment that `when` describes; they are stopped while it is looked at.

    Returns who was killed; fails if the moment does not come.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if when() and (victims := pids()):
            for pid in victims:
                _send(pid, signal.SIGSTOP)
            if when():
                for pid in victims:
                    _send(pid, signal.SIGKILL)
                return victims
            for pid in victims:
                _send(pid, signal.SIGCONT)
        time.sleep(0.01)
    raise TimeoutError(f"no process to kill, or not the moment for it, within {within_s:g} s")


def end_session(session: int) -> None:
    """SIGKILL whatever is left of a session that a test began."""
    for one in processes():
        if one.session == session:
            _send(one.pid, signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
