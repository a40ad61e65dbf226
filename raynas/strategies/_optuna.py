"""What the strategies that ask one of Optuna's samplers share: Akiba et al., KDD 2019."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from raynas import seeds
from raynas.architecture import Architecture
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategy import measured

BEST = 25  # trials that are never forgotten


class OptunaStrategy:
    """Asks a sampler of Optuna through a study in memory; a strategy is a subclass that hands it the sampler.

    What was asked and not yet told is a running trial: samplers that know of liars for pending trials use them. A
    proposal that is a known network fails its trial; after `tries` of them in a row the rest of the batch is
    random. Whatever is told is learnt from, asked for or not. Asks are random until the first number is told: then it
    is known how many objectives there are, and the study begins.
    history: trials after which all but the better and the later half are forgotten (None: nothing is).
    """

    history: int | None = None
    tries = 10
    is_optuna = True  # a run also writes its evaluations as a study

    def __init__(self, space: SearchSpace, sampler: optuna.samplers.BaseSampler, *, seed: int) -> None:
        self._space = space
        self._parameters = self.parameters(space)
        self._sampler = sampler
        self._rng = seeds.generator(seed, type(self).__name__, "random")
        self._unasked = Unasked(space)
        self._study: optuna.Study | None = None
        self._awaited: dict[Architecture, int] = {}  # in the order asked, and the numbers of their trials

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures."""
        found: list[Architecture] = []
        asks_sampler = True
        with quiet():
            while len(found) < count:
                architecture = self._propose() if asks_sampler else None
                if architecture is None:
                    asks_sampler = False
                    architecture = self._unasked.sample(self._rng)
                    if architecture is None:
                        break
                    self._awaited[architecture] = self._insert(architecture)
                found.append(architecture)
        return found

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """End the trials of what was asked, and add what was not; a network that is told again is told once."""
        told = {one.architecture: list(self.minimised(one.objectives)) for one in measured(evaluations)}
        with quiet():
            if self._study is None and told:
                self._begin(len(next(iter(told.values()))))
            for one in evaluations:
                values = told.get(one.architecture)
                is_new = self._unasked.claim(one.architecture)
                number = self._awaited.pop(one.architecture, None)
                if self._study is None or (number is None and (values is None or not is_new)):
                    continue
                number = self._insert(one.architecture) if number is None else number
                self._end(number, one.architecture, values)
            if self._study is not None and self.history is not None and len(trials(self._study)) > self.history:
                self._forget(self.history // 2)

    # --- what is not the same for all samplers ---

    def minimised(self, objectives: Sequence[float]) -> Sequence[float]:
        """Those of the objectives that the sampler minimises: the first."""
        return objectives[:1]

    def parameters(self, space: SearchSpace) -> dict[str, Any]:
        """The distributions of the study's parameters by name: one for each block, of its choices."""
        return {
            f"{index}_{block.name}": CategoricalDistribution(tuple(range(len(block.choices))))
            for index, block in enumerate(space.blocks)
        }

    def params(self, architecture: Architecture) -> dict[str, Any]:
        """The parameters of an architecture."""
        return dict(zip(self._parameters, architecture, strict=True))

    def architecture(self, params: Mapping[str, Any]) -> Architecture:
        """The architecture of parameters."""
        return tuple(int(params[name]) for name in self._parameters)

    def _insert(self, architecture: Architecture) -> int:
        """A running trial for what the sampler did not propose; returns its number, or -1 before there is a study."""
        if self._study is None:
            return -1
        running = create_trial(
            state=TrialState.RUNNING, params=self.params(architecture), distributions=dict(self._parameters)
        )
        self._study.add_trial(running)
        return len(trials(self._study)) - 1

    def _known(self, trial: optuna.Trial, architecture: Architecture) -> None:
        """The sampler proposed a network that was asked for before."""
        assert self._study is not None
        self._study.tell(trial, state=TrialState.FAIL)

    def _end(self, number: int, architecture: Architecture, values: list[float] | None) -> None:
        assert self._study is not None
        self._study.tell(number, values, state=TrialState.FAIL if values is None else TrialState.COMPLETE)

    # --- the same for all ---

    def _propose(self) -> Architecture | None:
        if self._study is None:
            return None
        for _ in range(self.tries):
            trial = self._study.ask(self._parameters)
            architecture = self.architecture(trial.params)
            if self._unasked.claim(architecture):
                self._awaited[architecture] = trial.number
                return architecture
            self._known(trial, architecture)
        return None

    def _begin(self, objectives: int) -> None:
        """A new study, of what is awaited."""
        self._study = optuna.create_study(sampler=self._sampler, directions=["minimize"] * objectives)
        self._awaited = {architecture: self._insert(architecture) for architecture in self._awaited}

    def _forget(self, kept: int) -> None:
        """Begin again with the last trials and the best, so that neither memory nor the time of an ask grows on."""
        assert self._study is not None
        complete = [trial for trial in trials(self._study) if trial.state == TrialState.COMPLETE]
        best = {trial.number for trial in heapq.nsmallest(BEST, complete, key=lambda trial: trial.values)}
        last = {trial.number for trial in complete[len(complete) - (kept - len(best)) :]}
        self._begin(len(self._study.directions))
        self._study.add_trials([trial for trial in complete if trial.number in best | last])


def trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study, themselves and no copies."""
    found: list[optuna.trial.FrozenTrial] = study.get_trials(deepcopy=False)
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's line per study and its notes on settings that were once experimental; then as it was before."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.ERROR))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
