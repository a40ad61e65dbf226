"""Scores from a ground-truth table in the place of supernets, and the search on it that compares strategies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raynas.architecture import Architecture
from raynas.config import TableSettings
from raynas.errors import UserError, closest, reason
from raynas.evaluation import Evaluation
from raynas.search import search
from raynas.space import SearchSpace
from raynas.strategy import Strategy


class TableEvaluator:
    """Looks an architecture's key up in a Parquet table; keys that are the same network are rows of their own.

    A key that the table does not hold is looked up by its network: the first row of an equal one answers, of those that
    are whole. The objectives are minus the reward (a table's rewards are higher-better, whatever their unit) and, if a
    cost column is named, the cost. An architecture that the table does not hold, or holds no finite reward, report or
    cost for, fails. scorable: how many rows are whole; highest_report: of those, what a search could find at best.
    Raises UserError for a file that is missing, truncated or empty, for columns that are missing or not numeric, for
    keys that do not parse or occur twice, and for a table that can score none.
    """

    def __init__(self, space: SearchSpace, path: str, settings: TableSettings) -> None:
        self.space = space
        self.settings = settings
        named = [settings.key, settings.reward, settings.report, *([settings.cost] if settings.cost else [])]
        table = _read(path, list(dict.fromkeys(named)))
        self.columns = {name: _numbers(table, name, path) for name in dict.fromkeys(named[1:])}
        self.reward_A, self.report_A = self.columns[settings.reward], self.columns[settings.report]
        self.cost_A = self.columns[settings.cost] if settings.cost else None
        self.row = _rows(space, table.column(settings.key), settings.key, path)
        whole = {one: row for one, row in self.row.items() if self._lacks(row) is None}
        if not whole:
            raise UserError(
                f"no row of the table {path} has a finite number in each of its columns "
                f"{', '.join(map(repr, self.columns))}; name others."
            )
        self.scorable, self.highest_report = len(whole), max(self.report_A[row] for row in whole.values())
        self.row_of_network: dict[Architecture, int] = {}
        if len(self.row) < space.size:  # a table of all keys is never asked by network
            self.row_of_network = {space.canonicalise(one): row for one, row in reversed(whole.items())}

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the objectives."""
        return (f"-{self.settings.reward}", *([self.settings.cost] if self.settings.cost else []))

    def evaluate(self, architectures: Sequence[Architecture]) -> Iterator[Evaluation]:
        """One evaluation per architecture, in the order asked."""
        for architecture in architectures:
            row = self.find(architecture)
            if row is None:
                yield Evaluation(architecture, (), "not in the table")
            elif lacking := self._lacks(row):
                yield Evaluation(architecture, (), f"the table has no {lacking} for it")
            elif self.cost_A is None:
                yield Evaluation(architecture, (-self.reward_A[row],))
            else:
                yield Evaluation(architecture, (-self.reward_A[row], self.cost_A[row]))

    def find(self, architecture: Architecture) -> int | None:
        """The row that answers for an architecture."""
        row = self.row.get(architecture)
        return self.row_of_network.get(self.space.canonicalise(architecture)) if row is None else row

    def _lacks(self, row: int) -> str | None:
        """The column in which a row has no finite number, if there is one."""
        return next((name for name, values_A in self.columns.items() if not math.isfinite(values_A[row])), None)


SEARCH_SCHEMA = pa.schema(
    [
        ("method", pa.string()),
        ("seed", pa.int64()),
        ("evaluation", pa.int64()),
        ("architecture", pa.string()),
        ("reward", pa.float64()),
        ("report", pa.float64()),
        ("cost", pa.float64()),
        ("best_report_so_far", pa.float64()),
    ]
)


def search_table(
    table: TableEvaluator,
    strategy: Callable[[int], Strategy],
    *,
    method: str,
    seeds: Sequence[int],
    evaluations: int,
    batch_size: int,
    objectives: Sequence[str] | None = None,
) -> pa.Table:
    """Run a strategy, made by `strategy(seed)`, once per seed against the table: SEARCH_SCHEMA, a row per evaluation.

    objectives: those that the strategy is told, of the table's (None: all of them). `evaluation` counts from 1.
    `best_report_so_far` is the report of the architecture with the best reward so far: the incumbent is chosen by
    reward alone (of equal rewards the first), as a search that cannot see the report must choose; it may therefore
    fall. What the table does not hold costs no evaluation and gives no row. A run ends as `raynas.search.search` does:
    early where its strategy is exhausted or asks for next to nothing that the table holds.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SEARCH_SCHEMA.names}
    for seed in seeds:
        best_reward, best_report = -math.inf, math.nan
        told = table.objectives if objectives is None else objectives
        batches = search(strategy(seed), table, told, evaluations=evaluations, batch_size=batch_size)
        scored = (one for batch in batches for one in batch if one.failure is None)
        for number, evaluation in enumerate(scored, start=1):
            row = cast(int, table.find(evaluation.architecture))
            if table.reward_A[row] > best_reward:
                best_reward, best_report = table.reward_A[row], table.report_A[row]
            columns["method"].append(method)
            columns["seed"].append(seed)
            columns["evaluation"].append(number)
            columns["architecture"].append(table.space.print(evaluation.architecture))
            columns["reward"].append(table.reward_A[row])
            columns["report"].append(table.report_A[row])
            columns["cost"].append(None if table.cost_A is None else table.cost_A[row])
            columns["best_report_so_far"].append(best_report)
    return pa.table(columns, schema=SEARCH_SCHEMA)


def _read(path: str, names: list[str]) -> pa.Table:
    try:
        filesystem, place = fs.FileSystem.from_uri(path) if "://" in path else (fs.LocalFileSystem(), path)
        if (kind := filesystem.get_file_info([place])[0].type) != fs.FileType.File:
            came = "it is a folder" if kind == fs.FileType.Directory else "there is no such file"
            raise UserError(f"cannot read the table {path}: {came}; name a Parquet file.")
        known = pq.read_schema(place, filesystem=filesystem).names
        for name in names:
            if name not in known:
                raise UserError(
                    f"the table {path} has no column {name!r}; {closest(name, known)}; name it in "
                    "[table] or with --set table.key, .reward, .report or .cost."
                )
        table = pq.read_table(place, columns=names, filesystem=filesystem)
    except (pa.ArrowException, OSError) as fault:
        raise UserError(f"cannot read the table {path}: {reason(fault)}; expected a whole Parquet file.") from None
    if not table.num_rows:
        raise UserError(f"the table {path} has no rows; expected one per architecture.")
    return table


def _numbers(table: pa.Table, name: str, path: str) -> list[float]:
    column = table.column(name)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise UserError(f"column {name!r} of the table {path} holds {kind}, but numbers are expected; name another.")
    return [math.nan if value is None else float(value) for value in column.to_pylist()]  # plain floats are fast


def _rows(space: SearchSpace, keys: pa.ChunkedArray, name: str, path: str) -> dict[Architecture, int]:
    """Where each architecture is in the table."""
    if not (pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type) or pa.types.is_dictionary(keys.type)):
        raise UserError(
            f"column {name!r} of the table {path} holds {keys.type}, but the keys of {space.name} are strings such as "
            f"{space.print((0,) * len(space.blocks))!r}; name the column that holds them."
        )
    rows: dict[Architecture, int] = {}
    for row, key in enumerate(keys.to_pylist()):
        try:
            architecture = space.parse(key or "")
        except UserError:
            raise UserError(
                f"row {row} of the table {path}: {key!r} in the column {name!r} is no architecture of {space.name}, "
                f"whose keys are such as {space.print((0,) * len(space.blocks))!r}; name what fits."
            ) from None
        if architecture in rows:
            raise UserError(
                f"row {row} of the table {path} repeats the key {key!r} of row {rows[architecture]}; keep one of them."
            )
        rows[architecture] = row
    return rows
