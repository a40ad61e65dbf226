"""Strict fairness: every step trains each choice of every block exactly once, then moves the weights (FairNAS).

Chu, Zhang and Xu, "FairNAS: Rethinking Evaluation Fairness of Weight Sharing NAS", ICCV 2021, algorithm 1. What it does
with blocks of different sizes, such as SCARLET's of 12 and 13 choices, is not in the sources we reached: see
`carried_paths`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from raynas import seeds
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
        self.seed = seed
        self.equal = len({len(block.choices) for block in space.blocks}) == 1
        if not self.equal and sampling == "distinct":
            raise ValueError(
                f'sampling = "distinct" expects blocks of one size, but got several with {space.name}, whose paths '
                'hang together over steps; take "canonical", or the rule uniform'
            )
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
        number: int,
        group: ReplicaGroup,
    ) -> StepResult:
        """Accumulate the gradients of one fair set of paths on the same batch."""
        if self.equal:
            paths = self.sampling.draw(rng)
        else:
            paths = self.sampling.trained(carried_paths(self.space, self.seed, number))
        mine = paths if self.splits_batch else paths[group.rank :: group.world]
        total = torch.zeros((), device=train.labels_N.device)
        for path in mine:
            value = loss(supernet(train.images_NCHW, path), train.labels_N)
            (value / group.world if self.splits_batch else value).backward()  # type: ignore[no-untyped-call]
            total += value.detach()
        shared = 1 if self.splits_batch else group.world  # of which each replica ran some of the paths
        return StepResult(paths, total * shared / len(paths))


def fair_paths(space: SearchSpace, rng: np.random.Generator) -> Iterator[Paths]:
    """Sets of m paths that take each of a block's m choices once, each block in a fresh random order, without end.

    All blocks have m choices (algorithm 1).
    """
    count = len(space.blocks[0].choices)
    sets = 1
    while True:
        ordered = np.broadcast_to(np.arange(count), (len(space.blocks), sets, count))
        for paths in rng.permuted(ordered, axis=-1).transpose(1, 2, 0).tolist():
            yield tuple(map(tuple, paths))
        sets = SETS


def carried_paths(space: SearchSpace, seed: int, number: int) -> Paths:
    """The m paths of step `number` (from 0) for blocks of different sizes; m is the largest number of choices.

    A block deals out one random permutation of its choices after another, whatever the steps: a smaller one begins the
    next within a step and goes on with it in the step after. So the update counts of a block's choices never differ by
    more than one, and are equal whenever one of its permutations ends; for a block of m choices, after every step.
    (A partition begins at its warm-up's last step, perhaps within a permutation, and counts may then differ by two.)
    """
    count = max(len(block.choices) for block in space.blocks)
    first, end = number * count, (number + 1) * count
    columns = []
    for index, block in enumerate(space.blocks):
        size = len(block.choices)
        deals = range(first // size, (end - 1) // size + 1)
        dealt = np.concatenate([seeds.generator(seed, "deal", index, deal).permutation(size) for deal in deals])
        columns.append(dealt[first - deals[0] * size :][:count].tolist())
    return tuple(zip(*columns, strict=True))
