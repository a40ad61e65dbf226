"""A member's evaluations as a study of Optuna, which optuna-dashboard opens: a journal file, written as they come."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.storage import Folder
from raynas.strategies._optuna import quiet


class StudyFile:
    """Writes `studies/<member>.log`, of the study called like the member: a trial per evaluation, in the order asked.

    A block is a categorical parameter of its choices' names, whatever the sampler works with. The values are those that
    the member minimises; everything measured is among a trial's attributes. A candidate that failed is a failed trial.
    The journal grows in a temporary folder of this process and is copied whole, so that any storage can hold it.
    """

    def __init__(
        self, run: Folder, member: str, space: SearchSpace, measured: Sequence[str], minimised: Sequence[str]
    ) -> None:
        self.run = run
        self.name = f"studies/{member}.log"
        self.measured = tuple(measured)
        self.columns = [self.measured.index(name) for name in minimised]
        self.blocks = [(f"{index}_{block.name}", block.choices) for index, block in enumerate(space.blocks)]
        self.distributions = {name: CategoricalDistribution(choices) for name, choices in self.blocks}
        self.space = space
        self._folder = tempfile.TemporaryDirectory()
        self._journal = Path(self._folder.name, "study.log")
        with quiet():
            storage = JournalStorage(JournalFileBackend(str(self._journal)))
            self._study = optuna.create_study(
                study_name=member, storage=storage, directions=["minimize"] * len(self.columns)
            )
            self._study.set_metric_names(list(minimised))

    def append(self, batch: Sequence[Evaluation]) -> None:
        """Add trials; nothing is in the run's folder before `write`."""
        with quiet():
            self._study.add_trials([self._trial(one) for one in batch])

    def write(self) -> None:
        """Copy the journal into the run's folder."""
        self.run.write(self.name, self._journal.read_bytes())

    def _trial(self, one: Evaluation) -> optuna.trial.FrozenTrial:
        taken = zip(self.blocks, one.architecture, strict=True)
        values = [one.objectives[column] for column in self.columns] if one.objectives else []
        failed = not values or not all(map(math.isfinite, values))
        about = dict(zip(self.measured, one.objectives, strict=True)) if one.objectives else {"failure": one.failure}
        return create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            values=None if failed else values,
            params={name: choices[choice] for (name, choices), choice in taken},
            distributions=dict(self.distributions),
            user_attrs={"architecture": self.space.print(one.architecture), **about},
        )
