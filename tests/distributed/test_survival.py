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
    files = ["candidates.parquet", "ranking.parquet", "agreement.json", "gap.json", "snapshots.parquet"]
    files += [str(path.relative_to(run)) for kept in ("*/*/weights.safetensors", "race/*") for path in run.glob(kept)]
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


def test_a_driver_its_actors_and_its_trials_killed_at_every_stage_change_nothing(
    expected: dict[str, Any], place_of_runs: Path
) -> None:
    """What the Ray of a killed driver leaves behind is not cleaned up before the next attempt: a user would not."""
    with ExitStack() as attempts:
        first = attempts.enter_context(Driver(place_of_runs, "killed"))
        first.kill_actors("Replica", first.training)
        first.kill(first.training)
        second = attempts.enter_context(Driver(place_of_runs, "killed"))
        second.kill_actors("ImplicitFunc", second.searching)
        before = evaluated(second.run)
        second.kill_actors("EvaluatorWorker", lambda: second.searching(8))
        second.kill_actors("Selector", lambda: second.searching(12))
        second.kill(lambda: second.searching(16))
        assert keeps(second.run, before)
        before = evaluated(second.run)
        third = attempts.enter_context(Driver(place_of_runs, "killed"))
        third.kill_actors("EvaluatorPool", lambda: third.searching(24))
        third.kill_actors("EvaluatorWorker", third.racing)
        third.kill_actors("EvaluatorPool", third.racing)
        third.kill(third.racing)
        last = attempts.enter_context(Driver(place_of_runs, "killed"))
        last.kill_actors("ImplicitFunc", last.retraining)
        last.finish()
    assert outcome(last.run) == expected
    assert keeps(last.run, before)
