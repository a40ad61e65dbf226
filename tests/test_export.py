"""An exported finalist stands alone and is the network that was trained."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from raynas import export
from raynas.data import load
from raynas.errors import UserError
from raynas.export import export_finalist
from raynas.run import existing_run
from raynas.storage import Folder

LOAD = """
import json, sys, torch
from safetensors.torch import load_file
folder, images = sys.argv[1:]
card = json.load(open(f"{folder}/card.json"))
model = torch.export.load(f"{folder}/model.pt2").module()
assert "raynas" not in sys.modules
assert set(load_file(f"{folder}/weights.safetensors")) == set(model.state_dict())
saved = torch.load(images, weights_only=True)
mean, std = (torch.tensor(card[key])[:, None, None] for key in ("mean", "std"))
wrong = (model((saved["images"].float() - mean) / std).argmax(1) != saved["labels"]).float().mean()
print(float(wrong))
"""


@pytest.fixture(scope="module")
def model(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the exported finalist."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    run, config = existing_run(str(finished_run))
    export_finalist(run, config, str(folder), None)
    return folder


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def exported(run_folder: Path, rank: int | None = None, to: str = "model") -> None:
    run, config = existing_run(str(run_folder))
    export_finalist(run, config, str(run_folder.parent / to), rank)


def test_the_program_alone_makes_the_errors_that_the_trained_network_made(model: Path, tmp_path: Path) -> None:
    digits = load("digits")
    images = tmp_path / "images.pt"
    torch.save({"images": digits.test_images_NCHW, "labels": digits.test_labels_N}, images)
    command = [sys.executable, "-I", "-c", LOAD, str(model), str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(json.loads((model / "card.json").read_text())["test_error"], abs=1e-6)


def test_the_card_says_what_was_exported_and_how_it_was_trained(model: Path, finished_run: Path) -> None:
    card = json.loads((model / "card.json").read_text())
    result = json.loads((finished_run / "finalists/1/result.json").read_text())
    assert result.items() <= card.items()
    assert card["input_CHW"] == [1, 8, 8] and card["classes"] == 10 and card["data"] == "digits"
    assert card["recipe"] == existing_run(str(finished_run))[1].retraining.model_dump()
    assert {"torch", "raynas"} <= set(card["versions"])
    assert (model / "weights.safetensors").read_bytes() == (
        finished_run / "finalists/1/weights.safetensors"
    ).read_bytes()


def test_the_best_on_validation_is_taken_where_no_rank_is_named(run_folder: Path) -> None:
    better = Path(shutil.copytree(run_folder / "finalists/1", run_folder / "finalists/2"))
    result = json.loads((better / "result.json").read_text())
    run = Folder(str(run_folder))
    ranking = run.read_table("ranking.parquet").to_pylist()
    # the test error must have no say in it
    changed = {
        **result,
        "rank": 2,
        "architecture": ranking[1]["architecture"],
        "validation_error": result["validation_error"] - 0.01,
        "test_error": 1.0,
    }
    run.write_json("finalists/2/result.json", changed)
    assert export._finalist(run, None)["rank"] == 1  # as if the run had been ranked anew: that is no finalist any more
    ranking[1]["finalist"] = True
    run.write_table("ranking.parquet", pa.Table.from_pylist(ranking))
    assert export._finalist(run, None)["rank"] == 2 and export._finalist(run, 1)["rank"] == 1
    run.write_json("finalists/2/result.json", {**changed, "failure": "the loss is nan"})
    assert export._finalist(run, None)["rank"] == 1


def test_a_result_without_a_rank_is_refused(run_folder: Path) -> None:
    run, place = Folder(str(run_folder)), "finalists/1/result.json"
    result = run.read_json(place)
    del result["rank"]
    run.write_json(place, result)
    with pytest.raises(UserError, match="without rank"):
        export._finalist(run, None)


def test_a_folder_in_use_is_left_as_it_is(run_folder: Path) -> None:
    (run_folder.parent / "model").mkdir()
    (run_folder.parent / "model" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        exported(run_folder)
    assert [path.name for path in (run_folder.parent / "model").iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match=r"mine\.txt"):
        exported(run_folder, to="model/mine.txt")
    assert (run_folder.parent / "model" / "mine.txt").read_text() == "mine"


def test_a_rank_that_was_not_trained_is_told_with_those_that_were(run_folder: Path) -> None:
    with pytest.raises(UserError, match="rank 7; choose --rank from 1"):
        exported(run_folder, rank=7)


@pytest.mark.parametrize("of", ["supernet", "nothing"])
def test_weights_that_are_not_the_architectures_are_refused(of: str, run_folder: Path) -> None:
    (supernet,) = run_folder.glob("supernets/*/weights.safetensors")
    place = run_folder / "finalists/1/weights.safetensors"
    place.unlink()
    if of == "supernet":
        shutil.copy(supernet, place)
    with pytest.raises(UserError, match=f"not a whole checkpoint.*delete the folder {place.parent}"):
        exported(run_folder)
    assert not list((run_folder.parent / "model").glob("*"))


def test_a_program_that_computes_something_else_is_not_written(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for difference in (1.0, float("nan")):
        monkeypatch.setattr(export, "_verify", lambda *_, difference=difference: difference)
        with pytest.raises(RuntimeError, match="differs"):
            exported(run_folder)
    assert not list((run_folder.parent / "model").glob("*"))


def test_the_program_is_compared_after_it_was_loaded_again() -> None:
    images_NCHW = torch.zeros(2, 1, 8, 8)
    program = torch.export.export(torch.nn.Flatten(), (images_NCHW,))
    assert export._verify(program, images_NCHW, images_NCHW.flatten(1) + 0.5) == pytest.approx(0.5)
