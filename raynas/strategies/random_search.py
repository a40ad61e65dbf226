"""Random search: keys drawn uniformly, no network twice; the baseline to beat (Li and Talwalkar, UAI 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from raynas import seeds
from raynas.architecture import Architecture
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked


class RandomSearch:
    """Samples without replacement by canonical form; exhausted when the space is."""

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        self._rng = seeds.generator(seed, "random_search")
        self._unasked = Unasked(space)

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures."""
        return self._unasked.ask(count, self._rng)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn nothing but what need not be asked any more."""
        self._unasked.note(evaluations)
