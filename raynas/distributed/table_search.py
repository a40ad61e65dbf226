"""Searching a ground-truth table instead of supernets: many seeds of every member, on Ray where that pays."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raynas import seeds
from raynas.architecture import encode
from raynas.config import Config, TableSettings, content_hash
from raynas.distributed.cluster import connect
from raynas.errors import UserError
from raynas.members import load_member
from raynas.plan import MemberPlan, build_strategy, make_plan
from raynas.progress import Progress
from raynas.run import TABLE_SEARCH, begin_run, begun_otherwise, open_run, same_data, settings_of
from raynas.storage import Folder
from raynas.strategy import Strategy, learns
from raynas.table_evaluator import SEARCH_SCHEMA, TableEvaluator, search_table
from raynas.terminal import figures
from raynas.units import span

STARTING_RAY_PAYS_S = 60.0
"""What one process can do in less is done without Ray, which takes long to start beside that."""
PACE_IS_KNOWN_S = 2.0
SAVE_EVERY_S = 10.0

Parts = dict[tuple[str, int], pa.Table]
"""The rows of each search, by member and seed."""


@dataclass(frozen=True, slots=True)
class Searched:
    """The searches of a table: in which folder they stand, of which members, and their rows by member and seed."""

    run: Folder
    table: TableEvaluator
    members: tuple[MemberPlan, ...]
    parts: Parts

    @property
    def path(self) -> str:
        """Of `table_search.parquet`."""
        return self.run.path(TABLE_SEARCH)

    @property
    def rows(self) -> pa.Table:
        """All rows: by member, in the configuration's order, then by seed."""
        order = {member.name: place for place, member in enumerate(self.members)}
        keys = sorted(self.parts, key=lambda key: (order[key[0]], key[1]))
        return pa.concat_tables([SEARCH_SCHEMA.empty_table(), *(self.parts[key] for key in keys)])


def search_tables(
    config: Config, path: str, repeats: int, storage: str, name: str | None, address: str | None
) -> Searched:
    """Run every member `repeats` times against the table; writes `table_search.parquet`.

    What the file holds already is kept and not searched again, so more repeats can be added. A member that minimises
    several objectives minimises minus the reward and the cost, if `[table]` names one; every other only minus the
    reward. A member whose strategy needs what a training rule learnt is left out: a table has no supernet to learn
    with. Raises UserError for constraints, which a table cannot check.
    """
    if config.constraints:
        raise UserError("a table search cannot keep [constraints]: no network is built in it; leave them out.")
    plan = make_plan(config)
    members = tuple(one for one in plan.members if not learns(load_member("raynas.strategies", one.strategy)))
    if not members:
        raise UserError("no member can search a table: all learn from a supernet; add --method random_search.")
    table = TableEvaluator(plan.space, path, config.table or TableSettings())
    run = open_run(config, storage, name or f"table-{Path(path).stem}-{content_hash(settings_of(config))}")
    fingerprint = content_hash([list(map(encode, table.row)), table.reward_A, table.report_A, table.cost_A])
    same_data(run, fingerprint)
    begin_run(run, config, fingerprint)
    searched = Searched(run, table, members, _read(run))
    parts = searched.parts
    with Progress(Console()) as progress:
        for line in (*begun_otherwise(run), *_remarks(table, plan.members, members)):
            progress.note(line)
        jobs = [(one, seed) for seed in range(repeats) for one in members if (one.name, seed) not in parts]
        task = f"{len(members)} members"
        progress.begin("table search", {task: len(parts) + len(jobs)}, unit="searches")
        progress.update(task, done=len(parts))
        saved = time.monotonic()
        try:
            for (member, seed), rows in _results(jobs, table, config, address):
                parts[member.name, seed] = rows
                progress.update(task, done=len(parts))
                if time.monotonic() - saved > SAVE_EVERY_S:
                    run.write_table(TABLE_SEARCH, searched.rows)
                    saved = time.monotonic()
        finally:
            if jobs:
                run.write_table(TABLE_SEARCH, searched.rows)
        for member in members:
            if met_nothing := sum(not len(parts[member.name, seed]) for seed in range(repeats)):
                progress.note(
                    f"{met_nothing:,} of {repeats:,} searches of {member.name} met nothing that the table scores, and "
                    "have no say in its mean"
                )
    return searched


