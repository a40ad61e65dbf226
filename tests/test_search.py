"""One member's search: its budget, what it is told, and its record, from which the search repeats itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raynas import config
from raynas.architecture import Architecture, encode
from raynas.config import Config
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.plan import MemberPlan
from raynas.search import MOST_ASKED, Record, Remembering, read_evaluations, search
from raynas.shapes import evaluations
from raynas.storage import Folder
from raynas.strategies.nsga2 import Nsga2
from raynas.strategies.random_search import RandomSearch
from raynas.strategies.regularized_evolution import RegularizedEvolution
from raynas.strategy import Strategy
from raynas.testing import STAGES

COSTS = ("parameters", "macs")
CONFIG: Config = config.check({"search": {"evaluations": 24, "batch_size": 5}})
MEMBER = MemberPlan("mine", "random_search", {}, None, ("loss",), "0123456789ab", 7)


class Evaluator:
    """Measures four objectives of STAGES' networks; those with more than `limit` skips are rejected."""

    objectives = ("loss", "error", *COSTS)

    def __init__(self, limit: int = 6) -> None:
        self.limit = limit
        self.asked: list[Architecture] = []

    def evaluate(self, architectures: Sequence[Architecture]) -> Iterator[Evaluation]:
        for one in architectures:
            self.asked.append(one)
            skips = one.count(0)
            if skips > self.limit:
                yield Evaluation(one, (), f"constraint: skips {skips} > {self.limit}")
            else:
                yield Evaluation(one, (sum(one) / 7, skips / 6, float(sum(one)), float(one.count(2))))


class Listener:
    """A strategy that asks for what it was made with, and remembers what it was told."""

    def __init__(self, architectures: Sequence[Architecture] = ()) -> None:
        self.left = list(architectures)
        self.counts: list[int] = []
        self.told: list[Evaluation] = []

    def ask(self, count: int) -> list[Architecture]:
        self.counts.append(count)
        asked, self.left = self.left[:count], self.left[count:]
        return asked

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.told += evaluations


def keys(count: int) -> list[Architecture]:
    return RandomSearch(STAGES, seed=0).ask(count)


def run(
    strategy: Strategy, evaluator: Evaluator, objectives: Sequence[str] = ("loss",), **settings: int
) -> list[Evaluation]:
    budget = {"evaluations": 24, "batch_size": 5, **settings}
    return [one for batch in search(strategy, evaluator, objectives, **budget) for one in batch]  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 5, 24, 100])
def test_the_budget_counts_what_was_scored_alone(batch_size: int) -> None:
    measured = run(RandomSearch(STAGES, seed=0), Evaluator(limit=1), batch_size=batch_size)
    assert sum(bool(one.objectives) for one in measured) == 24
    assert any(one.failure for one in measured)


def test_a_batch_never_goes_beyond_the_budget() -> None:
    strategy = Listener(keys(60))
    run(strategy, Evaluator(), evaluations=12)
    assert strategy.counts == [5, 5, 2]


def test_what_was_rejected_is_told() -> None:
    strategy = Listener(keys(60))
    measured = run(strategy, Evaluator(limit=1))
    rejected = [one for one in measured if one.failure]
    assert rejected and [one for one in strategy.told if one.failure] == rejected
    assert [one.architecture for one in strategy.told] == [one.architecture for one in measured]


@pytest.mark.parametrize("objectives", [("loss",), ("error", "macs"), ("macs", "loss", "parameters")])
def test_a_strategy_is_told_the_objectives_that_it_minimises_in_their_order(objectives: tuple[str, ...]) -> None:
    strategy = Listener(keys(60))
    measured = run(strategy, Evaluator(), objectives)
    columns = [Evaluator.objectives.index(name) for name in objectives]
    assert [one.objectives for one in strategy.told] == [tuple(one.objectives[c] for c in columns) for one in measured]
    assert all(len(one.objectives) == 4 for one in measured)


def test_what_was_derived_is_evaluated_and_told_before_the_strategy_is_asked() -> None:
    derived = [(2, 2, 2, 2, 2, 2), (1, 1, 1, 1, 1, 1)]
    strategy = Listener(keys(60))
    batches = list(search(strategy, Evaluator(), ("loss",), evaluations=12, batch_size=5, first=derived))
    assert [one.architecture for one in batches[0]] == derived
    assert [one.architecture for one in strategy.told[:2]] == derived
    assert strategy.counts == [5, 5]  # 2 of the 12 are spent


def test_a_strategy_that_was_told_of_the_derived_one_does_not_ask_for_it() -> None:
    measured = [
        one.architecture
        for batch in search(
            RandomSearch(STAGES, seed=0), Evaluator(), ("loss",), evaluations=1000, batch_size=50, first=[(1,) * 6]
        )
        for one in batch
    ]
    assert measured.count((1,) * 6) == 1 and len(measured) == 225  # all networks of the space


def test_a_search_ends_with_its_strategy() -> None:
    assert len(run(Listener(keys(7)), Evaluator())) == 7


@pytest.mark.parametrize("asked", [[0] * 6, (0.0,) * 6, "0-0-0-0-0-0", None])
def test_a_strategy_that_asks_for_no_architecture_is_told_before_it_is_on_record(asked: Any) -> None:
    with pytest.raises(UserError, match=r"^Listener\.ask: expected architectures as tuples of whole numbers"):
        run(Listener([asked]), evaluator := Evaluator())
    assert not evaluator.asked


