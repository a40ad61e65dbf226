"""Progressive search: cells grow by a part at a time, and a surrogate picks which of all larger ones to score.

Liu et al., "Progressive Neural Architecture Search", ECCV 2018 (arXiv:1712.00559), algorithm 1. There a level's cells
are trained; here they are scored, as by a supernet. Its numbers are first = 136 and beam = 256.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, product

import numpy as np
import scipy
from numpy.typing import NDArray

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.rank_correlation import spearman_rho
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategy import measured

GROWING = "blocks"
"""The name of a first block that says how many parts there are, one part in each of its choices more."""


class Progressive:
    """Scores `first` cells of one part; then, level by level, the `beam` best by prediction of all that grow of them.

    A space grows if its first block is called "blocks" and the others belong, equally many each, to its parts in order,
    as in `pnas_cell` with `growing = true`. Cells that cannot grow, as in any other space, are changed in one choice.
    The surrogate is fitted anew for each level, to the ranks of all that was scored; minimises the first objective.
    Who asks for more before all is told gets the next best of the same level.

    extrapolation: for each level after the first, Spearman's rho of prediction and score over the cells that were asked
        for, the best by prediction: the surrogate had seen none of that size before.
    """

    def __init__(self, space: SearchSpace, *, seed: int, first: int = 32, beam: int = 16) -> None:
        if first < 2 or beam < 1:
            raise UserError(f"first must be at least 2 and beam at least 1, but got {first} and {beam}; raise them.")
        self.first = first
        self.beam = beam
        self.extrapolation: list[float] = []
        self._space = space
        self._rng = seeds.generator(seed, "progressive")
        self._unasked = Unasked(space)
        others = len(space.blocks) - 1
        growing = space.blocks[0].name == GROWING and others > 0 == others % len(space.blocks[0].choices)
        self._levels = len(space.blocks[0].choices) if growing else 1
        self._width = others // self._levels if growing else len(space.blocks)
        self._level = 1
        self._fitted = False
        self._asked, self._enough = 0, first
        """How many of the level's cells were asked for, and have to be before the next level."""
        self._queue: list[tuple[Architecture, float]] = []
        """The level's other cells with the values predicted for them, the best last; the first level's at random."""
        if growing:
            smallest = list(dict.fromkeys(self._grown((-1, *(0,) * others))))
            self._queue = [(smallest[index], 0.0) for index in self._rng.permutation(len(smallest)).tolist()]
        self._awaited: set[Architecture] = set()
        self._predicted: dict[Architecture, float] = {}
        self._scores: dict[Architecture, float] = {}

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new cells of the level; of the next one if enough of this one were asked for, and all told."""
        if not self._awaited and len(self._scores) > 1 and (self._asked >= self._enough or not self._queue):
            self._advance()
        found: list[Architecture] = []
        while self._queue and len(found) < count:
            cell, value = self._queue.pop()
            if self._unasked.claim(cell):
                self._predicted[cell] = value
                found.append(cell)
        found += self._unasked.ask(count - len(found), self._rng)
        self._asked += len(found)
        self._awaited.update(map(self._space.canonicalise, found))
        return found

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Take up scores; a cell that has failed is not waited for, and nothing grows of it."""
        self._unasked.note(evaluations)
        self._awaited.difference_update(self._space.canonicalise(one.architecture) for one in evaluations)
        for one in measured(evaluations):
            self._scores.setdefault(self._space.canonicalise(one.architecture), one.objectives[0])

    def _advance(self) -> None:
        """Fit the surrogate to all that was scored, and line up what grows of the level's best cells."""
        from raynas.mean_embedding import (
            MeanEmbedding,
        )  # here, as torch takes seconds: only who searches so should wait

        told = list(self._scores)
        values_A = np.array([self._scores[one] for one in told])
        if self._fitted and len(self._predicted) > 2:
            self.extrapolation.append(self._agreement())
        begin = self._first_place
        surrogate = MeanEmbedding([max(self._sizes[begin + place :: self._width]) for place in range(self._width)])
        ranks_A = scipy.stats.rankdata(-values_A)
        surrogate.fit([self._parts(one) for one in told], (ranks_A - 0.5) / len(told), self._rng)
        parents = self._parents(told, values_A)
        grown = [cell for cell in dict.fromkeys(chain(*map(self._grown, parents))) if cell not in self._unasked.known]
        predicted_C = surrogate.predict([self._parts(one) for one in grown])
        order = np.argsort(predicted_C, kind="stable").tolist()
        self._queue = [(grown[index], float(predicted_C[index])) for index in order]
        self._asked, self._predicted, self._enough, self._fitted = 0, {}, self.beam, True
        self._level = min(self._level + 1, self._levels)

    def _agreement(self) -> float:
        """Of prediction and score, over the level's cells that have one."""
        known = [one for one in self._predicted if one in self._scores]
        return spearman_rho([self._predicted[one] for one in known], [-self._scores[one] for one in known])

    def _parents(self, told: Sequence[Architecture], values_A: NDArray[np.float64]) -> list[Architecture]:
        """The cells that grow: the best of the level, or of all where there is no larger one."""
        of_level = [
            index for index, one in enumerate(told) if self._level == self._levels or self._count(one) == self._level
        ]
        return [told[index] for index in sorted(of_level, key=values_A.__getitem__)[: self.beam]]

    def _grown(self, cell: Architecture) -> Iterator[Architecture]:
        """All cells with a part more; those with one choice changed where there can be no more."""
        if (count := self._count(cell)) == self._levels:
            yield from map(self._space.canonicalise, self._space.neighbours(cell))
            return
        begin = self._first_place + count * self._width
        for part in product(*(range(size) for size in self._sizes[begin : begin + self._width])):
            yield self._space.canonicalise((count, *cell[1:begin], *part, *cell[begin + self._width :]))

    @property
    def _sizes(self) -> list[int]:
        return [len(block.choices) for block in self._space.blocks]

    @property
    def _first_place(self) -> int:
        """Of the first part's choices."""
        return len(self._space.blocks) - self._levels * self._width

    def _count(self, cell: Architecture) -> int:
        """How many parts a cell has."""
        return cell[0] + 1 if self._first_place else 1

    def _parts(self, cell: Architecture) -> list[Architecture]:
        begin = self._first_place
        return [cell[begin + self._width * part :][: self._width] for part in range(self._count(cell))]
