"""kill -9 of the driver, of actors and of trials, at several stages: the same files as an undisturbed run.

The undisturbed one has another number of evaluation workers, so that this is held to change nothing as well.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from raynas.config import load
from tests.distributed.processes import needs_proc
from tests.driver import MEMBERS, Driver, rows

pytestmark = needs_proc


def keeps(run: Path, before: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether what was evaluated before is still there, and was not measured again: the seconds are those of then."""
    assert any(before.values())
    return all(rows(run, member)[: len(one)] == one for member, one in before.items())


def evaluated(run: Path) -> dict[str, list[dict[str, Any]]]:
    """All evaluations so far."""
    return {member: rows(run, member) for member in MEMBERS}


def outcome(run: Path) -> dict[str, Any]:
    """All of a run that must not depend on what happened to it."""
    files = ["ranking.parquet", "agreement.json", "gap.json", "snapshots.parquet"]
    files += [str(path.relative_to(run)) for path in run.glob("*/*/weights.safetensors")]
    costs = load(str(run / "config.toml")).evaluation.costs
    columns = ("index", "architecture", "canonical", "loss", "error", *costs, "failure")
    return {name: (run / name).read_bytes() for name in sorted(files)} | {
        member: [[row[column] for column in columns] for row in rows(run, member)] for member in MEMBERS
    }


@pytest.fixture(scope="module")
def expected(undisturbed: Driver) -> dict[str, Any]:
    found = outcome(undisturbed.run)
    assert sum(name.startswith("supernets/") for name in found) == 2
    assert sum(name.startswith(("finalists/", "calibration/")) for name in found) >= 3
    return found


def test_a_driver_killed_at_two_stages_continues_to_the_same_ranking(
    expected: dict[str, Any], place_of_runs: Path
) -> None:
    """What its Ray leaves behind is not cleaned up between the attempts: a user would not."""
    with ExitStack() as attempts:
        first = attempts.enter_context(Driver(place_of_runs, "driver"))
        first.kill(first.training)
        second = attempts.enter_context(Driver(place_of_runs, "driver"))
        second.kill(second.searching)
        before = evaluated(second.run)
        last = attempts.enter_context(Driver(place_of_runs, "driver"))
        last.finish()
    assert outcome(last.run) == expected
    assert keeps(last.run, before)


def test_actors_and_trials_killed_at_every_stage_change_nothing(expected: dict[str, Any], place_of_runs: Path) -> None:
    with Driver(place_of_runs, "others") as driver:
        driver.kill_actors("Replica", driver.training)
        driver.kill_actors("ImplicitFunc", driver.searching)
        before = evaluated(driver.run)
        driver.kill_actors("EvaluatorWorker", lambda: driver.searching(10))
        driver.kill_actors("Selector", lambda: driver.searching(16))
        driver.kill_actors("EvaluatorPool", lambda: driver.searching(24))
        driver.kill_actors("ImplicitFunc", driver.retraining)
        driver.finish()
    assert outcome(driver.run) == expected
    assert keeps(driver.run, before)
