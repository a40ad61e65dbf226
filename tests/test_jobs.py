"""The entry points of jobs/, and a real job: submitted with a token, stopped, submitted again, and continued."""

from __future__ import annotations

import json
import runpy
import shlex
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from raynas.checkpoint import load_state
from raynas.storage import Folder
from tests.ray_head import Head, ray_head, wait_until

CHECKOUT = Path(__file__).parents[1]
ENTRY_POINTS = sorted(path.stem for path in (CHECKOUT / "jobs").glob("[!_]*.py"))
TOKEN = "a-token-of-this-test-alone-0123456789abcdef"
DEADLINE_S = 600.0
"""For each step of a job on the busiest machine; together they take under a minute on two idle cores."""
STEPS = 1000
SETTINGS: dict[str, Any] = {
    "space.settings": "{channels = 4, cells_per_stage = 1}",
    "training.steps": STEPS,
    "training.batch_size": 16,
    "training.checkpoint_every_s": 0.2,
    "evaluation.images": 64,
    "search.evaluations": 12,
    "search.batch_size": 4,
    "selector.finalists": 1,
    "retraining.epochs": 1,
    "retraining.calibration": 3,
}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_is_the_command_of_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CHECKOUT / "jobs" / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert f"{name}.py {name} [OPTIONS]" in capsys.readouterr()[0]


def test_every_command_that_runs_stages_has_an_entry_point() -> None:
    assert ENTRY_POINTS == ["export", "gap", "leaderboard", "rank", "report", "retrain", "search", "train"]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head(cpus=2, token=TOKEN) as started:
        yield started


@dataclass
class Jobs:
    """Submits the checkout's code to a cluster that asks for a token."""

    head: Head
    client: JobSubmissionClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = JobSubmissionClient(self.head.dashboard, headers={"Authorization": f"Bearer {TOKEN}"})

    def submit(self, *command: str) -> str:
        environment = {"env_vars": {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}, "working_dir": str(CHECKOUT)}
        return self.client.submit_job(entrypoint=shlex.join([sys.executable, *command]), runtime_env=environment)  # type: ignore[no-any-return]

    def search(self, storage: Path, **changes: Any) -> str:
        settings = SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
        overrides = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        place = ["--storage", str(storage), "--name", "run"]
        return self.submit("jobs/search.py", "--method", "random_search", *overrides, *place)

    def wait(self, job: str) -> JobStatus:
        wait_until(lambda: self.client.get_job_status(job).is_terminal(), DEADLINE_S)
        return self.client.get_job_status(job)


@pytest.fixture(scope="module")
def jobs(head: Head) -> Jobs:
    return Jobs(head)


def test_a_cluster_in_token_mode_takes_no_job_without_the_token(jobs: Jobs) -> None:
    request = urllib.request.Request(f"{jobs.head.dashboard}/api/jobs/", data=b'{"entrypoint": "id"}', method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=30)


def test_a_mistake_ends_a_job_with_exit_code_2_and_one_line(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.search(tmp_path, training__stepz=3)
    assert jobs.wait(job) == JobStatus.FAILED
    info = jobs.client.get_job_info(job)
    assert info.driver_exit_code == 2
    logs = jobs.client.get_job_logs(job)
    assert "unknown setting 'training.stepz'; did you mean 'steps'?" in logs
    assert "Traceback" not in logs
    assert [*tmp_path.iterdir()] == []


def test_a_job_runs_the_code_that_was_uploaded_and_no_more_was(jobs: Jobs) -> None:
    printing = (
        "import pathlib, raynas; print(pathlib.Path(raynas.__file__).parents[1]); print(*pathlib.Path().iterdir())"
    )
    job = jobs.submit("-c", printing)
    assert jobs.wait(job) == JobStatus.SUCCEEDED
    place, names = jobs.client.get_job_logs(job).splitlines()[-2:]
    assert "_ray_pkg_" in place and str(jobs.head.temp) in place
    assert {"raynas", "search_spaces", "jobs"} <= set(names.split())
    assert not {".git", ".venv", "tests", "k8s", "runs"} & set(names.split())


def test_a_job_that_is_stopped_and_submitted_again_continues(jobs: Jobs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped = jobs.search(tmp_path)
    wait_until(partial(_begun, jobs, stopped, run), DEADLINE_S, every_s=0.05)
    assert jobs.client.stop_job(stopped)
    assert jobs.wait(stopped) == JobStatus.STOPPED
    [supernet] = (run / "supernets").iterdir()
    state = load_state(Folder(str(supernet)), "checkpoint.safetensors")
    assert 0 < state["step"] < STEPS and not (supernet / "state.json").exists()

    again = jobs.search(tmp_path)
    assert jobs.wait(again) == JobStatus.SUCCEEDED, jobs.client.get_job_logs(again)
    curves = pq.read_table(supernet / "curves.parquet").to_pylist()
    # what was trained before the stop, to the very seconds that it took, was not trained again
    assert curves[: len(state["curves"])] == state["curves"]
    assert curves[-1]["step"] == STEPS
    assert pq.read_table(run / "ranking.parquet").num_rows == 12
    trained = [*run.glob("finalists/*/result.json"), *run.glob("calibration/*/result.json")]
    networks = {json.loads(one.read_text())["architecture"] for one in trained}
    assert json.loads((run / "gap.json").read_text())["n"] == len(networks) >= 3
    assert "</html>" in (run / "report.html").read_text()
    logs = jobs.client.get_job_logs(again)
    for stage in ("supernets", "population", "ranking", "calibration", "retraining", "gap"):
        assert f"{stage}: done after" in logs
    assert logs.splitlines()[-1] == str(run / "report.html")
    assert jobs.client.get_job_info(again).driver_exit_code == 0


def _begun(jobs: Jobs, job: str, run: Path) -> bool:
    """Whether a checkpoint was written."""
    assert not jobs.client.get_job_status(job).is_terminal(), jobs.client.get_job_logs(job)
    return any(run.glob("supernets/*/checkpoint.safetensors"))
