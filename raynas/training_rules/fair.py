"""Strict fairness: every step trains each choice of every block exactly once, then moves the weights (FairNAS).

Chu, Zhang and Xu, "FairNAS: Rethinking Evaluation Fairness of Weight Sharing NAS", ICCV 2021, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from raynas.path_sampling import Paths, PathSampling, Sampling
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Supernet
from raynas.training_rule import Batch, FixedRule, Loss, StepResult

SETS = 32
"""Drawn at a time when the first did not do: a call of numpy costs as much as all of them."""


class Fair(FixedRule):
    """The sum (not the mean) of the gradients of m paths that together take every choice equally often.

    spread: each replica trains other paths of the set on the whole batch, instead of all paths on a share of it.
    sampling: whole sets are drawn anew until one is "distinct", so that fairness stays strict, but most networks are on
        no such set, or on few: in NAS-Bench-Macro 2,025 of 3,969 are on any, and in NAS-Bench-201, which is refused,
        the few sets there are visit 6,466 networks as unevenly as if there were 120. "canonical" trains the canonical
        forms of a fair set's keys, whose choices then differ in number. See raynas/path_sampling.py.
    """

    def __init__(self, space: SearchSpace, *, seed: int, spread: bool = False, sampling: Sampling = "keys") -> None:
        super().__init__(space)
        del seed  # the trainer hands each step its generator; nothing else is drawn
        self.sampling = PathSampling(space, fair_paths, sampling)
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
        paths = self.sampling.draw(rng)
        mine = paths if self.splits_batch else paths[group.rank :: group.world]
        total = torch.zeros((), device=train.labels_N.device)
        for path in mine:
            value = loss(supernet(train.images_NCHW, path), train.labels_N)
            (value / group.world if self.splits_batch else value).backward()  # type: ignore[no-untyped-call]
            total += value.detach()
        return StepResult(paths, total / max(1, len(mine)))


def fair_paths(space: SearchSpace, rng: np.random.Generator) -> Iterator[Paths]:
    """Sets of paths that take every choice of a block equally often, each block in a fresh random order, without end.

    Their number m is the number of choices (algorithm 1); for blocks of different sizes it is the least common
    multiple, and a block goes through its choices several times.
    """
    count = math.lcm(*(len(block.choices) for block in space.blocks))
    sets = 1
    while True:
        columns = [
            rng.permuted(np.tile(np.arange(size), (sets, count // size, 1)), axis=-1).reshape(sets, count)
            for size in (len(block.choices) for block in space.blocks)
        ]
        for paths in np.stack(columns, axis=-1).tolist():
            yield tuple(map(tuple, paths))
        sets = SETS
