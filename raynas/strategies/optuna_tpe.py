"""The tree-structured Parzen estimator of Optuna: Bergstra et al., NeurIPS 2011; Akiba et al., KDD 2019."""

from __future__ import annotations

import optuna

from raynas import seeds
from raynas.errors import UserError
from raynas.space import SearchSpace
from raynas.strategies._optuna import OptunaStrategy, quiet


class OptunaTpe(OptunaStrategy):
    """Optuna's TPE sampler with one categorical parameter per block; minimises the first objective.

    startup: evaluations that must have succeeded before the estimator replaces random draws.
    candidates: draws from the density of good architectures, of which the most promising is asked.
    What is awaited counts as bad ("constant liar"), so that a batch is spread.
    """

    history = 2_000

    def __init__(self, space: SearchSpace, *, seed: int, startup: int = 10, candidates: int = 24) -> None:
        if startup < 1 or candidates < 1:
            raise UserError(
                f"startup and candidates must be at least 1, but got {startup} and {candidates}; raise them."
            )
        with quiet():
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=startup,
                n_ei_candidates=candidates,
                seed=seeds.integer(seed, "optuna_tpe") % 2**32,
                multivariate=True,  # the blocks of a network act together
                constant_liar=True,
            )
        super().__init__(space, sampler, seed=seed)
