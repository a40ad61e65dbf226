"""`raynas search --table`: many seeds of every member, kept, continued, and the same with and without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from raynas import config
from raynas.distributed import table_search
from raynas.distributed.table_search import search_tables
from raynas.errors import UserError
from raynas.table_evaluator import SEARCH_SCHEMA
from search_spaces.nas_bench_macro import SPACE

DATA = Path(__file__).parents[1].parent / "shared" / "data"
COLUMNS = ["method", "seed", "evaluation", "architecture", "reward", "report", "cost", "best_report_so_far"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The keys whose choices do not sum to a multiple of 5: the more of choice 1 the better, and every choice costs."""
    keys = [key for key in product(range(3), repeat=8) if sum(key) % 5]
    rewards = [float(sum(choice == 1 for choice in key)) for key in keys]
    columns = {
        "key": [SPACE.print(key) for key in keys],
        "reward": rewards,
        "report": [90 + reward for reward in rewards],
        "flops": [sum(key) for key in keys],
    }
    path = tmp_path_factory.mktemp("table") / "macro.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


Search = Callable[..., pa.Table]


@pytest.fixture
def search(table: str, tmp_path: Path) -> Search:
    """Runs members on the table in this process and returns what they wrote."""

    def run(
        *methods: str | dict[str, Any], repeats: int = 2, name: str = "run", path: str = table, **sections: Any
    ) -> pa.Table:
        values = {
            "space": {"name": "nas_bench_macro"},
            "members": [{"method": method} if isinstance(method, str) else method for method in methods],
            "search": {"evaluations": 40, "random_baseline": False},
            **sections,
        }
        written = search_tables(config.check(values), path, repeats, str(tmp_path), name, None).path
        assert written == str(tmp_path / name / "table_search.parquet")
        return pq.read_table(written)

    return run


def test_every_member_searches_with_every_seed(search: Search) -> None:
    found = search("regularized_evolution", "random_search", repeats=3, table={"cost": "flops"})
    assert found.schema == SEARCH_SCHEMA and found.column_names == COLUMNS
    rows = found.to_pylist()
    assert [(row["method"], row["seed"], row["evaluation"]) for row in rows] == [
        (method, seed, number)
        for method in ("regularized_evolution", "random_search")
        for seed in range(3)
        for number in range(1, 41)
    ]
    for row in rows:
        key = SPACE.parse(row["architecture"])
        assert sum(key) % 5  # what the table does not hold gives no row
        assert (row["reward"], row["cost"]) == (sum(choice == 1 for choice in key), sum(key))
    assert len({tuple(row["architecture"] for row in rows[n : n + 40]) for n in range(0, 240, 40)}) == 6


def test_more_repeats_go_on_where_the_file_ends(search: Search, tmp_path: Path) -> None:
    few = search("random_search", "nsga2", repeats=2, name="grown")
    search("random_search", "nsga2", repeats=4, name="grown")
    search("random_search", "nsga2", repeats=4, name="at once")
    grown, at_once = (tmp_path / name / "table_search.parquet" for name in ("grown", "at once"))
    assert grown.read_bytes() == at_once.read_bytes()
    assert {row["seed"] for row in few.to_pylist()} == {0, 1}


