"""Uniform single-path training: each step trains one architecture, drawn uniformly (SPOS).

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from raynas.path_sampling import Paths, PathSampling, Sampling
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Supernet
from raynas.training_rule import Batch, FixedRule, Loss, StepResult


class Uniform(FixedRule):
    """One uniformly drawn path a step, the same on all replicas.

    paths: so many independent ones on the same batch, whose gradients are summed as `fair` sums those of its set.
    sampling: from all keys, or from distinct networks; see raynas/path_sampling.py.
    """

    def __init__(self, space: SearchSpace, *, seed: int, paths: int = 1, sampling: Sampling = "keys") -> None:
        super().__init__(space)
        if paths < 1:
            raise ValueError(f"expected paths >= 1, but got {paths=}; raise it")
        del seed  # the trainer hands each step its generator; nothing else is drawn
        self.sampling = PathSampling(space, single_paths, sampling)
        self.paths = paths

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
        """Accumulate the gradient of each path on the training batch."""
        paths = tuple(path for _ in range(self.paths) for path in self.sampling.draw(rng))
        total = torch.zeros((), device=train.labels_N.device)
        for path in paths:
            value = loss(supernet(train.images_NCHW, path), train.labels_N)
            (value / group.world).backward()  # type: ignore[no-untyped-call]
            total += value.detach()
        return StepResult(paths, total / len(paths))


def single_paths(space: SearchSpace, rng: np.random.Generator) -> Iterator[Paths]:
    """Keys, drawn uniformly, one at a time without end."""
    while True:
        yield (space.sample(rng),)
