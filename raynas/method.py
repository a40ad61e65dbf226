"""A method: a training rule x a strategy x a derivation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Method:
    """A named system of the literature, as the members of three families that it is composed of.

    derivation: how the distribution that the rule learnt becomes a candidate; None where nothing is learnt.
    partitions: whether its supernet is split; how is the member's setting.
    objectives: what the strategy minimises; "score" is the run's evaluation.score, "cost" its selector.cost.
    """

    training_rule: str
    strategy: str
    derivation: str | None = None
    partitions: bool = False
    objectives: tuple[str, ...] = ("score",)
