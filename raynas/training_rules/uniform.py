"""Uniform single-path training: each step trains one architecture, drawn uniformly (SPOS).

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from raynas.errors import UserError
from raynas.path_sampling import Paths, PathSampling, Sampling
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Supernet
from raynas.training_rule import Batch, FixedRule, Loss, StepResult
from raynas.training_rules._distribution import draw


class Uniform(FixedRule):
    """One uniformly drawn path a step, the same on all replicas.

    paths: so many independent ones on the same batch, whose gradients are summed as `fair` sums those of its set.
    sampling: from all keys, or from distinct networks; see raynas/path_sampling.py.
    favour: how many times as often a choice with weights of its own is drawn as one without. In a short training the
        paths of many weights are those that learn too little, and so are ranked too low; ours, unlike Jeon et al., CVPR
        2025 (arXiv:2503.10740), who let the learning rate of simple paths fall sooner.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int, paths: int = 1, sampling: Sampling = "keys", favour: float = 1.0
    ) -> None:
        super().__init__(space)
        if paths < 1 or not 0 < favour < math.inf:
            raise ValueError(f"expected paths >= 1 and favour > 0, but got {paths=} and {favour=}; raise them")
        if sampling == "distinct" and favour != 1:
            raise ValueError(f'sampling = "distinct" draws all networks alike, but got {favour=}; leave out either')
        del seed  # the trainer hands each step its generator; nothing else is drawn
        self.sampling = PathSampling(space, single_paths if favour == 1 else self._favoured, sampling)
        self.paths = paths
        self.favour = favour
        self.shares: list[NDArray[np.float64]] = []

    def check(self, supernet: Supernet) -> None:
        """Raises UserError where a favour makes no difference, before anything is trained."""
        shares = favoured(supernet, self.space, self.favour)
        if self.favour != 1 and all(np.ptp(p) == 0 for p in shares):
            raise UserError(
                f"favour expects blocks with choices that have weights of their own and others that have none, but "
                f"{self.space.name} has no such block; leave favour out."
            )

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
        if self.favour != 1 and not self.shares:
            self.shares = favoured(supernet, self.space, self.favour)
        paths = tuple(path for _ in range(self.paths) for path in self.sampling.draw(rng))
        total = torch.zeros((), device=train.labels_N.device)
        for path in paths:
            value = loss(supernet(train.images_NCHW, path), train.labels_N)
            (value / group.world).backward()  # type: ignore[no-untyped-call]
            total += value.detach()
        return StepResult(paths, total / len(paths))

    def _favoured(self, space: SearchSpace, rng: np.random.Generator) -> Iterator[Paths]:
        del space
        while True:
            yield (draw(self.shares, rng),)


def single_paths(space: SearchSpace, rng: np.random.Generator) -> Iterator[Paths]:
    """Keys, drawn uniformly, one at a time without end."""
    while True:
        yield (space.sample(rng),)


def favoured(supernet: Supernet, space: SearchSpace, favour: float) -> list[NDArray[np.float64]]:
    """For each block the probabilities of its choices, those with weights of their own being favoured."""
    owned = {place for _, places in supernet.owners() for place in places}
    found = []
    for b, block in enumerate(space.blocks):
        shares = np.array([favour if (b, choice) in owned else 1.0 for choice in range(len(block.choices))])
        found.append(shares / shares.sum())
    return found
