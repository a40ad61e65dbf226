"""Uniform single-path training: each step trains one architecture, drawn uniformly (SPOS).

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, section 3.2.
"""

from __future__ import annotations

import numpy as np

from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Supernet
from raynas.training_rule import Batch, FixedRule, Loss, StepResult


class Uniform(FixedRule):
    """One uniformly drawn path a step, the same on all replicas."""

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        super().__init__(space)
        del seed  # the trainer hands each step its generator; nothing else is drawn

    def step(
        self,
        supernet: Supernet,
        train: Batch,
        validation: Batch | None,
        *,
        loss: Loss,
        rng: np.random.Generator,
        group: ReplicaGroup,
    ) -> StepResult:
        """Accumulate the gradient of one path on the training batch."""
        path = self.space.sample(rng)
        value = loss(supernet(train.images_NCHW, path), train.labels_N)
        (value / group.world).backward()  # type: ignore[no-untyped-call]
        return StepResult((path,), value.detach())
