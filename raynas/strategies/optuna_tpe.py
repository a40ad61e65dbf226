"""The tree-structured Parzen estimator of Optuna: Bergstra et al., NeurIPS 2011; Akiba et al., KDD 2019."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategy import measured

TRIES = 10  # proposals that may be known networks before one is drawn at random
HISTORY = 1_000  # evaluations that the estimator is made of
BEST = 25  # of them, those that TPE's density of good ones is made of at most


class OptunaTpe:
    """Optuna's TPE sampler with one categorical parameter per block; minimises the first objective.

    startup: evaluations that must have succeeded before the estimator replaces random draws.
    candidates: draws from the density of good architectures, of which the most promising is asked.
    Each ask makes a study anew, of the last `HISTORY` evaluations (the best are never dropped), whoever asked for
    them, and of those still awaited, which count as bad ones ("constant liar"): memory stays bounded, the checkpoint
    is plain data, and an ask is a function of what was told. A proposal that is a known network fails its trial; after
    `TRIES` of them a random new architecture takes their place.
    """

    def __init__(self, space: SearchSpace, *, seed: int, startup: int = 10, candidates: int = 24) -> None:
        if startup < 1 or candidates < 1:
            raise UserError(
                f"startup and candidates must be at least 1, but got {startup} and {candidates}; raise them."
            )
        self.startup = startup
        self.candidates = candidates
        self._space = space
        self._seed = seed
        self._asks = 0
        self._unasked = Unasked(space)
        self._awaited: dict[Architecture, None] = {}  # in the order asked
        self._history: list[tuple[Architecture, float]] = []  # in the order told

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures."""
        rng = seeds.generator(self._seed, "optuna_tpe", "random", self._asks)
        distributions = self._distributions()
        found: list[Architecture] = []
        with _quiet():
            study = self._study(distributions)
            while len(found) < count:
                architecture = self._propose(study, distributions)
                if architecture is None:
                    architecture = self._unasked.sample(rng)
                    if architecture is None:
                        break
                    study.add_trial(_trial(architecture, None, distributions))
                found.append(architecture)
        self._asks += 1
        self._awaited.update(dict.fromkeys(found))
        return found

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Add what was measured to the history; a failed candidate is only no longer awaited."""
        self._unasked.note(evaluations)
        for evaluation in evaluations:
            self._awaited.pop(evaluation.architecture, None)
        self._history += [(told.architecture, told.objectives[0]) for told in measured(evaluations)]
        if (surplus := len(self._history) - HISTORY) > 0:
            best = set(heapq.nsmallest(BEST, range(len(self._history)), key=lambda index: self._history[index][1]))
            dropped = set([index for index in range(len(self._history)) if index not in best][:surplus])
            self._history = [told for index, told in enumerate(self._history) if index not in dropped]

    def _propose(self, study: optuna.Study, distributions: dict[str, CategoricalDistribution]) -> Architecture | None:
        for _ in range(TRIES):
            trial = study.ask(distributions)
            architecture = tuple(int(trial.params[name]) for name in distributions)
            if self._unasked.claim(architecture):
                return architecture
            study.tell(trial, state=TrialState.FAIL)
        return None

    def _study(self, distributions: dict[str, CategoricalDistribution]) -> optuna.Study:
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.startup,
            n_ei_candidates=self.candidates,
            seed=seeds.integer(self._seed, "optuna_tpe", "sampler", self._asks) % 2**32,
            multivariate=True,  # the blocks of a network act together
            constant_liar=True,
        )
        study = optuna.create_study(sampler=sampler)
        study.add_trials([_trial(architecture, value, distributions) for architecture, value in self._history])
        study.add_trials([_trial(architecture, None, distributions) for architecture in self._awaited])
        return study

    def _distributions(self) -> dict[str, CategoricalDistribution]:
        return {
            f"{index}_{block.name}": CategoricalDistribution(tuple(range(len(block.choices))))
            for index, block in enumerate(self._space.blocks)
        }


def _trial(
    architecture: Architecture, value: float | None, distributions: dict[str, CategoricalDistribution]
) -> optuna.trial.FrozenTrial:
    return create_trial(
        state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
        value=value,
        params=dict(zip(distributions, architecture, strict=True)),
        distributions=dict(distributions),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line per study and its notes on settings that were once experimental; then as it was before."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