def test_the_same_command_again_does_nothing(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = search("random_search")
    before = (tmp_path / "run" / "table_search.parquet").stat().st_mtime_ns
    monkeypatch.setattr(table_search, "_search", lambda *_: pytest.fail("searched again"))
    assert search("random_search") == first
    assert (tmp_path / "run" / "table_search.parquet").stat().st_mtime_ns == before


def test_what_was_found_before_an_interruption_is_kept(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = search("random_search", repeats=4, name="undisturbed")
    real = table_search._search

    def interrupted(table: Any, member: Any, seed: int, settings: Any) -> pa.Table:
        if seed == 2:
            raise KeyboardInterrupt
        return real(table, member, seed, settings)

    with monkeypatch.context() as patch:
        patch.setattr(table_search, "_search", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search("random_search", repeats=4)
    assert pq.read_table(tmp_path / "run" / "table_search.parquet") == undisturbed.slice(0, 2 * 40)
    assert search("random_search", repeats=4) == undisturbed


def test_one_objective_is_searched_alike_whether_or_not_a_cost_is_named(search: Search) -> None:
    def asked(member: str | dict[str, Any], name: str, **table: str) -> list[str]:
        return search(member, name=name, repeats=1, table=table)["architecture"].to_pylist()  # type: ignore[no-any-return]

    by_reward = {"method": "nsga2", "objectives": ["score"]}
    assert asked(by_reward, "a") == asked(by_reward, "b", cost="flops")
    assert asked("nsga2", "c") != asked("nsga2", "d", cost="flops")  # it trades the reward against the cost


def test_two_objectives_without_a_cost_are_the_reward_alone_and_it_says_so(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    # evolution by the one objective gets far above what 80 random keys reach
    best = max(search("nsga2", repeats=1, search={"evaluations": 300})["reward"].to_pylist())
    assert best >= 7
    assert "no table.cost is named, so the reward is the one objective of nsga2" in " ".join(
        capsys.readouterr()[0].split()
    )


def test_a_table_of_a_part_of_the_space_is_told(search: Search, capsys: pytest.CaptureFixture[str]) -> None:
    search("random_search")
    part = sum(sum(key) % 5 > 0 for key in product(range(3), repeat=8))
    assert f"the table scores {part:,} of the 6,561 keys of nas_bench_macro" in " ".join(capsys.readouterr()[0].split())


def test_members_that_learn_from_a_supernet_are_left_out_in_one_line(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(search("parsec", "random_search")["method"].to_pylist()) == {"random_search"}
    assert sum("left out: parsec" in line for line in capsys.readouterr()[0].splitlines()) == 1
    with pytest.raises(UserError, match="all learn from a supernet; add --method random_search"):
        search("parsec", name="alone")


def test_constraints_are_refused(search: Search) -> None:
    with pytest.raises(UserError, match="leave them out"):
        search("random_search", constraints={"macs": 5.0})


def test_another_table_under_the_same_name_is_refused(search: Search, table: str, tmp_path: Path) -> None:
    search("random_search")
    whole = pq.read_table(table)
    pq.write_table(whole.slice(1), tmp_path / "less.parquet")
    with pytest.raises(UserError, match="choose another --name"):
        search("random_search", path=str(tmp_path / "less.parquet"))


def test_a_broken_file_is_told_in_one_line(search: Search, tmp_path: Path) -> None:
    search("random_search")
    written = tmp_path / "run" / "table_search.parquet"
    written.write_bytes(written.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"not a whole Parquet file.*delete it"):
        search("random_search")


def test_a_table_of_nothing_that_is_asked_ends_without_rows(search: Search, tmp_path: Path) -> None:
    one = {"key": ["11111111"], "reward": [1.0], "report": [1.0]}
    pq.write_table(pa.table(one), tmp_path / "one.parquet")
    found = search("regularized_evolution", path=str(tmp_path / "one.parquet"), search={"evaluations": 2})
    assert len(found) < 2 and found.schema == SEARCH_SCHEMA


def test_searches_that_met_nothing_are_told(search: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = {"key": ["11111111"], "reward": [1.0], "report": [1.0]}
    pq.write_table(pa.table(one), tmp_path / "one.parquet")
    found = search("random_search", path=str(tmp_path / "one.parquet"), repeats=2, search={"evaluations": 2})
    lost = 2 - len(set(found["seed"].to_pylist()))
    assert lost and f"{lost} of 2 searches of random_search met nothing" in " ".join(capsys.readouterr()[0].split())


def test_the_summary_is_read_on_80_columns(table: str, tmp_path: Path) -> None:
    members = [{"method": "random_search", "name": "a-name-that-somebody-made-much-too-long-for-any-terminal"}]
    settings = config.check({"space": {"name": "nas_bench_macro"}, "members": members})
    searched = search_tables(settings, table, 2, str(tmp_path), None, None)
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table_search.summary(searched))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 80
    for word in ("report of the best by reward", "highest report in the table: 98", "128", "mean", "std"):
        assert word in text


def command(*arguments: str) -> str:
    """Runs `raynas search` as a user does; a Ray that it starts lives and dies with it."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", "raynas.cli", "search", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_on_ray_the_file_has_the_same_bytes(search: Search, table: str, tmp_path: Path) -> None:
    alone = search("random_search", "optuna_tpe", repeats=3)
    overrides = ["--set", "search.evaluations=40", "--set", "search.random_baseline=false"]
    methods = ["--method", "random_search", "--method", "optuna_tpe"]
    place = ["--storage", str(tmp_path), "--name", "ray", "--address", "local"]
    command("--space", "nas_bench_macro", "--table", table, "--repeats", "3", *methods, *overrides, *place)
    assert pq.read_table(tmp_path / "ray" / "table_search.parquet") == alone
    files = [(tmp_path / name / "table_search.parquet").read_bytes() for name in ("run", "ray")]
    assert files[0] == files[1]


def benchmark(name: str) -> str:
    if not DATA.is_dir():
        pytest.skip("the ground-truth tables are not here")
    return str(DATA / name)


def test_evolution_beats_random_search_on_nas_bench_201(tmp_path: Path) -> None:
    columns = ["table.key=arch_str", "table.reward=c10_valid_12", "table.report=c10_test_200"]
    columns += ["table.cost=c10_train_s_per_epoch_est", "search.evaluations=200"]
    overrides = [word for column in columns for word in ("--set", column)]
    methods = ["--method", "random_search", "--method", "regularized_evolution"]
    path = benchmark("nb201_cifar10.parquet")
    printed = command("--table", path, *overrides, *methods, "--repeats", "20", "--storage", str(tmp_path))
    file = Path(printed.splitlines()[-1])
    assert file.parent.parent == tmp_path and "table-nb201_cifar10" in file.parent.name
    found = pq.read_table(file).to_pylist()
    assert len(found) == 2 * 20 * 200
    ends = {(row["method"], row["seed"]): row["best_report_so_far"] for row in found}
    mean = {
        method: sum(end for (name, _), end in ends.items() if name == method) / 20
        for method in ("random_search", "regularized_evolution")
    }
    assert mean["random_search"] + 0.2 < mean["regularized_evolution"] <= 94.3733


def test_nas_bench_macro_is_searched_though_three_of_four_keys_are_missing(search: Search) -> None:
    columns = {"key": "arch", "reward": "acc_s1", "report": "mean_acc", "cost": "flops"}
    found = search(
        "regularized_evolution",
        "nsga2",
        path=benchmark("nas_bench_macro_1640.parquet"),
        table=columns,
        search={"evaluations": 200},
    )
    rows = found.to_pylist()
    assert len(rows) == 3 * 2 * 200  # the baseline is among them
    assert all(row["cost"] > 0 for row in rows)
    assert all(row["best_report_so_far"] > 92 for row in rows if row["evaluation"] == 200)
