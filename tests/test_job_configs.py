"""The configurations that come with raynas."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from raynas import config
from raynas.members import members
from raynas.plan import make_plan
from raynas.storage import Folder

CONFIGS = Path(__file__).parents[1] / "jobs" / "configs"
ELSEWHERE = {"pnas": "cells that grow", "netadapt": "elastic layers", "flash": "cells of a width, layers and links"}
"""Methods for spaces of another kind, by what they need."""
NAMES = sorted(path.stem for path in CONFIGS.glob("*.toml"))


def path(name: str) -> str:
    return str(CONFIGS / f"{name}.toml")


def test_the_digits_file_is_the_built_in_configuration() -> None:
    written, built_in = config.load(path("digits")), config.load(None)
    assert config.differences(built_in.model_dump(), written.model_dump()) == []
    assert written == built_in


def test_the_digits_file_spells_out_every_setting() -> None:
    text = (CONFIGS / "digits.toml").read_text()
    heads = re.split(r"^\[+([a-z]+)\]+", text, flags=re.M)
    bodies = {"": heads[0]}
    for head, body in zip(heads[1::2], heads[2::2], strict=True):
        bodies[head] = bodies.get(head, "") + body  # of [[members]] there are several
    for key in config.Config.model_fields:
        section = config.section_of(config.Config, key)
        if section is None:
            assert re.search(rf"^(# )?{key} = ", bodies[""], re.M), f"{key} is missing"
        elif key != "table":
            for setting in section.model_fields:
                assert re.search(rf"^(# )?{setting} = ", bodies[key], re.M), f"{key}.{setting} is missing"
    for key, section, body in (
        ("table", config.TableSettings, ""),
        ("partitions", config.PartitionSettings, "members"),
    ):
        assert re.search(rf"^# {key} = ", bodies[body], re.M), f"{key} is missing"
        for setting in section.model_fields:
            assert re.search(rf"\b{setting} = ", bodies[body]), f"{key}.{setting} is missing"


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_names_only_what_exists(name: str) -> None:
    make_plan(config.load(path(name)))


@pytest.mark.parametrize("name", ["cifar10_nas_bench_201", "cifar10_macro"])
def test_uniform_and_fair_supernets_cost_the_same(name: str) -> None:
    settings = config.load(path(name))
    plan = make_plan(settings)
    steps = {supernet.rule: supernet.training.steps for supernet in plan.supernets}
    paths = max(len(block.choices) for block in plan.space.blocks)
    assert steps["uniform"] == steps["fair"] * paths
    assert settings.training.batch_size == 256


@pytest.mark.parametrize("name", ["cifar10_nas_bench_201", "cifar10_macro", "cifar10_darts"])
def test_what_the_comment_says_for_a_machine_without_gpus_runs_without_gpus(name: str) -> None:
    comments = "\n".join(line for line in (CONFIGS / f"{name}.toml").read_text().splitlines() if line[:1] == "#")
    assert f"raynas search jobs/configs/{name}.toml" in comments
    changes = re.findall(r"--set (\S+)", comments)
    assert len(changes) > 10
    settings = config.load(path(name), changes)
    plan = make_plan(settings)
    assert {supernet.training.gpus_per_replica for supernet in plan.supernets} == {0}
    assert {supernet.training.cpus_per_replica for supernet in plan.supernets} == {1}
    assert (settings.evaluation.gpus_per_worker, settings.retraining.gpus_per_trial) == (0, 0)
    trained = {member.name: plan.supernet(member.supernet).training.steps for member in plan.members}
    assert (
        trained.get("nsga2", 0) < trained["random_search"] > trained["parsec"]
    )  # the numbers mean the members they should


@pytest.mark.parametrize("name", ["digits", "photos", "cifar10_macro"])
def test_settings_that_are_commented_out_are_valid(name: str, tmp_path: Path) -> None:
    text = (CONFIGS / f"{name}.toml").read_text()
    uncommented, count = re.subn(r"^# (?=[a-z_]+ = )", "", text, flags=re.M)
    assert count > 0
    (tmp_path / "all.toml").write_text(uncommented)
    assert config.load(str(tmp_path / "all.toml")) != config.load(path(name))


def test_every_method_that_needs_no_other_space_is_in_one_population() -> None:
    settings = config.load(path("all_methods_digits"))
    assert {one.method for one in settings.members} == set(members("raynas.methods")) - ELSEWHERE.keys()


@pytest.mark.slow  # minutes
def test_all_methods_search_in_one_population(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raynas.cli", "search", path("all_methods_digits"), "--storage", str(tmp_path)]
    done = subprocess.run([*command, "--name", "all"], capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Folder(str(tmp_path / "all"))
    settings = config.load(path("all_methods_digits"))
    ends = run.read_json("members.json")
    assert {name: end["state"] for name, end in ends.items()} == {one.name: "done" for one in settings.members}
    ranked = run.read_table("ranking.parquet")
    rankers = {one.label for one in make_plan(settings).rankers}
    assert {name.removeprefix("rank_") for name in ranked.column_names if name.startswith("rank_")} == rankers
    assert not any(ranked[f"score_{label}"].null_count for label in rankers)  # every supernet scored every leader
    assert (tmp_path / "all" / "report.html").is_file()
