"""A strategy asks and is told: it does not train, evaluate, log, sleep or write files."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from raynas.architecture import Architecture
from raynas.evaluation import Evaluation


class Strategy(Protocol):
    """Which architectures to score next; built as `Name(space, *, seed, ...)`, and its pickle is its checkpoint.

    What it asks is a function of its space, seed, settings and the asks and tells so far, and of nothing else.
    """

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` architectures of networks neither asked for nor told of before; [] means exhausted."""

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn from evaluations: late, unordered, failed, or of architectures that it never asked for."""


def learns(strategy: Callable[..., Strategy]) -> bool:
    """Whether a strategy searches what a supernet's training rule has learnt: it is built with its `probabilities`."""
    return "probabilities" in inspect.signature(strategy).parameters


def knows_limits(strategy: Callable[..., Strategy]) -> bool:
    """Whether a strategy aims below limits: it is built with `limits`, the most that each of its objectives may be."""
    return "limits" in inspect.signature(strategy).parameters


def measured(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """The evaluations that hold numbers: neither failed, nor NaN or infinite in any objective."""
    return [
        evaluation
        for evaluation in evaluations
        if evaluation.failure is None and evaluation.objectives and all(map(math.isfinite, evaluation.objectives))
    ]
