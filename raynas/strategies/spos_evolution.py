"""The evolution of SPOS: mutants and crosses of the ten best so far, generation by generation (Guo et al., ECCV 2020).

Arxiv:1904.00420, section 3.4; the sizes are those of its code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategy import measured

TRIES = 20  # children that may be known networks before one is drawn at random


class SposEvolution:
    """Minimises the first objective; the first generation is random.

    A generation asks for `mutants`, for `crosses` of two parents, and fills up with random networks. It ends when
    `population_size` were scored: those that break a limit do not count, and the same kinds are asked for again.
    Then the `parents` best of all that were told are the next parents. No network is asked for twice.
    mutation_rate: that a block of a mutant is drawn anew from all of its choices.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        population_size: int = 50,
        parents: int = 10,
        mutants: int = 25,
        crosses: int = 25,
        mutation_rate: float = 0.1,
    ) -> None:
        if min(population_size, parents) < 1 or min(mutants, crosses) < 0 or mutants + crosses > population_size:
            raise UserError(
                f"a generation expects 0 <= mutants + crosses <= population_size and at least one parent, but got "
                f"{mutants=}, {crosses=}, {population_size=} and {parents=}; correct them."
            )
        if not 0 < mutation_rate <= 1:
            raise UserError(f"mutation_rate must lie above 0 and not above 1, but got {mutation_rate}; correct it.")
        self.population_size = population_size
        self.parents = parents
        self.mutation_rate = mutation_rate
        kinds: list[tuple[Callable[[], Architecture] | None, int]] = [(self._mutant, mutants), (self._cross, crosses)]
        self._kinds = [kind for kind, count in [*kinds, (None, population_size)] for _ in range(count)]
        self._space = space
        self._rng = seeds.generator(seed, "spos_evolution")
        self._unasked = Unasked(space)
        self._told: list[Evaluation] = []
        self._best: list[Evaluation] = []  # the parents of this generation
        self._asked = 0
        self._scored = 0

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures."""
        return self._unasked.ask(count, self._rng, self._propose)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Take up what was measured; at the end of a generation the best of all become parents."""
        self._unasked.note(evaluations)
        found = measured(evaluations)
        self._told = sorted([*self._told, *found], key=lambda one: one.objectives[0])[: self.parents]
        self._scored += len(found)
        if self._scored >= self.population_size:
            self._best, self._asked, self._scored = self._told, 0, 0

    def _propose(self) -> Architecture | None:
        """The generation's next child, claimed; None for a random network."""
        kind = self._kinds[self._asked % self.population_size] if self._best else None
        self._asked += 1
        return None if kind is None else self._unasked.first(kind, TRIES)

    def _mutant(self) -> Architecture:
        parent, random = self._parent(), self._space.sample(self._rng)
        drawn = (self._rng.random(len(parent)) < self.mutation_rate).tolist()
        return tuple(new if anew else old for old, new, anew in zip(parent, random, drawn, strict=True))

    def _cross(self) -> Architecture:
        first, second = self._parent(), self._parent()
        from_second = (self._rng.random(len(first)) < 0.5).tolist()
        return tuple(theirs if take else ours for ours, theirs, take in zip(first, second, from_second, strict=True))

    def _parent(self) -> Architecture:
        return self._best[int(self._rng.integers(len(self._best)))].architecture
