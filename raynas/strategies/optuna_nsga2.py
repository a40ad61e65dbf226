"""The NSGA-II of Optuna: Deb et al., 2002; Akiba et al., KDD 2019."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.space import SearchSpace
from raynas.strategies._optuna import OptunaStrategy, quiet, trials


class OptunaNsga2(OptunaStrategy):
    """Optuna's NSGA-II sampler with one categorical parameter per block; minimises all objectives.

    crossover_probability: that a child mixes two parents and does not copy one; a block is then drawn anew with
    probability 1 / B. A generation ends when `population_size` of it succeeded. Random architectures that stand for
    children which are known are of the generation, too, as is what was told without being asked for.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int, population_size: int = 32, crossover_probability: float = 0.9
    ) -> None:
        if population_size < 2:
            raise UserError(f"population_size must be at least 2, but got {population_size}; raise it.")
        if not 0 <= crossover_probability <= 1:
            raise UserError(f"crossover_probability must lie in 0..1, but got {crossover_probability}; correct it.")
        with quiet():
            sampler = optuna.samplers.NSGAIISampler(
                population_size=population_size,
                crossover_prob=crossover_probability,
                seed=seeds.integer(seed, "optuna_nsga2") % 2**32,
            )
        super().__init__(space, sampler, seed=seed)

    def minimised(self, objectives: Sequence[float]) -> Sequence[float]:
        """All of the objectives."""
        return objectives

    def _insert(self, architecture: Architecture) -> int:
        """A trial of the generation that the sampler is at."""
        number = super()._insert(architecture)
        if self._study is not None:
            self._sampler.get_trial_generation(self._study, trials(self._study)[number])  # which it writes down, too
        return number
