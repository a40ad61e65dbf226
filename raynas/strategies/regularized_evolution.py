"""Aging evolution: Real et al., AAAI 2019, Algorithm 1 (arXiv:1802.01548)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategy import measured

TRIES = 20  # tournaments and mutations that may end at known networks before one is drawn at random


class RegularizedEvolution:
    """Mutates tournament winners; of the population, the oldest dies. Minimises the first objective.

    The first `population_size` architectures asked are random. All children of one ask have their parents in the
    population told so far, as those of the paper's parallel workers do. Unlike the paper's, no network is asked for
    twice: where `TRIES` children are all known, a random new architecture takes their place.
    """

    def __init__(self, space: SearchSpace, *, seed: int, population_size: int = 50, tournament_size: int = 10) -> None:
        if not 1 <= tournament_size <= population_size:
            raise UserError(
                f"tournament_size must lie in 1..population_size, but got {tournament_size=} with {population_size=}; "
                "lower the one or raise the other."
            )
        self.population_size = population_size
        self.tournament_size = tournament_size
        self._space = space
        self._rng = seeds.generator(seed, "regularized_evolution")
        self._unasked = Unasked(space)
        self._population: deque[Evaluation] = deque()

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures."""
        return self._unasked.ask(count, self._rng, self._descendant)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Add what was measured to the population; a failed candidate is never born."""
        self._unasked.note(evaluations)
        for evaluation in measured(evaluations):
            self._population.append(evaluation)
            if len(self._population) > self.population_size:
                self._population.popleft()  # the oldest dies, whatever its fitness (Algorithm 1)

    def _descendant(self) -> Architecture | None:
        """A new child, claimed; None while the population is still born, or if children are known networks only."""
        if self._population and len(self._unasked.known) >= self.population_size:
            return self._unasked.first(self._child, TRIES)
        return None

    def _child(self) -> Architecture:
        # Algorithm 1 draws the tournament with replacement: "the element stays in the population"
        tournament = self._rng.integers(len(self._population), size=self.tournament_size).tolist()
        parent = min((self._population[index] for index in tournament), key=lambda member: member.objectives[0])
        return self._space.mutate(parent.architecture, self._rng) if self._space.size > 1 else parent.architecture
