"""Which networks a strategy has asked for or was told of, so that it asks for none of them twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from raynas.architecture import Architecture
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace

DRAWS = 1_000  # draws that may fail in a row before the rest of the space is listed, or given up
LISTED = 2**17  # keys of the largest space that is listed


class Unasked:
    """Remembers networks by canonical form and finds others; all that grows with the search is one set of tuples."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.known: set[Architecture] = set()
        self._rest: list[int] | None = None

    def claim(self, architecture: Architecture) -> bool:
        """Whether the network is new; it no longer is."""
        network = self.space.canonicalise(architecture)
        if network in self.known:
            return False
        self.known.add(network)
        return True

    def note(self, evaluations: Iterable[Evaluation]) -> None:
        """What was told, asked for or not, need not be asked for."""
        for evaluation in evaluations:
            self.claim(evaluation.architecture)

    def ask(
        self, count: int, rng: np.random.Generator, propose: Callable[[], Architecture | None] = lambda: None
    ) -> list[Architecture]:
        """Up to `count` new networks, each what `propose` claims or, where that is None, a random one."""
        found: list[Architecture] = []
        while len(found) < count:
            if (architecture := propose()) is None and (architecture := self.sample(rng)) is None:
                break
            found.append(architecture)
        return found

    def first(self, propose: Callable[[], Architecture], tries: int) -> Architecture | None:
        """The first new network out of `tries` proposals, claimed; None if there is none."""
        for _ in range(tries):
            if self.claim(architecture := propose()):
                return architecture
        return None

    def sample(self, rng: np.random.Generator) -> Architecture | None:
        """Draw, and claim, uniformly from the keys of all new networks; None if there are none.

        A space of at most `LISTED` keys is exhausted to the last network; a larger one counts as exhausted after
        `DRAWS` draws of known networks in a row.
        """
        if self._rest is None:
            if (found := self.first(lambda: self.space.sample(rng), DRAWS)) is not None:
                return found
            if self.space.size > LISTED:
                return None
            self._rest = rng.permutation(self.space.size).tolist()
        shape = [len(block.choices) for block in self.space.blocks]
        while self._rest:
            key = tuple(int(choice) for choice in np.unravel_index(self._rest.pop(), shape))
            if self.claim(key):
                return key
        return None
