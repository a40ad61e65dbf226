"""The leaderboard: what is ranked, against what it is compared, and that the same searches give the same bytes."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from raynas import charts, cli
from raynas.config import TableSettings
from raynas.leaderboard import black_box_methods, standings, summary, write_leaderboard
from raynas.storage import Folder
from raynas.table_evaluator import SEARCH_SCHEMA
from search_spaces.nas_bench_macro import SPACE


def rows(searches: dict[str, list[list[float]]], cost: float | None = None) -> pa.Table:
    """SEARCH_SCHEMA of each member's searches, given as the best report after each evaluation."""
    found = [
        (method, seed, number, "0", best, best, cost, best)
        for method, of_method in searches.items()
        for seed, bests in enumerate(of_method)
        for number, best in enumerate(bests, start=1)
    ]
    return pa.table(dict(zip(SEARCH_SCHEMA.names, map(list, zip(*found, strict=True)), strict=True)), SEARCH_SCHEMA)


def test_the_highest_mean_is_first_and_equals_stand_by_name() -> None:
    ranked = standings(rows({"b": [[1.0, 3.0]], "a": [[3.0]], "c": [[4.0, 2.0]], "best": [[3.0], [3.5]]}))
    assert [(one.name, one.mean.value) for one in ranked] == [("best", 3.25), ("a", 3.0), ("b", 3.0), ("c", 2.0)]


def test_differences_are_paired_by_seed() -> None:
    noise = np.random.default_rng(0).normal(0, 10, 30)  # the same for both, so that only the pairs tell them apart
    ranked = standings(rows({"ours": [[x + 1.0] for x in noise], "random_search": [[x] for x in noise]}))
    ours, random = ranked
    assert ours.lead is not None and random.lag is not None
    np.testing.assert_allclose([ours.lead.value, ours.lead.low, ours.lead.high], 1.0)
    np.testing.assert_allclose([random.lag.value, random.lag.low, random.lag.high], -1.0)
    assert ours.lag is None and random.lead is None
    assert ours.mean.low < ours.mean.value - 2 and not ours.mean.low > random.mean.high


def test_seeds_that_one_side_lacks_are_left_out_of_a_difference() -> None:
    table = rows({"ours": [[5.0], [7.0], [100.0]], "random_search": [[4.0], [4.0]]})
    assert standings(table)[0].lead.value == 2.0  # type: ignore[union-attr]


def test_a_search_that_ended_early_keeps_its_last_report_and_cost() -> None:
    (one,) = standings(rows({"a": [[1.0], [2.0, 3.0, 4.0]]}, cost=10.0))
    assert one.reports_SE.tolist() == [[1, 1, 1], [2, 3, 4]]
    assert one.evaluations_S == (1, 3)
    assert one.cost_E is not None and one.cost_E.tolist() == [10, 15, 20]


def test_regret_is_drawn_where_its_mean_is_zero() -> None:
    regrets = {"a": np.array([[1.0, 0.5, 0.0]]), "random_search": np.array([[1.0, 1.0, 0.2], [1.0, 0.6, 0.4]])}
    spent = {name: np.arange(1.0, 4.0) for name in regrets}
    figure = charts.regret(regrets, spent, "evaluations", "random_search")
    lines = {trace["name"]: trace for trace in figure["data"] if "name" in trace}
    assert lines["a"]["y"] == pytest.approx([1.0, 0.5, 0.1])  # a third of the smallest mean, 0.3
    assert lines["random_search"]["y"] == pytest.approx([1.0, 0.8, 0.3])
    assert all(value > 0 for trace in figure["data"] for value in trace["y"])


