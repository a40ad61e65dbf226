"""Local search with restarts: White et al., "Exploring the loss landscape in neural architecture search", UAI 2021."""

from __future__ import annotations

from collections.abc import Sequence

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategy import measured


class LocalSearch:
    """Climbs to a better neighbour until there is none, then from elsewhere; minimises the first objective.

    A climb begins at the best of `starts` random architectures. Neighbours differ in one block; they are asked in
    random order, and whatever is told to be better moves the climb at once. Where all neighbours are known and none is
    better, the next climb begins. What is asked while only their answers are awaited is random, and a start of that.
    """

    def __init__(self, space: SearchSpace, *, seed: int, starts: int = 10) -> None:
        if starts < 1:
            raise UserError(f"starts must be at least 1, but got {starts}; raise it.")
        self.starts = starts
        self._space = space
        self._rng = seeds.generator(seed, "local_search")
        self._unasked = Unasked(space)
        self._start: Evaluation | None = None  # the best of the next climb's
        self._told = 0  # of the next climb's starts, failed ones included
        self._place: Evaluation | None = None  # where the climb stands
        self._neighbours: list[Architecture] = []  # of that place, still to ask
        self._awaited: set[Architecture] = set()  # neighbours of any place

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures."""
        return self._unasked.ask(count, self._rng, self._neighbour)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Move to what is better; anything else that was no neighbour is a start of the next climb."""
        self._unasked.note(evaluations)
        for one in evaluations:
            was_neighbour = one.architecture in self._awaited
            self._awaited.discard(one.architecture)
            is_sound = bool(measured([one]))
            if is_sound and self._place is not None and _better(one, self._place):
                self._move(one)
            elif not was_neighbour:
                self._told += 1
                if is_sound and (self._start is None or _better(one, self._start)):
                    self._start = one

    def _neighbour(self) -> Architecture | None:
        """The next neighbour, claimed; None if all are known, or no climb has begun."""
        while self._neighbours:
            if self._unasked.claim(neighbour := self._neighbours.pop()):
                self._awaited.add(neighbour)
                return neighbour
        if self._awaited:
            return None
        self._place = None  # the climb has ended
        if self._start is None or self._told < self.starts:
            return None
        self._move(self._start)
        self._start, self._told = None, 0
        return self._neighbour()

    def _move(self, place: Evaluation) -> None:
        self._place = place
        neighbours = self._space.neighbours(place.architecture)
        self._neighbours = [neighbours[index] for index in self._rng.permutation(len(neighbours)).tolist()]


def _better(one: Evaluation, other: Evaluation) -> bool:
    return one.objectives[0] < other.objectives[0]
