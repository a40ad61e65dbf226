"""A run's folder belongs to one configuration, and to nobody before the run has begun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import raynas
from raynas.config import Config, load
from raynas.errors import UserError
from raynas.run import begin_run, begun_otherwise, existing_run, open_run, same_data
from raynas.run_record import read_run
from raynas.storage import Folder


@pytest.fixture
def begun(tmp_path: Path) -> Folder:
    """A run of the built-in configuration."""
    folder = open_run(load(None), str(tmp_path), "run")
    begin_run(folder, load(None), "images")
    return folder


def again(tmp_path: Path, *overrides: str) -> Folder:
    return open_run(load(None, overrides), str(tmp_path), "run")


def test_a_folder_is_nobodys_before_the_run_has_begun(tmp_path: Path) -> None:
    same_data(again(tmp_path), "some images")  # then the attempt is refused
    assert not list(tmp_path.iterdir())
    same_data(again(tmp_path, "seed=1"), "other images")


def test_a_begun_run_is_read_back_with_its_versions(begun: Folder) -> None:
    folder, config = existing_run(begun.location)
    assert folder.location == begun.location and config == load(None)
    assert {"python", "raynas", "ray", "torch"} <= set(begun.read_json("versions.json"))


def test_a_run_keeps_the_versions_that_it_was_begun_with_and_others_are_told(begun: Folder) -> None:
    assert not begun_otherwise(begun)
    versions = begun.read_json("versions.json")
    begun.write_json("versions.json", versions | {"torch": "1.0", "numpy": "1.0"})
    begin_run(begun, load(None), "images")
    assert begun.read_json("versions.json")["torch"] == "1.0"
    (told,) = begun_otherwise(begun)
    assert f"was begun with torch 1.0 (now {versions['torch']});" in told


def test_a_run_of_another_version_is_told_by_its_file_and_that_version(begun: Folder, tmp_path: Path) -> None:
    begun.write("config.toml", b"future = 1\n" + begun.read("config.toml"))
    for read in (lambda: existing_run(begun.location), lambda: again(tmp_path)):
        with pytest.raises(UserError, match=r"run/config\.toml: unknown setting 'future'.*\.$"):
            read()
        begun.write_json("versions.json", begun.read_json("versions.json") | {"raynas": "9.9"})
        with pytest.raises(UserError, match=r"'future'.*\. The run was begun with raynas 9\.9 \(now .*\); install"):
            read()
        begun.write_json("versions.json", begun.read_json("versions.json") | {"raynas": raynas.__version__})


def test_the_same_settings_find_the_same_folder_with_or_without_a_name(begun: Folder, tmp_path: Path) -> None:
    assert again(tmp_path).location == begun.location

    def unnamed(*overrides: str) -> str:
        return open_run(load(None, overrides), str(tmp_path), None).location

    assert unnamed() == unnamed() != unnamed("seed=1")
    assert unnamed("data.name=folder:a/b c") == unnamed("data.name=folder:a/b c")
    assert Path(unnamed("data.name=folder:../b")).parent == tmp_path


@pytest.mark.parametrize(
    "override",
    ["cluster.wait_s=60", "evaluation.workers=3", "search.cpus_per_member=1", "training.checkpoint_every_s=1"],
)
def test_what_no_result_depends_on_may_change_between_attempts(override: str, begun: Folder, tmp_path: Path) -> None:
    assert again(tmp_path, override).location == begun.location


@pytest.mark.parametrize(
    "override",
    ["seed=1", "training.steps=3", "constraints.macs=1", "members.0.name=x", "table.reward=x", "data.flip=true"],
)
def test_other_settings_are_refused_by_name_and_nothing_is_changed(
    override: str, begun: Folder, tmp_path: Path
) -> None:
    before = {name: begun.read(name) for name in begun.names()}
    with pytest.raises(UserError, match="belongs to a run with other settings") as mistake:
        again(tmp_path, override)
    assert override.partition("=")[0].partition(".")[0] in str(mistake.value)
    assert {name: begun.read(name) for name in begun.names()} == before


def test_other_data_under_the_same_name_is_refused(begun: Folder) -> None:
    same_data(begun, "images")
    with pytest.raises(UserError, match="begun with other data"):
        same_data(begun, "other images")


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and not a run"):
        again(tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden"])
def test_a_name_is_one_folder_in_the_storage(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plain folder name"):
        open_run(Config(), str(tmp_path), name)


def test_a_folder_of_table_searches_has_nothing_to_train_or_rank(begun: Folder) -> None:
    begun.write("config.toml", begun.read("config.toml") + b'\n[table]\nkey = "arch_str"\n')
    existing_run(begun.location)  # columns alone are no search of a table
    begun.write("table_search.parquet", b"")
    with pytest.raises(
        UserError, match=r"run holds searches of a table, which train and rank nothing.*without --table"
    ):
        existing_run(begun.location)


def test_what_is_no_run_or_has_broken_settings_is_told(begun: Folder, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing", Path(begun.path("config.toml"))):
        with pytest.raises(UserError, match="no run"):
            existing_run(str(place))
    whole = begun.read("config.toml")
    begun.write("config.toml", b"")
    for read in (lambda: existing_run(begun.location), lambda: read_run(begun)):
        with pytest.raises(UserError, match=r"run/config\.toml has no seed, so is not whole; restore"):
            read()
    begun.write("config.toml", whole.replace(b"\nsteps =", b"\nstep ="))
    with pytest.raises(UserError, match=r"run/config\.toml: unknown setting 'training\.step'"):
        existing_run(begun.location)
    begun.write("config.toml", b"[training")
    for read in (lambda: existing_run(begun.location), lambda: again(tmp_path)):
        with pytest.raises(UserError, match=r"config\.toml is not valid TOML"):
            read()


def test_a_run_is_continued_from_any_working_folder(
    begun: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_run(load(None), ".", "run").location == begun.location == existing_run("run")[0].location
    assert json.loads((tmp_path / "run/data.json").read_text()) == {"fingerprint": "images"}