def _results(
    jobs: Sequence[tuple[MemberPlan, int]], table: TableEvaluator, config: Config, address: str | None
) -> Iterator[tuple[tuple[MemberPlan, int], pa.Table]]:
    """The rows of each job: one after the other in this process; on Ray if asked for, or if that would take long."""
    began = time.monotonic()
    for done, (member, seed) in enumerate(jobs):
        elapsed = time.monotonic() - began
        left_s = elapsed * (len(jobs) - done) / max(done, 1)
        if address is not None or (elapsed > PACE_IS_KNOWN_S and left_s > STARTING_RAY_PAYS_S):
            yield from _on_ray(jobs[done:], table, config, address)
            return
        yield (member, seed), _search(table, member, seed, config)


def _on_ray(
    jobs: Sequence[tuple[MemberPlan, int]], table: TableEvaluator, config: Config, address: str | None
) -> Iterator[tuple[tuple[MemberPlan, int], pa.Table]]:
    connect(address)
    shared, task = ray.put(table), ray.remote(_search)
    calls = {task.remote(shared, member, seed, config): (member, seed) for member, seed in jobs}
    waiting = list(calls)
    while waiting:
        done, waiting = ray.wait(waiting)
        yield calls[done[0]], ray.get(done[0])


def _search(table: TableEvaluator, member: MemberPlan, seed: int, config: Config) -> pa.Table:
    def strategy(seed: int) -> Strategy:
        own = replace(member, seed=seeds.integer(config.seed, "table", member.name, seed))
        return build_strategy(own, table.space, ())  # type: ignore[no-any-return]

    return search_table(
        table,
        strategy,
        method=member.name,
        seeds=[seed],
        evaluations=config.search.evaluations,
        batch_size=config.search.batch_size,
        objectives=table.objectives if len(member.objectives) > 1 else table.objectives[:1],
    )


def _remarks(table: TableEvaluator, asked: Sequence[MemberPlan], members: Sequence[MemberPlan]) -> Iterator[str]:
    """What the user should know before the search."""
    if learning := [one.name for one in asked if one not in members]:
        yield f"left out: {', '.join(learning)}; they search what a supernet learnt, and a table has none"
    if table.scorable < table.space.size:
        yield (
            f"the table scores {table.scorable:,} of the {table.space.size:,} keys of {table.space.name}; a network "
            "that it has under none of its keys costs no evaluation, and a search that meets too many ends early"
        )
    several = [one.name for one in members if len(one.objectives) > 1]
    if several and table.cost_A is None:
        yield f"no table.cost is named, so the reward is the one objective of {', '.join(several)}"


def _read(run: Folder) -> Parts:
    """What the run's file holds, whose rows stand together by member and seed."""
    if not run.exists(TABLE_SEARCH):
        return {}
    found = run.read_table(TABLE_SEARCH, SEARCH_SCHEMA.names)
    first: dict[tuple[str, int], int] = {}
    for row, key in enumerate(zip(found["method"].to_pylist(), found["seed"].to_pylist(), strict=True)):
        first.setdefault(key, row)
    ends = [*list(first.values())[1:], len(found)]
    return {key: found.slice(row, end - row) for (key, row), end in zip(first.items(), ends, strict=True)}


def summary(searched: Searched) -> Table:
    """What each member's searches end with: the report of the architecture with the best reward."""
    table = searched.table
    shown = figures(
        f"{table.settings.report} of the best by {table.settings.reward}",
        *("member", "seeds", "evaluations", "mean", "std", "min", "max"),
        caption=f"highest {table.settings.report} in the table: {table.highest_report:,.3f}",
    )
    for member in searched.members:
        ends = [
            rows.slice(len(rows) - 1) for (name, _), rows in searched.parts.items() if name == member.name and len(rows)
        ]
        if not ends:
            shown.add_row(Text(member.name), "0", *["–"] * 5)
            continue
        reports = np.array([end["best_report_so_far"][0].as_py() for end in ends])
        counts = [end["evaluation"][0].as_py() for end in ends]
        numbers = (reports.mean(), reports.std(), reports.min(), reports.max())
        shown.add_row(
            Text(member.name),
            f"{len(ends):,}",
            span(min(counts), max(counts)),
            *(f"{number:,.3f}" for number in numbers),
        )
    return shown
