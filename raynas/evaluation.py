"""What was measured for an architecture, and who can measure."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from raynas.architecture import Architecture
from raynas.errors import breaks_process

SCORES = ("loss", "error")
"""What scoring with a supernet measures; an evaluation's costs follow them."""

PROXY = "proxy_"
"""What the names of those rankers begin with that are proxies; a supernet's id is of hexadecimal digits."""

SHORT = "short_"
"""And of those that are short trainings from scratch; the epochs follow."""

ALONE = (PROXY, SHORT)
"""What rankers begin with that need no supernet."""

PREDICTOR = "predictor_"
"""And of those that predict what supernets say, fitted to what these have scored."""

REJECTED = "constraint:"
"""What the failure of a candidate begins with that breaks a limit; the cost's name, its value, > and the limit follow.
"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The objectives of one architecture, all minimised; or, with no objectives, why it has none."""

    architecture: Architecture
    objectives: tuple[float, ...]
    failure: str | None = None


def in_words(fault: BaseException) -> str:
    """What went wrong, in one line."""
    return f"{type(fault).__name__}: {str(fault).partition(chr(10))[0]}"


def failed(architecture: Architecture, fault: Exception) -> Evaluation:
    """The evaluation of what could not be scored, with the first line of what went wrong.

    A fault that breaks the process is raised again: it is for who can end the process, and may be nobody's own.
    """
    if breaks_process(fault):
        raise fault
    return Evaluation(architecture, (), in_words(fault))


def nothing_scored(failures: Iterable[str], limits: Mapping[str, float]) -> str:
    """Why there is no score where all candidates failed so: with the least value seen of each cost beyond its limit."""
    least: dict[str, float] = {}
    for failure in failures:
        if failure.startswith(REJECTED):
            name, value, *_ = failure.removeprefix(REJECTED).split()
            least[name] = min(float(value), least.get(name, math.inf))
    told = "no candidate was scored: all were rejected or failed"
    for name, seen in least.items():
        told += f"; the least {name} seen was {seen:g}, raise constraints.{name} = {limits[name]:g}"
    return told


class Evaluator(Protocol):
    """Local, pooled, cached, tabular or proxy: one method, and the names of what it measures."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of an evaluation's objectives, in their order, e.g. ("loss", "error")."""

    def evaluate(self, architectures: Sequence[Architecture]) -> Iterator[Evaluation]:
        """One evaluation per architecture, in the order asked; a candidate that fails is an evaluation too."""
