"""The CMA-ES of Optuna: Hansen and Ostermeier, Evolutionary Computation 9(2), 2001; Akiba et al., KDD 2019."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import FloatDistribution

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.space import SearchSpace
from raynas.strategies._optuna import OptunaStrategy, quiet

DENSE = 100  # choices of the largest space whose full covariance is learnt; of larger ones only the variances


class OptunaCmaes(OptunaStrategy):
    """Optuna's CMA-ES sampler with a number in 0..1 for every choice: the largest of a block's is taken.

    Minimises the first objective. population_size: of a generation; None: 4 + 3 ln(number of choices).
    A proposal whose network was measured before is answered with what was measured, so that the distribution narrows
    though no network is asked for twice.
    """

    def __init__(self, space: SearchSpace, *, seed: int, population_size: int | None = None) -> None:
        if population_size is not None and population_size < 5:
            raise UserError(f"population_size must be at least 5, but got {population_size}; raise it.")
        self._sizes = [len(block.choices) for block in space.blocks]
        with quiet():
            sampler = optuna.samplers.CmaEsSampler(
                popsize=population_size,
                seed=seeds.integer(seed, "optuna_cmaes") % 2**32,
                use_separable_cma=sum(self._sizes) > DENSE,
                warn_independent_sampling=False,  # the first are drawn before the distribution is there
            )
        super().__init__(space, sampler, seed=seed)
        self._values: dict[Architecture, float] = {}  # by canonical form

    def parameters(self, space: SearchSpace) -> dict[str, Any]:
        """A number for each choice of each block."""
        return {
            f"{index}_{block.name}_{choice}": FloatDistribution(0, 1)
            for index, block in enumerate(space.blocks)
            for choice in range(len(block.choices))
        }

    def params(self, architecture: Architecture) -> dict[str, Any]:
        """1 for what is taken and 0 for the rest."""
        taken = [
            float(c == choice) for size, choice in zip(self._sizes, architecture, strict=True) for c in range(size)
        ]
        return dict(zip(self._parameters, taken, strict=True))

    def architecture(self, params: Mapping[str, Any]) -> Architecture:
        """The largest of each block."""
        numbers = iter([params[name] for name in self._parameters])
        blocks = [list(islice(numbers, size)) for size in self._sizes]
        return tuple(block.index(max(block)) for block in blocks)

    def _known(self, trial: optuna.Trial, architecture: Architecture) -> None:
        value = self._values.get(self._space.canonicalise(architecture))
        if value is None:
            super()._known(trial, architecture)
        else:
            self._end(trial.number, architecture, [value])

    def _end(self, number: int, architecture: Architecture, values: list[float] | None) -> None:
        super()._end(number, architecture, values)
        if values is not None:
            self._values[self._space.canonicalise(architecture)] = values[0]
