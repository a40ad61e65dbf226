"""A method: a training rule x a strategy x a derivation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Method:
    """A named system of the literature, as the members of three families that it is composed of.

    derivation: how the distribution that the rule learnt becomes a candidate; None where nothing is learnt, or
        where the strategy begins with it.
    partitions: whether its supernet is split; how is the member's setting.
    space_settings: what it needs of the space, e.g. stabilised skips; a space set otherwise is refused.
    objectives: what the strategy minimises; "score" is the run's evaluation.score, "cost" its selector.cost.
    """

    training_rule: str
    strategy: str
    derivation: str | None = None
    partitions: bool = False
    objectives: tuple[str, ...] = ("score",)
    space_settings: Mapping[str, Any] = field(default_factory=dict)