def test_a_search_that_scores_nothing_ends() -> None:
    class Stubborn(Listener):
        def ask(self, count: int) -> list[Architecture]:
            return [(0,) * 6] * count

    measured = run(Stubborn(), Evaluator(limit=-1))
    assert MOST_ASKED * 24 <= len(measured) < MOST_ASKED * 24 + 5
    assert not any(one.objectives for one in measured)


@pytest.mark.parametrize("strategy", [RandomSearch, RegularizedEvolution, Nsga2])
@pytest.mark.parametrize("stopped_after", [1, 3])
def test_a_search_repeats_itself_from_its_record_and_goes_on(
    strategy: type[RandomSearch], stopped_after: int, tmp_path: Path
) -> None:
    """Whatever was on file is not asked again, and the record is the undisturbed one but for its times."""

    def attempt(folder: str, batches: int | None) -> tuple[Record, list[Architecture]]:
        record = Record(Folder(str(tmp_path / folder)), MEMBER, STAGES, CONFIG)
        evaluator = Evaluator(limit=1)
        steps = search(
            strategy(STAGES, seed=3), Remembering(evaluator, record.known()), ("loss",), evaluations=24, batch_size=5
        )
        for count, batch in enumerate(steps, start=1):
            record.append(batch)
            if count == batches:
                break
        return record, evaluator.asked

    undisturbed, asked = attempt("undisturbed", None)
    _, before = attempt("stopped", stopped_after)
    resumed, after = attempt("stopped", None)
    assert [*before, *after] == asked
    assert _without_times(resumed) == _without_times(undisturbed)
    _, nothing = attempt("stopped", None)
    assert nothing == []


def test_the_time_of_a_resumed_search_goes_on_where_the_record_ends(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    batch = list(Evaluator().evaluate(keys(2)))
    stopped = Record(folder, MEMBER, STAGES, CONFIG)
    stopped.append(batch[:1])
    rows = [{**stopped.rows[0], "wall_s": 1000.0}]
    folder.write_table(stopped.name, pa.Table.from_pylist(rows, schema=evaluations(stopped.objectives)))
    resumed = Record(folder, MEMBER, STAGES, CONFIG)
    resumed.append(batch)
    assert resumed.rows[0]["wall_s"] == 1000 <= resumed.rows[1]["wall_s"] < 2000


def test_remembering_asks_only_for_what_is_missing() -> None:
    known = {one.architecture: one for one in Evaluator(limit=1).evaluate(keys(10))}
    evaluator = Evaluator(limit=1)
    remembering = Remembering(evaluator, known)
    wanted = [*keys(14)[::-1], keys(14)[12], keys(14)[0]]
    assert list(remembering.evaluate(wanted)) == list(Evaluator(limit=1).evaluate(wanted))
    assert set(evaluator.asked) == set(keys(14)[10:])
    assert remembering.objectives == evaluator.objectives
    evaluator.asked.clear()
    list(remembering.evaluate(keys(10)))
    assert evaluator.asked == []


def test_a_record_is_read_back_as_it_was_measured(tmp_path: Path) -> None:
    measured = list(Evaluator(limit=1).evaluate(keys(20)))
    record = Record(Folder(str(tmp_path)), MEMBER, STAGES, CONFIG)
    record.append(measured[:8])
    record.append(measured[8:])
    table = Folder(str(tmp_path)).read_table("evaluations/mine.parquet")
    assert table.schema == evaluations(Evaluator.objectives)
    rows = table.to_pylist()
    assert read_evaluations(rows, Evaluator.objectives) == measured
    assert [row["index"] for row in rows] == list(range(20))
    assert list(Record(Folder(str(tmp_path)), MEMBER, STAGES, CONFIG).known().values()) == measured
    for row, one in zip(rows, measured, strict=True):
        canonical = STAGES.canonicalise(one.architecture)
        assert (row["architecture"], row["canonical"]) == (encode(one.architecture), encode(canonical))
        assert (row["member"], row["supernet"], row["seed"]) == ("mine", "0123456789ab", 7)
        assert (row["loss"] is None) == (row["parameters"] is None) == (row["failure"] is not None)
        assert math.isfinite(row["wall_s"])


def test_a_search_that_does_not_repeat_its_record_is_refused(tmp_path: Path) -> None:
    first, other = keys(6)[:5], [*keys(6)[:2], *keys(6)[3:]]
    folder = Folder(str(tmp_path))
    Record(folder, MEMBER, STAGES, CONFIG).append(list(Evaluator().evaluate(first)))
    before = folder.read("evaluations/mine.parquet")
    record = Record(folder, MEMBER, STAGES, CONFIG)
    with pytest.raises(UserError, match=r"mine.parquet is not what this search asked before .*; delete it"):
        record.append(list(Evaluator().evaluate(other)))
    assert folder.read("evaluations/mine.parquet") == before


def test_a_record_is_not_shortened_while_the_search_repeats_it(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    measured = list(Evaluator().evaluate(keys(10)))
    Record(folder, MEMBER, STAGES, CONFIG).append(measured)
    again = Record(folder, MEMBER, STAGES, CONFIG)
    again.append(measured[:5])
    assert len(folder.read_table("evaluations/mine.parquet")) == 10


def _without_times(record: Record) -> list[dict[str, object]]:
    rows = record.run.read_table(record.name).to_pylist()
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]
