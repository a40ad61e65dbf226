"""A member's trial: what its own code does wrong is its failure, and ends neither the process nor the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest

from raynas.distributed import population
from raynas.plan import make_plan
from raynas.storage import Folder
from tests.helpers import small_config


@pytest.mark.parametrize("fault", [ValueError("too small"), SystemExit(3)])
def test_a_strategy_that_raises_or_exits_is_a_failed_member(
    fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, run, told = make_plan(small_config()), Folder(str(tmp_path)), list[dict[str, Any]]()

    def search(*_: object) -> NoReturn:
        raise fault

    monkeypatch.setattr(population, "member_search", search)
    monkeypatch.setattr(population.tune, "report", told.append)
    member = plan.members[0]
    monkeypatch.setattr(Folder, "read_json", lambda *_: {"probabilities": None})
    population._member_trial({"member": member.name}, plan=plan, run=run, pool=None, selector=None)
    assert told == [{"evaluations": 0, "best": None, "rejected": 0, "failure": f"{type(fault).__name__}: {fault}"}]
