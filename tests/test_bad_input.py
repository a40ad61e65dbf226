"""Bad input ends in one line that names the mend, exit code 2, before anything starts, and nothing is overwritten."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from raynas.cli import main


def fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run a command that must end in the user's mistake; returns its one line."""
    monkeypatch.setattr(sys, "argv", ["raynas", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    line = capsys.readouterr().err.strip()
    assert ended.value.code == 2, line
    assert line.startswith("raynas: ") and "\n" not in line and "Traceback" not in line
    return line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--space", "nas_bench_202"], "nas_bench_201"),
        (["--method", "regularised_evolution"], "regularized_evolution"),
        (["--data", "digit"], "digits"),
        (["--set", "training.step=5"], "steps"),
        (["--set", "training.steps=-5"], "training.steps"),
        (["--set", "training.steps"], "section.key=value"),
        (["--set", "selector.aggregator=bord"], "borda"),
        (["--set", 'evaluation.costs=["macz"]', "--set", "selector.cost=macz"], "macs"),
        (["--set", "members.1.training_rule=unifrm"], "uniform"),
        (["--set", "members.1.settings.population=3"], "population_size"),
        (["--set", "space.settings.chanels=3"], "channels"),
        (["--set", "space.settings.channels=0"], "channels"),
        (["--set", "constraints.parameters=10"], "leaves no architecture"),
        (["--set", "constraints.latency_ms=1"], '"latency_ms"]\''),
        (["--set", 'evaluation.costs=["latency"]'], "unknown cost 'latency'"),
        (["--space", "my_space.py"], "leave out .py"),
        (["--storage", "s3://"], "s3://BUCKET/FOLDER"),
        (["--storage", ""], "empty name"),
        (["--set", "members.1.objectives=[]"], "at least one entry"),
        (["--set", "members.0.settings.x=1"], "known: none"),
        (["--set", "training.replicas=3"], "batch_size"),
        (["missing.toml"], "missing.toml"),
    ],
)
def test_a_wrong_setting_is_told_with_the_mend_and_makes_no_run(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = fails(capsys, monkeypatch, "search", "--storage", str(tmp_path), "--name", "run", *arguments)
    assert told in line
    assert not list(tmp_path.iterdir())


def test_a_file_that_begins_with_a_byte_order_mark_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "marked.toml").write_text("seed = -1\n", encoding="utf-8-sig")
    assert "seed: expected" in fails(capsys, monkeypatch, "search", str(tmp_path / "marked.toml"))
    (tmp_path / "config.toml").write_text("seed = 0\n")
    (tmp_path / "list.txt").write_text("0-0-0-0-0-1\n", encoding="utf-8-sig")
    line = fails(capsys, monkeypatch, "rank", str(tmp_path), "--architectures", str(tmp_path / "list.txt"))
    assert "not trained its supernets" in line


def test_malformed_toml_names_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.toml").write_text("[training]\nsteps = = 3\n")
    assert "line 2" in fails(capsys, monkeypatch, "search", str(tmp_path / "bad.toml"), "--storage", str(tmp_path))


def test_a_folder_of_another_configuration_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("seed = 7\n")
    line = fails(capsys, monkeypatch, "search", "--storage", str(tmp_path), "--name", "run")
    assert "other settings" in line and "--name" in line
    assert (tmp_path / "run" / "config.toml").read_text() == "seed = 7\n"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.toml"]


def test_a_storage_that_cannot_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    line = fails(capsys, monkeypatch, "search", "--storage", str(tmp_path / "file"))
    assert str(tmp_path / "file") in line


@pytest.mark.parametrize("command", ["rank", "retrain", "report", "gap"])
def test_a_folder_that_is_no_run_is_told(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "config.toml" in fails(capsys, monkeypatch, command, str(tmp_path))


@pytest.mark.parametrize("text", ["0-1-2-3-4", "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|", ""])
def test_an_architecture_that_does_not_fit_the_space_is_told_with_its_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("seed = 0\n")
    (tmp_path / "list.txt").write_text(f"0-0-0-0-0-1\n{text}\n" if text else "")
    line = fails(capsys, monkeypatch, "rank", str(tmp_path), "--architectures", str(tmp_path / "list.txt"))
    assert "line 2" in line if text else "no architecture" in line
