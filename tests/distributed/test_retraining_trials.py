"""What is trained from scratch: once each, whatever fails, and of the architecture that its folder is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raynas.architecture import encode
from raynas.data import load
from raynas.distributed import retraining_trials
from raynas.distributed.retraining_trials import Trials, calibration_accuracies, calibration_trials
from raynas.plan import make_plan
from raynas.selector import candidates_table
from raynas.storage import Folder
from search_spaces.nas_bench_201 import SPACE
from tests.helpers import small_config

PLAN = make_plan(small_config(retraining={"epochs": 2}))
ONE, OTHER = SPACE.parse("3-3-3-3-3-3"), SPACE.parse("1-1-1-1-1-1")


def row(architecture: tuple[int, ...], rank: int = 1) -> dict[str, Any]:
    return {"architecture": encode(architecture), "rank": rank, "calibration": True}


Train = Callable[[str, Trials], list[dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


@pytest.fixture
def train(run: Folder, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train one of the chosen as its Tune trial would; returns the epochs that it reports."""
    arrays = load("digits").to_numpy()
    monkeypatch.setattr(retraining_trials.ray, "get", lambda data: data)

    def trained(place: str, chosen: Trials) -> list[dict[str, Any]]:
        reports: list[dict[str, Any]] = []
        monkeypatch.setattr(retraining_trials.tune, "report", reports.append)
        retraining_trials._retraining_trial({"place": place}, plan=PLAN, run=run, chosen=chosen, data=[arrays])
        return reports

    return trained


def result(run: Folder, place: str) -> dict[str, Any]:
    return json.loads(run.read(f"{place}/result.json"))


def test_a_finalist_that_calibrated_the_ranking_is_not_trained_again(run: Folder, train: Train) -> None:
    (place,) = calibration = {f"calibration/{encode(ONE)}": row(ONE)}
    *_, last = train(place, calibration)
    assert last["epoch"] == 2
    assert train("finalists/1", {"finalists/1": row(ONE)}) == [last]
    first, second = result(run, place), result(run, "finalists/1")
    assert run.read(f"{place}/weights.safetensors") == run.read("finalists/1/weights.safetensors")
    assert run.read(f"{place}/curves.parquet") == run.read("finalists/1/curves.parquet")
    assert first["test_error"] is None and second["test_error"] is not None
    assert (first["role"], second["role"], second["rank"]) == ("calibration", "finalist", 1)
    assert first["validation_error"] == second["validation_error"]


def test_a_folder_that_holds_another_architecture_is_trained_anew(run: Folder, train: Train) -> None:
    train("finalists/1", {"finalists/1": row(OTHER)})
    assert not retraining_trials._has_result(run / "finalists/1", row(ONE))
    assert len(train("finalists/1", {"finalists/1": row(ONE)})) == 2
    assert result(run, "finalists/1")["architecture"] == encode(ONE)


def test_a_checkpoint_of_another_architecture_is_left_alone_by_one_that_was_killed_at_its_start(
    run: Folder, train: Train
) -> None:
    train("finalists/1", {"finalists/1": row(OTHER)})
    run.write_json("finalists/1/architecture.json", {"architecture": encode(ONE)})  # and no checkpoint yet
    assert len(train("finalists/1", {"finalists/1": row(ONE)})) == 2


def test_what_cannot_be_trained_has_failed_and_calibrates_nothing(
    run: Folder, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {name: [1.0, 1.0] for name in PLAN.config.evaluation.costs}
    run.write_table("candidates.parquet", candidates_table([ONE, OTHER], {"a": [1.0, 2.0]}, costs, [ONE, OTHER]))
    chosen = calibration_trials(run)
    assert list(chosen) == [f"calibration/{encode(one)}" for one in (ONE, OTHER)]
    first, second = chosen
    train(first, chosen)
    with monkeypatch.context() as patched:
        patched.setattr(retraining_trials, "StandAloneTraining", _out_of_memory)
        assert train(second, chosen) == []
    assert result(run, second)["failure"] == "RuntimeError: CUDA out of memory."
    assert result(run, second)["validation_error"] is None
    found = calibration_accuracies(run)
    assert found[ONE] == -result(run, first)["validation_error"] and found[OTHER] != found[OTHER]


def test_what_breaks_a_process_ends_it_and_has_failed_for_the_next_attempt(
    run: Folder, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = chosen = {f"calibration/{encode(ONE)}": row(ONE)}
    with monkeypatch.context() as patched:
        patched.setattr(retraining_trials, "StandAloneTraining", _broken_device)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            train(place, chosen)
    assert result(run, place)["failure"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert train(place, chosen) == []


def _broken_device(*_: Any, **__: Any) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def _out_of_memory(*_: Any, **__: Any) -> None:
    raise RuntimeError("CUDA out of memory.\nTried to allocate")


def test_a_folders_name_is_never_too_long_for_a_file_system() -> None:
    long, longer = ({"architecture": encode((10,) * count), "calibration": True} for count in (100, 101))
    (first,), (second,) = (retraining_trials._calibration([one]) for one in (long, longer))
    assert first != second and len(first) < 255 > len(second)
