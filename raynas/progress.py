"""Live progress on the terminal: one bar per task of the stage, one line per stage that has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raynas.units import duration, printable, quantity

PLAIN_EVERY_S = 5.0
"""Where nothing can be redrawn, a task speaks at most this often."""


@dataclass(slots=True)
class _Task:
    total: float | None
    began: float = 0.0  # when the first news came
    start: float = 0.0  # what an earlier attempt had done: it is no measure of this one's speed
    first: float | None = None  # the first news, from which on the task's own speed is known
    done: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)
    spoke: float = float("-inf")

    @property
    def is_done(self) -> bool:
        return self.total is not None and self.done >= self.total

    def percent(self) -> float:
        return min(100.0, 100 * self.done / self.total) if self.total else 100.0 * self.is_done

    def words(self, unit: str, now: float) -> str:
        of = "" if self.total is None else f"/{self.total:,.0f}"
        gained, elapsed = self.done - (self.first or 0.0), now - self.began
        rate = f" · {_rate(gained / elapsed, unit)}" if gained > 0 and elapsed > 0 and not self.is_done else ""
        facts = "".join(f" · {name} {_fact(value)}" for name, value in self.facts.items())
        return f"{self.done:,.0f}{of} {unit}{rate}{facts}"


class Progress:
    """What the driver tells of its stages, as a context manager: `begin`, `update` as often as it likes, `finish`.

    On a terminal the tasks of the stage are redrawn in place four times a second; elsewhere each task prints a plain
    line at most every five seconds. An exception passes through and leaves the terminal as it was. `update` may be
    called from any thread; one that comes after its stage has ended changes nothing.

    seconds: how long each stage took, by name; a stage that is begun twice adds up.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self.is_live = console.is_terminal and not console.is_dumb_terminal
        self.seconds: dict[str, float] = {}
        self._lock = threading.RLock()
        self._tasks: dict[str, _Task] = {}
        self._stage: str | None = None
        self._unit = ""
        self._began = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        """Nothing is shown before a stage begins."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the stage that is running, as done or as stopped by an exception."""
        self.finish(stopped=kind is not None)

    def __reduce__(self) -> tuple[Callable[[], Progress], tuple[()]]:
        """A copy in another process (Tune pickles what it calls back) has no terminal, and is silent."""
        return _silent, ()

    def begin(self, stage: str, tasks: Mapping[str, float], *, unit: str) -> None:
        """Start a stage whose tasks run to these totals, counted in `unit`; one that still runs is finished first."""
        self.finish()
        with self._lock:
            now = self.clock()
            self._stage, self._unit, self._began = stage, unit, now
            self._tasks = {name: _Task(total) for name, total in tasks.items()}
        if self.is_live:
            # transient: the bars give way to the one line that says how long the stage took
            self._live = Live(
                get_renderable=self._render,
                console=self.console,
                refresh_per_second=4,
                transient=True,
                auto_refresh=True,
            )
            self._live.start()
        else:
            count = f", {len(tasks)} task{'s' * (len(tasks) != 1)}" if tasks else ""
            self._say(f"{stage}: started{count}")

    def update(self, task: str, *, done: float, facts: Mapping[str, float] | None = None) -> None:
        """Say how far a task is: `done` counts from its beginning, so telling it twice changes nothing.

        The first news of a task that an earlier attempt began comes without facts, and says how far that got.
        """
        with self._lock:
            if self._stage is None:
                return
            now = self.clock()
            entry = self._tasks.setdefault(task, _Task(None))
            if entry.first is None and not facts:
                entry.start = done
            if entry.first is None or done < entry.first:  # the first news, or a fall back to a checkpoint
                entry.first, entry.began = done, now
                entry.start = min(entry.start, done)
            entry.done = done
            entry.facts |= facts or {}
            if not self.is_live and now - entry.spoke >= PLAIN_EVERY_S:
                entry.spoke = now
                self._say(f"{self._stage}: {task} {entry.words(self._unit, now)}{self._left(now)}")

    def note(self, text: str) -> None:
        """Print a line of its own, above the bars."""
        self._say(text)

    def finish(self, *, stopped: bool = False) -> None:
        """End the stage that is running, if any; `stopped`: by a fault, before it was done."""
        self._end("stopped" if stopped else "done")

    def _end(self, how: str) -> None:
        with self._lock:
            if self._stage is None:
                return
            stage, self._stage = self._stage, None
            elapsed = self.clock() - self._began
        if self._live is not None:
            self._live.stop()
            self._live = None
        self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed
        if self.is_live:
            mark, after = (("✓ ", "green"), "") if how == "done" else (("✗ ", "red"), f"{how} after ")
            self.console.print(Text.assemble(mark, (stage, "bold"), f"  {after}{duration(elapsed)}"))
        else:
            self._say(f"{stage}: {how} after {duration(elapsed)}")

    def _say(self, text: str) -> None:
        self.console.print(Text(printable(text)), soft_wrap=True)

    def _left(self, now: float) -> str:
        """The stage's time left at the pace of all its tasks together, as ` · 12 s left`; nothing while unknown."""
        known = [task for task in self._tasks.values() if task.total is not None]
        gained = sum(task.done - task.start for task in known)
        remaining = sum(max(0.0, (task.total or 0.0) - task.done) for task in known)
        if gained <= 0 or remaining <= 0 or now <= self._began:
            return ""
        return f" · {duration(remaining * (now - self._began) / gained)} left"

    def _render(self) -> RenderableType:
        with self._lock:
            now = self.clock()
            head = Text.assemble((self._stage or "", "bold"), f"  {duration(now - self._began)}{self._left(now)}")
            head.no_wrap, head.overflow = True, "ellipsis"
            grid = Table.grid(padding=(0, 1), expand=True)
            grid.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
            grid.add_column(width=max(8, self.console.width // 7))
            grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
            # those at work first: where the screen is too low, what is cut off is what has ended or not begun
            for name, task in sorted(self._tasks.items(), key=lambda item: (item[1].is_done, item[1].first is None)):
                bar = ProgressBar(100, task.percent(), pulse=task.total is None)
                grid.add_row(Text(printable(f"  {name}")), bar, Text(task.words(self._unit, now)))
            return Group(head, grid)


def _silent() -> Progress:
    return Progress(Console(quiet=True))


def _rate(per_second: float, unit: str) -> str:
    return f"{quantity(per_second)} {unit}/s" if per_second >= 1 else f"{60 * per_second:.1f} {unit}/min"


def _fact(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
