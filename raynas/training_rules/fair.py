"""Strict fairness: every step trains each choice of every block exactly once, then moves the weights (FairNAS).

Chu, Zhang and Xu, "FairNAS: Rethinking Evaluation Fairness of Weight Sharing NAS", ICCV 2021, algorithm 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from raynas.architecture import Architecture
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Supernet
from raynas.training_rule import Batch, FixedRule, Loss, StepResult


class Fair(FixedRule):
    """The sum (not the mean) of the gradients of m paths that together take every choice equally often.

    spread: each replica trains other paths of the set on the whole batch, instead of all paths on a share of it.
    """

    def __init__(self, space: SearchSpace, *, seed: int, spread: bool = False) -> None:
        super().__init__(space)
        del seed  # the trainer hands each step its generator; nothing else is drawn
        self.splits_batch = not spread

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
        """Accumulate the gradients of one fair set of paths on the same batch."""
        paths = fair_paths(self.space, rng)
        mine = paths if self.splits_batch else paths[group.rank :: group.world]
        total = torch.zeros((), device=train.labels_N.device)
        for path in mine:
            value = loss(supernet(train.images_NCHW, path), train.labels_N)
            (value / group.world if self.splits_batch else value).backward()  # type: ignore[no-untyped-call]
            total += value.detach()
        return StepResult(paths, total / max(1, len(mine)))


def fair_paths(space: SearchSpace, rng: np.random.Generator) -> tuple[Architecture, ...]:
    """Paths that take every choice of a block equally often, each block in a fresh random order.

    Their number m is the number of choices (algorithm 1); for blocks of different sizes it is the least common
    multiple, and a block goes through its choices several times.
    """
    count = math.lcm(*(len(block.choices) for block in space.blocks))
    columns = [
        np.concatenate([rng.permutation(len(block.choices)) for _ in range(count // len(block.choices))])
        for block in space.blocks
    ]
    return tuple(tuple(int(choice) for choice in row) for row in np.stack(columns, axis=1))
