"""What a command does with a run's folder, and how it ends: 0 done, 2 one line for the user, 1 a fault of ours."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from raynas import cli
from raynas.config import Config, PartitionSettings, section_of
from raynas.errors import UserError
from raynas.plan import GIVEN
from raynas.storage import Folder


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of a mistake."""
        assert self.code == 2, self.err
        assert self.err.startswith("raynas: ") and self.err.count("\n") == 1 and "Traceback" not in self.err
        return self.err


Raynas = Callable[..., Ended]


@pytest.fixture
def raynas(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Raynas:
    def run(*arguments: object) -> Ended:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["raynas", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code is None or isinstance(ended.value.code, int)
        out, err = capsys.readouterr()
        return Ended(ended.value.code or 0, out, err)

    return run


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def content(folder: Path) -> dict[str, str]:
    """A digest of every file, hidden ones too."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def search_again(run: Path, *arguments: str) -> list[str]:
    return ["search", str(run / "config.toml"), "--storage", str(run.parent), "--name", run.name, *arguments]


# --- how a command ends ---------------------------------------------------------------------------------------------


def test_no_arguments_show_the_help(raynas: Raynas) -> None:
    shown = raynas()
    assert shown.code == 0 and "Usage: raynas" in shown.out and shown.out == raynas("--help").out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serch"], "search"),
        (["search", "--nmae", "x"], "--name"),
        (["search", "--repeats", "0"], "greater than or equal to 1"),
        (["search", "--repeats", "3"], "--table"),
        (["search", "--name", ""], "--name"),
        (["search", "--name", "../x"], "--storage"),
        (["search", "--storage", "ftp://x/y"], "s3://"),
        (["list"], "FAMILY"),
        (["list", "nonsense"], "methods"),
        (["export", "somewhere"], "--output"),
        (["rank", "nowhere"], "no run"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(arguments: list[str], told: str, raynas: Raynas, tmp_path: Path) -> None:
    assert told in raynas(*arguments).line


def test_a_mistake_that_was_told_in_an_actor_is_the_same_line(raynas: Raynas, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrapped(UserError):  # noqa: N818 (as Ray does it: of both classes, and its text is the actor's traceback)
        cause = UserError("expected this, got that; mend it.")

    def fails(*_: object) -> None:
        raise Wrapped("ray::Actor.method() (pid=1)\nTraceback ...")

    monkeypatch.setattr(cli, "_existing", fails)
    assert raynas("report", "run").line == "raynas: expected this, got that; mend it.\n"


def test_a_fault_of_ours_has_its_traceback_and_exit_code_1(raynas: Raynas, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli, "_existing", fails)
    ended = raynas("report", "run")
    assert ended.code == 1 and "Traceback" in ended.err
    assert "ZeroDivisionError: a bug" in ended.err.splitlines()[-1] and "report it" in ended.err.splitlines()[-1]


def test_an_interruption_says_how_to_go_on(raynas: Raynas, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_existing", interrupted)
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        ended = raynas("report", "run")
        # a second one does not stop Ray's end halfway
        assert {signal.getsignal(one) for one in before} == {signal.SIG_IGN}
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert ended.code == 130 and ended.err == "raynas: interrupted; the same command again continues.\n"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("leaderboard", "without a file, every strategy searches that needs nothing but scores"),
        ("rank", "one per ranker (supernets, proxies, predictors, short trainings)"),
    ],
)
def test_the_help_says_what_a_command_does(command: str, told: str, raynas: Raynas) -> None:
    shown = " ".join(word for word in raynas(command, "--help").out.split() if word not in "│|")
    assert told in shown and "built-in run" not in shown


@pytest.mark.parametrize("family", sorted(set(cli.Family) - {"settings"}))
def test_every_family_is_listed_with_a_sentence_each(family: str, raynas: Raynas) -> None:
    listed = raynas("list", family)
    assert listed.code == 0
    names = [line.split()[0] for line in listed.out.splitlines()[1:] if not line.startswith(" ")]
    assert names and all(len(line.split()) > 1 for line in listed.out.splitlines() if not line.startswith(" "))


def test_every_setting_is_listed_under_its_section(raynas: Raynas) -> None:
    listed = [table.split("\n") for table in raynas("list", "settings").out.split("\n\n")]
    assert all(len(line) <= 80 for table in listed for line in table)
    keys = {table[0].split("  ")[0]: {line.split()[0] for line in table[1:] if line[:1].strip()} for table in listed}
    for name in Config.model_fields:
        section = section_of(Config, name)
        if section is None:
            assert name in keys["above all sections"], name
        else:
            own = {key for key in section.model_fields if section_of(section, key) is None}
            assert own <= keys[f"[[{name}]]" if name == "members" else f"[{name}]"], name
    assert set(PartitionSettings.model_fields) <= keys["[members.partitions]"]


def test_types_and_defaults_are_told_in_words(raynas: Raynas) -> None:
    lines = [" ".join(line.split()) for line in raynas("list", "settings").out.splitlines()]
    assert "steps 800 optimisation steps (whole number from 1)" in lines
    assert "method needed one of `raynas list methods`, or a module of your own" in lines
    assert any(line.startswith("workers left out evaluator actors") for line in lines)
    assert "settings {} of its strategy: see `raynas list strategies` ({ name =" in lines


def test_members_are_listed_with_their_settings_but_for_what_raynas_gives_them(raynas: Raynas) -> None:
    listed = {family: raynas("list", family).out for family in ("spaces", "rules", "strategies")}
    assert "channels: 16 (whole number)" in listed["spaces"]
    assert 'variant: "dense" ("dense" or "residual" or "mobile")' in listed["spaces"]
    assert "samples: 16 (whole number)" in listed["rules"]
    assert "mutation_rate: left out (number)" in listed["strategies"]
    given = {"spaces": "search_spaces", "rules": "raynas.training_rules", "strategies": "raynas.strategies"}
    for family, package in given.items():
        assert not [name for name in GIVEN[package] if f" {name}: " in listed[family]]


# --- a run's folder -------------------------------------------------------------------------------------------------


def test_gap_report_and_export_of_a_finished_run(raynas: Raynas, run_folder: Path) -> None:
    assert raynas("gap", run_folder).code == 0 and (run_folder / "gap.json").is_file()
    reported = raynas("report", run_folder)
    assert reported.code == 0 and Path(reported.out.splitlines()[-1]).read_text().startswith("<!doctype html>")
    model = run_folder.parent / "model"
    exported = raynas("export", run_folder, "--output", model)
    assert exported.code == 0 and "logits of 8 test images verified after loading" in exported.out
    assert sorted(path.name for path in model.iterdir()) == ["card.json", "model.pt2", "weights.safetensors"]


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("config.toml", "search"),
        ("data.json", "export"),
        ("timings.json", "search"),
        ("members.json", "search"),
        ("agreement.json", "search"),
        ("gap.json", "report"),
        ("ranking.parquet", "search"),
        ("ranking.parquet", "retrain"),
        ("ranking.parquet", "gap"),
        ("ranking.parquet", "report"),
        ("evaluations/random_search.parquet", "search"),
        ("evaluations/random_search.parquet", "rank"),
        ("supernets/*/state.json", "search"),
        ("supernets/*/weights.safetensors", "search"),
        ("supernets/*/weights.safetensors", "rank"),
        ("finalists/1/result.json", "search"),
        ("finalists/1/result.json", "gap"),
        ("finalists/1/result.json", "export"),
        ("finalists/1/weights.safetensors", "export"),
    ],
)
def test_half_a_file_is_told_by_its_path_and_nothing_is_changed(
    file: str, command: str, raynas: Raynas, run_folder: Path
) -> None:
    for name, whole in (("timings.json", "[]"), ("gap.json", "{}")):
        (run_folder / name).write_text(" " * 100 + whole)
    (broken,) = run_folder.glob(file)
    half = broken.read_bytes()[: broken.stat().st_size // 2]
    if file == "config.toml":
        half = half[: half.rindex(b"=") + 1]  # between two lines it would be whole
    broken.write_bytes(half)
    before = content(run_folder)
    arguments = search_again(run_folder) if command == "search" else [command, str(run_folder)]
    ended = raynas(*arguments, *(["--output", run_folder.parent / "model"] if command == "export" else []))
    assert str(broken) in ended.line
    assert content(run_folder) == before


@pytest.mark.parametrize(
    ("done", "checkpoint"),
    [
        ("supernets/*/state.json", "supernets/*/checkpoint.safetensors"),
        ("finalists/1/result.json", "finalists/1/checkpoint.safetensors"),
    ],
)
def test_half_a_checkpoint_of_what_is_not_done_is_told_before_anything_starts(
    done: str, checkpoint: str, raynas: Raynas, run_folder: Path
) -> None:
    (finished,) = run_folder.glob(done)
    whole = (run_folder / "finalists/1/checkpoint.safetensors").read_bytes()
    (finished.parent / "checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    assert raynas(*search_again(run_folder), "--address", "127.0.0.1:1").err.startswith("raynas: cannot reach")
    finished.unlink()
    line = raynas(*search_again(run_folder)).line
    assert "not a whole checkpoint" in line and f"delete the folder {finished.parent}," in line


@pytest.mark.parametrize("file", ["ranking.parquet", "evaluations/random_search.parquet"])
def test_a_table_without_its_columns_names_them(file: str, raynas: Raynas, run_folder: Path) -> None:
    folder = Folder(str(run_folder))
    folder.write_table(file, folder.read_table(file).drop_columns(["macs"]))
    assert "without the columns macs" in raynas(*search_again(run_folder)).line


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("supernets/*/state.json", "failure"),
        ("finalists/1/result.json", "validation_error"),
        ("data.json", "fingerprint"),
    ],
)
def test_a_record_without_its_entries_names_them(file: str, key: str, raynas: Raynas, run_folder: Path) -> None:
    (record,) = run_folder.glob(file)
    record.write_text("{}")
    assert key in raynas(*search_again(run_folder)).line


def test_a_broken_gap_is_measured_anew(raynas: Raynas, run_folder: Path) -> None:
    (run_folder / "gap.json").write_text('{"points": [')
    assert raynas("gap", run_folder).code == 0
    assert "points" in json.loads((run_folder / "gap.json").read_text())


@pytest.mark.parametrize("command", ["report", "search"])
@pytest.mark.parametrize(
    ("file", "written", "told"),
    [
        ("gap.json", "[1, 2]", "expected a JSON object, but got [1, 2]"),
        ("gap.json", '{"points": [{}]}', "without points.name"),
        ("agreement.json", '{"rankers": [], "most_disputed": []}', "without tau"),
        ("agreement.json", '{"rankers": [], "tau": [], "most_disputed": [], "race": {"best": 1}}', "race.trained"),
        ("agreement.json", '{"rankers": [], "tau": [], "most_disputed": [], "front": [3]}', "without candidates"),
        ("timings.json", '{"stage": 1}', "expected a valid list"),
        ("timings.json", '[{"stage": "x"}]', "without seconds"),
        ("timings.json", '[{"stage": "x", "seconds": Infinity}]', "wrong in 0.seconds"),
        ("members.json", "[]", "expected a JSON object"),
        ("members.json", '{"random_search": {"state": null}}', "wrong in random_search.state"),
        ("finalists/1/result.json", "[]", "expected a JSON object"),
    ],
)
def test_a_record_of_another_shape_is_told_by_its_path(
    file: str, written: str, told: str, command: str, raynas: Raynas, run_folder: Path
) -> None:
    (run_folder / file).write_text(written)
    line = raynas(*(search_again(run_folder) if command == "search" else [command, run_folder])).line
    assert f"{run_folder / file} is " in line and told in line and "delete it" in line


@pytest.mark.parametrize("command", ["report", "search"])
@pytest.mark.parametrize(
    ("file", "key", "value", "told"),
    [
        ("agreement.json", "tau", [["x"]], "wrong in tau.0.0: expected a valid number, but got 'x'"),
        ("agreement.json", "rankers", [], "a row and a column of tau for each of 0 rankers"),
        ("agreement.json", "most_disputed", None, "wrong in most_disputed"),
        ("finalists/1/result.json", "validation_error", "x", "wrong in validation_error"),
        ("finalists/1/result.json", "validation_error", None, "expected a validation_error, or a failure"),
        ("finalists/1/result.json", "macs", "many", "expected a number of macs, but got 'many'"),
        ("finalists/1/result.json", "architecture", "x", "wrong in architecture"),
        ("supernets/*/state.json", "probabilities", [[]], "wrong in probabilities.0"),
        ("supernets/*/state.json", "snapshots", 3, "wrong in snapshots"),
    ],
)
def test_a_record_with_an_entry_of_another_type_names_it(
    file: str, key: str, value: object, told: str, command: str, raynas: Raynas, run_folder: Path
) -> None:
    (record,) = run_folder.glob(file)
    record.write_text(json.dumps(json.loads(record.read_text()) | {key: value}))
    before = content(run_folder)
    line = raynas(*(search_again(run_folder) if command == "search" else [command, run_folder])).line
    assert f"{record} is " in line and told in line and "delete it" in line
    assert content(run_folder) == before


@pytest.mark.parametrize("command", ["report", "search"])
@pytest.mark.parametrize(
    ("file", "column", "value", "told"),
    [
        ("ranking.parquet", "rank", None, "expected int64, but got a row without one"),
        ("ranking.parquet", "macs", "x", "expected numbers, but got string"),
        ("ranking.parquet", "rank_uniform", "x", "expected numbers, but got string"),
        ("evaluations/random_search.parquet", "error", "x", "expected numbers, but got string"),
        ("evaluations/random_search.parquet", "name", None, "expected string, but got a row without one"),
    ],
)
def test_a_column_of_another_type_is_named(
    file: str, column: str, value: object, told: str, command: str, raynas: Raynas, run_folder: Path
) -> None:
    folder = Folder(str(run_folder))
    table = folder.read_table(file)
    wrong = pa.array([value] * len(table))
    folder.write_table(file, table.set_column(table.column_names.index(column), column, wrong))
    line = raynas(*(search_again(run_folder) if command == "search" else [command, run_folder])).line
    assert f"{run_folder / file} is wrong in the column {column}: {told}; delete it" in line


@pytest.mark.parametrize("file", ["finalists/1/curves.parquet", "supernets/*/curves.parquet", "snapshots.parquet"])
def test_the_gap_and_the_report_name_a_table_that_lacks_its_first_column(
    file: str, raynas: Raynas, run_folder: Path
) -> None:
    Folder(str(run_folder)).write_table("snapshots.parquet", pa.table({"architecture": ["0-0-0-0-0-0"]}))
    (table,) = run_folder.glob(file)
    Folder(str(table.parent)).write_table(table.name, pa.table({"other": [1.0]}))
    assert str(table) in raynas("gap" if file == "snapshots.parquet" else "report", run_folder).line


def test_late_steps_that_do_not_know_what_is_ranked_are_told(raynas: Raynas, run_folder: Path) -> None:
    late = pa.table({"architecture": ["0-0-0-0-0-0"], "uniform@1": [0.5]})
    Folder(str(run_folder)).write_table("snapshots.parquet", late)
    assert "without some architectures of the ranking" in raynas("gap", run_folder).line


def test_a_run_of_other_settings_is_named_with_what_differs(raynas: Raynas, run_folder: Path) -> None:
    before = content(run_folder)
    line = raynas(*search_again(run_folder, "--set", "training.learning_rate=0.1")).line
    assert "training.learning_rate" in line and "--name" in line
    assert content(run_folder) == before


def test_a_run_begun_with_other_images_is_refused(raynas: Raynas, run_folder: Path) -> None:
    (run_folder / "data.json").write_text('{"fingerprint": "another"}')
    assert "other data" in raynas(*search_again(run_folder)).line


def test_a_refused_attempt_does_not_claim_the_name(raynas: Raynas, tmp_path: Path) -> None:
    attempt = ["search", "--storage", tmp_path, "--name", "run", "--address", "127.0.0.1:1"]
    assert "macs" in raynas(*attempt, "--set", "constraints.macs=1").line
    assert "cannot reach" in raynas(*attempt).line
    assert "cannot reach" in raynas(*attempt, "--set", "seed=1").line  # not: belongs to other settings
    assert not list(tmp_path.iterdir())


# --- what is asked of a run that is not there yet -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["retrain", "gap"])
def test_a_run_without_a_ranking_is_sent_to_rank(command: str, raynas: Raynas, run_folder: Path) -> None:
    (run_folder / "ranking.parquet").unlink()
    assert "raynas rank" in raynas(command, run_folder).line


def test_an_export_before_retraining_is_sent_to_retrain(raynas: Raynas, run_folder: Path) -> None:
    shutil.rmtree(run_folder / "finalists")
    assert "raynas retrain" in raynas("export", run_folder, "--output", run_folder / "model").line


def test_a_list_is_not_scored_by_supernets_that_are_not_trained(raynas: Raynas, run_folder: Path) -> None:
    shutil.rmtree(run_folder / "supernets")
    (run_folder / "list.txt").write_text("0-0-0-0-0-0\n")
    line = raynas("rank", run_folder, "--architectures", run_folder / "list.txt").line
    assert "uniform" in line and "raynas rank" in line


def test_no_file_is_overwritten_by_scores(raynas: Raynas, run_folder: Path) -> None:
    (run_folder / "list.txt").write_text("0-0-0-0-0-0\n")
    Folder(str(run_folder)).write_table("ranked/list.parquet", pa.table({"architecture": ["1-0-0-0-0-0"]}))
    line = raynas("rank", run_folder, "--architectures", run_folder / "list.txt").line
    assert "ranked/list.parquet has the scores of another list; name a new file by --output" in line
    assert (run_folder / "ranked/list.parquet").exists()
    asked = ["rank", run_folder, "--architectures", run_folder / "list.txt", "--output", run_folder / "list.txt"]
    assert "new file" in raynas(*asked).line
    assert (run_folder / "list.txt").read_text() == "0-0-0-0-0-0\n"
    assert "--architectures" in raynas("rank", run_folder, "--output", "x.parquet").line


@pytest.mark.parametrize(("text", "told"), [(b"\xff\xfe", "cannot read"), (None, "No such file"), (b"\n", "no arch")])
def test_a_list_that_cannot_be_read_is_told(text: bytes | None, told: str, raynas: Raynas, run_folder: Path) -> None:
    if text is not None:
        (run_folder / "list.txt").write_bytes(text)
    assert told in raynas("rank", run_folder, "--architectures", run_folder / "list.txt").line


def test_a_terminal_that_lacks_a_sign_ends_no_command() -> None:
    code = "from raynas import cli\ncli.app = lambda *arguments, **settings: print(chr(0x2212) + '0.5')\ncli.main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False)
    assert (done.returncode, done.stdout.decode().strip()) == (0, "?0.5")
