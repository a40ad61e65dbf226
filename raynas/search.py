"""One member's search: its strategy asks, an evaluator answers, and every answer is written down."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import pyarrow as pa

from raynas import shapes
from raynas.architecture import Architecture, decode, encode
from raynas.config import Config
from raynas.errors import UserError
from raynas.evaluation import Evaluation, Evaluator
from raynas.plan import MemberPlan
from raynas.space import SearchSpace
from raynas.storage import Folder
from raynas.strategy import Strategy

MOST_ASKED = 20
"""A member may ask for so many times its budget when constraints reject most candidates."""


def search(
    strategy: Strategy,
    evaluator: Evaluator,
    objectives: Sequence[str],
    *,
    evaluations: int,
    batch_size: int,
    first: Sequence[Architecture] = (),
) -> Iterator[list[Evaluation]]:
    """Ask, evaluate and tell until the budget of scored architectures is spent or the strategy is exhausted.

    Yields each batch as the evaluator measured it; the strategy is told only the objectives that it minimises. A
    candidate that was rejected or failed does not count towards the budget, but is told. `first` is evaluated before
    the strategy is asked. The course depends on the scores alone, so a search that is begun again with the scores
    that it had repeats itself.
    """
    columns = [evaluator.objectives.index(name) for name in objectives]
    scored, asked = 0, 0
    batch = list(first)
    while scored < evaluations and asked < MOST_ASKED * evaluations:
        batch = batch or strategy.ask(min(batch_size, evaluations - scored))
        if not batch:
            return
        _check_asked(strategy, batch)
        measured = list(evaluator.evaluate(batch))
        strategy.tell(
            [
                Evaluation(one.architecture, tuple(one.objectives[c] for c in columns), one.failure)
                if one.objectives
                else one
                for one in measured
            ]
        )
        asked += len(measured)
        scored += sum(bool(one.objectives) for one in measured)
        yield measured
        batch = []


def _check_asked(strategy: Strategy, batch: Sequence[Architecture]) -> None:
    for one in batch:
        if not isinstance(one, tuple) or not all(isinstance(choice, Integral) for choice in one):
            raise UserError(
                f"{type(strategy).__name__}.ask: expected architectures as tuples of whole numbers, the indices of "
                f"choices, but got {one!r}; mend it."
            )


class Remembering:
    """An evaluator that answers from an earlier attempt's record as far as that goes, and then asks."""

    def __init__(self, evaluator: Evaluator, known: Mapping[Architecture, Evaluation]) -> None:
        self.evaluator = evaluator
        self.known = known

    @property
    def objectives(self) -> tuple[str, ...]:
        """Those of the evaluator that is asked."""
        return self.evaluator.objectives

    def evaluate(self, architectures: Sequence[Architecture]) -> Iterator[Evaluation]:
        """One evaluation per architecture, in the order asked."""
        missing = [one for one in architectures if one not in self.known]
        fresh = iter(self.evaluator.evaluate(missing) if missing else ())
        for one in architectures:
            yield self.known[one] if one in self.known else next(fresh)


def record_file(member: str) -> str:
    """Where a member's evaluations are in the run's folder."""
    return f"evaluations/{member}.parquet"


class Record:
    """A member's evaluations in the run's folder, in `record_file`."""

    def __init__(self, run: Folder, member: MemberPlan, space: SearchSpace, config: Config) -> None:
        self.run = run
        self.name = record_file(member.name)
        self.member = member
        self.space = space
        self.objectives = ("loss", "error", *config.evaluation.costs)
        self.rows: list[dict[str, Any]] = run.read_table(self.name).to_pylist() if run.exists(self.name) else []
        self.position = 0
        self.began = time.monotonic() - (self.rows[-1]["wall_s"] if self.rows else 0.0)

    def known(self) -> dict[Architecture, Evaluation]:
        """What is on file, by architecture as asked."""
        return {one.architecture: one for one in read_evaluations(self.rows, self.objectives)}

    def append(self, batch: Sequence[Evaluation]) -> None:
        """Take one more batch; the file is written anew once the search is beyond what an earlier attempt wrote.

        Raises UserError if the search does not repeat that attempt.
        """
        for one in batch:
            if self.position < len(self.rows):
                if self.rows[self.position]["architecture"] != encode(one.architecture):
                    raise UserError(
                        f"{self.run.path(self.name)} is not what this search asked before (another version of raynas, "
                        "or of a library?); delete it, and the search is repeated."
                    )
            else:
                self.rows.append(self._row(one))
            self.position += 1
        if self.position == len(self.rows):
            self.run.write_table(self.name, pa.Table.from_pylist(self.rows, schema=shapes.evaluations(self.objectives)))

    def _row(self, one: Evaluation) -> dict[str, Any]:
        canonical = self.space.canonicalise(one.architecture)
        values = one.objectives or (None,) * len(self.objectives)
        return {
            "index": len(self.rows),
            "architecture": encode(one.architecture),
            "canonical": encode(canonical),
            "name": self.space.print(canonical),
            "member": self.member.name,
            "supernet": self.member.supernet,
            **dict(zip(self.objectives, values, strict=True)),
            "failure": one.failure,
            "seed": self.member.seed,
            "wall_s": time.monotonic() - self.began,
        }


def read_evaluations(rows: Iterable[Mapping[str, Any]], objectives: Sequence[str]) -> list[Evaluation]:
    """The evaluations of a member's file, in the order asked."""
    return [
        Evaluation(
            decode(row["architecture"]),
            () if row[objectives[0]] is None else tuple(row[name] for name in objectives),
            row["failure"],
        )
        for row in rows
    ]
