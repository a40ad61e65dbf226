"""A run in short on the terminal: finalists, how far to trust the ranking, members, agreement, times."""

from __future__ import annotations

from statistics import mean

from rich.console import Console
from rich.table import Table
from rich.text import Text

from raynas import belief, near_best, stability
from raynas.run_record import RunRecord, best_so_far, is_rejected, read_run
from raynas.storage import Folder
from raynas.terminal import figures
from raynas.units import accuracy, cost, cost_name, duration, interval, printable, rank, signed

MOST_FAILURES = 5
MOST_PAIRED = 5
"""Rankers up to which the agreement of every two is told."""


def print_summary(folder: Folder, console: Console) -> None:
    """Print what the report says, within 80 columns; raises UserError if the folder is no run's or is broken."""
    record = read_run(folder)
    for part in (_finalists, _trust, _members, _failures, _times):
        for piece in part(record):
            console.print(piece)
    report = "report.html"
    path = folder.path(report) if folder.exists(report) else "not written yet; `raynas report` on this folder writes it"
    console.print(Text.assemble(("Report: ", "bold"), path), soft_wrap=True)


def _finalists(record: RunRecord) -> list[Table | Text]:
    if not record.finalists:
        return [Text("No finalist has been named yet: the ranking, or what calibrates it, has not been made.")]
    costs = record.costs[:3]
    table = figures("Finalists, trained from scratch", "rank", "validation", "test", *map(cost_name, costs))
    for trial in record.finalists:
        if trial.failure or trial.result is None:
            state = Text("failed", style="red") if trial.failure else Text("not yet")
            table.add_row(f"{trial.rank}  ", state)
            continue
        values = {**record.row(trial), **trial.result}
        table.add_row(
            f"{trial.rank} *" if trial is record.chosen else f"{trial.rank}  ",
            accuracy(trial.value("validation_error")),
            accuracy(trial.value("test_error")),
            *(cost(name, values.get(name)) for name in costs),
            style="bold" if trial is record.chosen else "",
        )
    notes = filter(None, (record.finalists_in_words, record.trained_otherwise))
    note = [Text(printable(f"{one}\n"), style="dim") for one in notes]
    if record.chosen is None:
        return [table, *note]
    return [table, *note, Text.assemble(("* chosen: ", "bold"), printable(record.chosen.name)), Text()]


def _trust(record: RunRecord) -> list[Table | Text]:
    if record.gap is None:
        return [Text("How far to trust the ranking has not been measured yet.\n")]
    gap = record.gap
    measures = {"ranking": gap.get("tau")} | {
        f"counting {name}": found.get("tau") for name, found in gap.get("baseline", {}).items()
    }
    known = [f"{name} {interval(tau)}" for name, tau in measures.items() if tau and tau.get("value") is not None]
    told = f"tau against stand-alone accuracy, n = {gap.get('n')}: {'; '.join(known)}\n" if known else ""
    pieces: list[Table | Text] = [Text(printable(gap.get("sentence", "")), style="bold cyan"), Text(told, style="dim")]
    if near := near_best.in_words(gap):
        pieces.append(Text(f"{printable(near)}\n"))
    if rows := stability.rows(gap):
        table = figures("Stability", *stability.HEADERS)
        for name, *values in rows:
            table.add_row(Text(printable(name)), *values)
        pieces.append(table)
    if gap.get("missing"):
        pieces.append(Text(f"{gap['missing']}\n", style="dim"))
    return pieces


def _members(record: RunRecord) -> list[Table | Text]:
    notes = [Text(printable(f"{net.collapse}\n"), style="red") for net in record.supernets if net.collapse]
    if not record.evaluations:
        return [*notes, Text("The population has not run yet.\n")]
    ranks = {architecture: float(place) for architecture, place in record.rank_of().items()}
    table = figures("Members", "member", "supernet", "scored", "rejected", "failed", "best", "rank", words=2)
    for member in record.members:
        rows = record.evaluations.get(member, [])
        rejected = sum(is_rejected(row) for row in rows)
        failed = sum(row["failure"] is not None for row in rows) - rejected
        best, found = best_so_far(rows), best_so_far(rows, ranks)
        table.add_row(
            Text(printable(member)),
            Text(printable(", ".join(sorted({record.supernet_label(row["supernet"]) for row in rows}))) or "–"),
            str(len(rows) - rejected - failed),
            str(rejected),
            Text(str(failed), style="red" if failed else ""),
            accuracy(best[-1][1] if best else None),
            rank(found[-1][1] if found else None),
        )
    agreement = record.agreement
    if agreement is None:
        return [table, *notes]
    told = (
        agreement_in_words(agreement["rankers"], agreement["tau"]),
        belief.sentence(agreement),
        belief.undecided_in_words(agreement),
        belief.race_in_words(agreement),
        belief.front_in_words(agreement),
    )
    return [table, *notes, Text(printable("\n".join(filter(None, told)) + "\n"))]


def agreement_in_words(names: list[str], tau: list[list[float | None]]) -> str:
    """Of every two rankers in a line; of many rankers, each one's mean over the others."""
    if len(names) <= MOST_PAIRED:
        pairs = [f"{names[i]}/{names[j]} {signed(tau[i][j])}" for i in range(len(names)) for j in range(i)]
        return f"Agreement of rankers (tau): {', '.join(pairs) or 'only one ranker'}"
    found = [[one for j, one in enumerate(row) if j != i and one is not None] for i, row in enumerate(tau)]
    means = [f"{name} {signed(mean(row) if row else None)}" for name, row in zip(names, found, strict=True)]
    return f"Agreement of each ranker with the others (mean tau): {', '.join(means)}"


def _failures(record: RunRecord) -> list[Table | Text]:
    found = record.failures()
    if not found:
        return []
    grid = Table.grid(padding=(0, 2))
    for where, reason, count, _ in found[:MOST_FAILURES]:
        times = f" ({count} times)" if count > 1 else ""
        grid.add_row(Text(printable(f"  {where}")), Text(printable(reason + times)))
    more = len(found) - MOST_FAILURES
    rest = [Text(f"  and {more} more, listed in the report")] if more > 0 else []
    return [Text("Failures", style="bold red"), grid, *rest, Text()]


def _times(record: RunRecord) -> list[Text]:
    if not record.seconds:
        return []
    stages = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in record.seconds.items())
    return [Text.assemble(("Time: ", "bold"), f"{duration(sum(record.seconds.values()))} ({stages})")]
