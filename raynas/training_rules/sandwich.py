"""The sandwich rule with in-place distillation: largest, smallest and random paths on every batch.

Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019, sections 3.2 and 3.3; Yu et
al., "BigNAS", ECCV 2020, whose two random children a step are the default.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch.nn import functional

from raynas.architecture import Architecture
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Supernet
from raynas.training_rule import Batch, FixedRule, Loss, StepResult


class Sandwich(FixedRule):
    """The sum of the gradients of all its paths; the largest learns from the labels, the others from its soft outputs.

    children: random paths a step. Largest and smallest are by the parameters of the subnet, block by block.
    """

    def __init__(self, space: SearchSpace, *, seed: int, children: int = 2) -> None:
        super().__init__(space)
        if children < 0:
            raise ValueError(f"expected children >= 0, but got {children=}; raise it")
        del seed  # the trainer hands each step its generator; nothing else is drawn
        self.children = children
        self.ends: tuple[Architecture, Architecture] | None = None

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
        """Accumulate the gradients of largest, smallest and random paths on the same batch."""
        if self.ends is None:
            self.ends = extremes(self.space, lambda path: sum(p.numel() for p in supernet.subnet(path).parameters()))
        paths = (*self.ends, *(self.space.sample(rng) for _ in range(self.children)))
        logits_NK = supernet(train.images_NCHW, paths[0])
        value = loss(logits_NK, train.labels_N)
        (value / group.world).backward()  # type: ignore[no-untyped-call]
        teacher_NK = logits_NK.detach().float().softmax(1)
        total = value.detach()
        for path in paths[1:]:
            distance = functional.cross_entropy(supernet(train.images_NCHW, path).float(), teacher_NK)
            (distance / group.world).backward()  # type: ignore[no-untyped-call]
            total = total + distance.detach()
        return StepResult(paths, total / len(paths), {"loss_of_largest": value.detach()})


def extremes(space: SearchSpace, cost: Callable[[Architecture], float]) -> tuple[Architecture, Architecture]:
    """The largest and the smallest architecture, found block by block from the last choices.

    Exact where a choice that costs more beside some others does so beside all. Of equal choices the last is taken, so
    that NAS-Bench-201's smallest cell pools, instead of being disconnected.
    """

    def descend(sign: int) -> Architecture:
        best = tuple(len(block.choices) - 1 for block in space.blocks)
        for index, block in enumerate(space.blocks):
            variants = [(*best[:index], choice, *best[index + 1 :]) for choice in range(len(block.choices))]
            best = max(variants, key=lambda variant: (sign * cost(variant), variant))
        return best

    return descend(1), descend(-1)
