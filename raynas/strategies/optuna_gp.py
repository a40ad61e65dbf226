"""The Gaussian process of Optuna, with log expected improvement: Ament et al., NeurIPS 2023; Akiba et al., KDD 2019."""

from __future__ import annotations

import optuna

from raynas import seeds
from raynas.errors import UserError
from raynas.space import SearchSpace
from raynas.strategies._optuna import OptunaStrategy, quiet


class OptunaGp(OptunaStrategy):
    """Optuna's GP sampler with one categorical parameter per block; minimises the first objective.

    startup: evaluations that must have succeeded before the process replaces random draws.
    The improvement that is expected is over what is awaited, too (its values drawn from the process), so that a batch
    is spread. For budgets of some hundred evaluations, each of which takes long: an ask costs tenths of seconds.
    """

    history = 400
    tries = 2  # each costs as much, and what the process knows has not changed

    def __init__(self, space: SearchSpace, *, seed: int, startup: int = 10) -> None:
        if startup < 1:
            raise UserError(f"startup must be at least 1, but got {startup}; raise it.")
        with quiet():
            sampler = optuna.samplers.GPSampler(
                n_startup_trials=startup,
                seed=seeds.integer(seed, "optuna_gp") % 2**32,
            )
        super().__init__(space, sampler, seed=seed)