def test_every_black_box_strategy_is_listed_and_none_that_a_supernet_teaches() -> None:
    methods = black_box_methods()
    assert {"random_search", "local_search", "optuna_gp", "bayesian_optimisation"} <= set(methods)
    assert not {"parsec", "few_shot", "distribution_sampling"} & set(methods)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The more of choice 1 the better."""
    keys = list(product(range(3), repeat=8))
    rewards = [float(sum(choice == 1 for choice in key)) for key in keys]
    columns = {"arch": [SPACE.print(key) for key in keys], "valid": rewards, "test": [90 + one for one in rewards]}
    path = tmp_path_factory.mktemp("table") / "macro.parquet"
    pq.write_table(pa.table(columns | {"train_s": [1.0 + sum(key) for key in keys]}), path)
    return str(path)


def command(table: str, storage: Path, *more: str) -> list[str]:
    columns = {"key": "arch", "reward": "valid", "report": "test", "cost": "train_s"}
    named = [word for name, column in columns.items() for word in ("--set", f"table.{name}={column}")]
    methods = ["--method", "local_search", "--method", "nsga2"]
    return [
        *("leaderboard", "--table", table, "--space", "nas_bench_macro", "--storage", str(storage), "--name", "board"),
        *("--evaluations", "40", "--repeats", "3", *methods, *named, *more),
    ]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(*arguments)
    return int(ended.value.code or 0)


def test_the_command_ranks_by_the_reward_alone_and_writes_one_page(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["raynas"])
    assert run(*command(table, tmp_path)) == 0
    printed = capsys.readouterr().out
    page = tmp_path / "board" / "leaderboard.html"
    assert printed.splitlines()[-1] == str(page)
    figures: dict[str, Any] = json.loads((page.parent / "leaderboard.json").read_text())
    assert figures["best"] == 98
    names = [one["name"] for one in figures["members"]]
    assert names[0] == "local_search" and set(names) == {"local_search", "nsga2", "random_search"}
    found = pq.read_table(page.parent / "table_search.parquet").to_pylist()
    for one in figures["members"]:
        ends = {row["seed"]: row["best_report_so_far"] for row in found if row["method"] == one["name"]}
        assert one["report"]["value"] == pytest.approx(sum(ends.values()) / 3)
        assert one["regret"] == pytest.approx(98 - sum(ends.values()) / 3)
    text = page.read_text()
    drawn = json.loads(re.search(r'id="charts">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert len(drawn) == 2  # by evaluations and by cost
    assert all(
        {"local_search", "random_search"} <= {trace.get("name") for trace in one["data"]} for one in drawn.values()
    )
    before = page.read_bytes()
    assert run(*command(table, tmp_path)) == 0
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--set", "table.reward=accuracy"], "no column 'accuracy'"),
        (["--method", "locl_search"], "local_search"),
        (["--evaluations", "0"], "--evaluations"),
        (["--space", "nas_bench_201"], "no architecture of nas_bench_201"),
    ],
    ids=lambda value: str(value),
)
def test_mistakes_are_told_in_one_line(
    table: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    told: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["raynas"])
    assert run(*command(table, tmp_path, *more)) == 2
    error = capsys.readouterr().err
    assert told in error and len(error.splitlines()) == 1
    assert not (tmp_path / "board").exists()


def test_the_summary_is_read_on_80_columns() -> None:
    noise = np.random.default_rng(0).normal(94, 0.2, (12, 30))
    names = ["random_search", "a-name-that-somebody-made-much-too-long-for-any-terminal", *(f"m{n}" for n in range(10))]
    searches = {name: [[x] for x in of] for name, of in zip(names, noise.tolist(), strict=True)}
    console = Console(width=80)
    with console.capture() as captured:
        console.print(summary(standings(rows(searches)), TableSettings(report="test", reward="valid"), 94.5))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "random_search" in text and "against random" in text and "mean of 30 searches" in text
    assert "m9" in text and "12" in text


def test_a_page_of_names_that_are_markup_holds_none(tmp_path: Path) -> None:
    ranked = standings(rows({"<b>a</b>": [[1.0, 2.0]]}))
    facts = {"table": "<i>x</i>"}
    write_leaderboard(Folder(str(tmp_path)), ranked, TableSettings(report="<u>r</u>"), 2.0, facts)
    text = (tmp_path / "leaderboard.html").read_text().split("<script>")[0]
    assert not {"<b>a", "<i>x", "<u>r"} & set(re.findall(r"<[biu]>\w", text))
