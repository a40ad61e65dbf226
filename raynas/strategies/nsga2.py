"""NSGA-II: Deb et al., IEEE Transactions on Evolutionary Computation 6(2), 2002."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.pareto import crowding_distance, non_dominated_rank
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategy import measured

TRIES = 20  # matings that may end at known networks before one is drawn at random


class Nsga2:
    """Evolves the front of several minimised objectives (an error and costs; with one it is elitist evolution).

    The first `population_size` architectures asked are random. A generation ends when as many evaluations were told,
    failed ones included; asks in between draw their parents from the generation before. No network is asked for
    twice: where `TRIES` children are all known, a random new architecture takes their place.
    crossover_probability: that a child mixes two parents (each block from either with equal chance) and does not copy
        the first. mutation_rate: that a block changes to another of its choices; None: one block in the mean, 1 / B.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        population_size: int = 32,
        crossover_probability: float = 0.9,
        mutation_rate: float | None = None,
    ) -> None:
        if population_size < 2:
            raise UserError(f"population_size must be at least 2, but got {population_size}; raise it.")
        rate = 1 / len(space.blocks) if mutation_rate is None else mutation_rate
        if not (0 <= crossover_probability <= 1 and 0 <= rate <= 1):
            raise UserError(
                f"crossover_probability and mutation_rate must lie in 0..1, but got {crossover_probability} and "
                f"{rate}; correct them."
            )
        self.population_size = population_size
        self.crossover_probability = crossover_probability
        self.mutation_rate = rate
        self._sizes = [len(block.choices) for block in space.blocks]
        self._rng = seeds.generator(seed, "nsga2")
        self._unasked = Unasked(space)
        self._parents: list[Evaluation] = []  # best first, by rank and crowding
        self._offspring: list[Evaluation] = []
        self._told = 0  # since the last generation

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures."""
        return self._unasked.ask(
            count, self._rng, lambda: self._unasked.first(self._child, TRIES) if self._parents else None
        )

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Add what was measured to the offspring; at the end of a generation the best of both generations survive."""
        self._unasked.note(evaluations)
        self._offspring += measured(evaluations)
        self._told += len(evaluations)
        if self._told >= self.population_size:
            self._parents = survivors([*self._parents, *self._offspring], self.population_size)
            self._offspring = []
            self._told = 0

    def _child(self) -> Architecture:
        first, second = self._tournament(), self._tournament()
        blocks = len(first)
        from_second = np.zeros(blocks, dtype=np.bool_)
        if self._rng.random() < self.crossover_probability:
            from_second = self._rng.random(blocks) < 0.5
        mutates = self._rng.random(blocks) < self.mutation_rate
        child = []
        for block, size in enumerate(self._sizes):
            choice = second[block] if from_second[block] else first[block]
            if mutates[block] and size > 1:
                other = int(self._rng.integers(size - 1))
                choice = other + (other >= choice)
            child.append(choice)
        return tuple(child)

    def _tournament(self) -> Architecture:
        # parents are sorted by the crowded comparison, so the one in front wins (Deb et al. 2002, section III.B)
        return self._parents[int(self._rng.integers(len(self._parents), size=2).min())].architecture


def survivors(evaluations: Sequence[Evaluation], count: int) -> list[Evaluation]:
    """The best `count` by the crowded comparison, best first: lower front, then larger crowding distance."""
    if not evaluations:
        return []
    objectives_AM = np.array([evaluation.objectives for evaluation in evaluations])
    rank_A = non_dominated_rank(objectives_AM)
    crowding_A: NDArray[np.float64] = np.zeros(len(evaluations))
    for rank in range(int(rank_A.max()) + 1):
        front = np.flatnonzero(rank_A == rank)
        crowding_A[front] = crowding_distance(objectives_AM[front])
    order = np.lexsort((-crowding_A, rank_A))  # stable: equals stay in the order told
    return [evaluations[index] for index in order[:count].tolist()]
