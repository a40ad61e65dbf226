"""What a training rule is: one optimisation step's gradients for a supernet, and with which paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from raynas.architecture import Architecture
from raynas.batches import Batches
from raynas.limits import Limits
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Owner, Supernet

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Mean cross-entropy of logits_NK and labels_N."""


class DivergenceError(Exception):
    """A loss is no longer finite; the supernet, and the members that need it, have failed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images after augmentation and their labels: (N, C, H, W) and (N,)."""

    images_NCHW: Tensor
    labels_N: Tensor


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did: its paths, its mean loss (on the device, detached), and figures worth a curve."""

    paths: tuple[Architecture, ...]
    loss: Tensor
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)


class TrainingRule(Protocol):
    """Built as Rule(space, *, seed, ...); fills the gradients of a step and owns its architecture parameters.

    A rule with a schedule is also given `steps`, the number of them in the whole training.
    The trainer clears the gradients before a step, sums them over the replicas afterwards, and moves the weights.
    A rule that splits the batch gets its replica's share and scales its gradients by 1 / world, so that the sum is
    that of the joined batch; a rule that does not gets the whole batch on each replica.
    """

    needs_validation: bool
    splits_batch: bool

    def step(
        self,
        supernet: Supernet,
        train: Batch,
        validation: Batch | None,
        *,
        loss: Loss,
        rng: np.random.Generator,
        number: int,
        group: ReplicaGroup,
    ) -> StepResult:
        """Accumulate one step's gradients; `rng` draws alike on all replicas, and anew for each step.

        number: of the step, counted from 0 at the schedule's first, however often the training was interrupted; a
            partition goes on with the numbers of its warm-up.
        """

    def observe(self, owners: Sequence[Owner], result: StepResult) -> None:
        """See the step's gradients as they are summed over all replicas, the same on each, before they are clipped."""

    def probabilities(self) -> tuple[NDArray[np.float64], ...]:
        """For each block the learnt distribution over its choices; uniform where nothing is learnt."""

    def state_dict(self) -> dict[str, Any]:
        """All that the rule has learnt, as tensors, numbers and nested dicts and lists of them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""


@runtime_checkable
class LooksAhead(Protocol):
    """A training rule that needs to know the step that the weights will take."""

    def look_at(self, optimizer: Optimizer) -> None:
        """Told once what moves the weights; before each step it has that step's learning rate, which may be changed."""


@runtime_checkable
class Measures(Protocol):
    """A training rule that at times measures what it trains on all validation images."""

    def measure_on(self, validation: Batches, batch_size: int) -> None:
        """Told once which these are, and how many a pass may take, over all replicas."""


@runtime_checkable
class KeepsLimits(Protocol):
    """A training rule that learns to keep the run's limits on predicted costs; its setting `penalty` says how much."""

    space: SearchSpace

    def keep(self, limits: Limits) -> None:
        """Told once which these are."""


class FixedRule:
    """What rules that learn no distribution share: uniform probabilities, no state, and a split batch."""

    needs_validation = False
    splits_batch = True

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def observe(self, owners: Sequence[Owner], result: StepResult) -> None:
        """Nothing is learnt."""

    def probabilities(self) -> tuple[NDArray[np.float64], ...]:
        """Uniform over each block's choices."""
        return self.space.uniform_probabilities()

    def state_dict(self) -> dict[str, Any]:
        """Nothing is learnt."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to take up."""
