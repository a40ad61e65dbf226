"""Ordered dropout: in one pass every image has its own width at every elastic layer (NetAdaptV2).

Yang et al., "NetAdaptV2: Efficient Neural Architecture Search with Fast Super-Network Training and Architecture
Optimization", CVPR 2021, section 2.1. Widths are drawn uniformly, each block's on its own, which the paper leaves open.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import one_hot

from raynas.errors import UserError
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Choices, Supernet
from raynas.training_rule import Batch, FixedRule, Loss, StepResult


class OrderedDropout(FixedRule):
    """One pass trains as many sub-networks as there are images; what no image can choose alone is drawn per batch.

    A step's paths are the distinct ones among the images of the joined batch, over all replicas.
    """

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        super().__init__(space)
        del seed  # the trainer hands each step its generator; nothing else is drawn

    def check(self, supernet: Supernet) -> set[int]:
        """The blocks in which images choose alone; raises UserError for none, also before anything is trained."""
        per_image = supernet.per_image_blocks()
        if not per_image:
            raise UserError(
                f"ordered_dropout expects a space with elastic layers, but {self.space.name} has none: no image can "
                "have a width of its own; choose a space such as nats_size, or another training_rule."
            )
        return per_image

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
        """Accumulate the gradient of one pass; raises UserError where no block of the space is elastic."""
        per_image = self.check(supernet)
        device = train.labels_N.device
        images = int(group.sum(torch.tensor(float(len(train.labels_N)), device=device)))
        drawn = [
            rng.integers(len(block.choices), size=images if index in per_image else 1)
            for index, block in enumerate(self.space.blocks)
        ]
        choices_NB = np.stack([np.broadcast_to(choices, images) for choices in drawn], axis=1)
        mine_NB = torch.from_numpy(choices_NB[group.rank :: group.world]).to(device)
        weights: Choices = [
            one_hot(mine_NB[:, index], len(block.choices)).float() if index in per_image else int(drawn[index][0])
            for index, block in enumerate(self.space.blocks)
        ]
        value = loss(supernet(train.images_NCHW, weights), train.labels_N)
        (value / group.world).backward()  # type: ignore[no-untyped-call]
        paths = dict.fromkeys(tuple(int(choice) for choice in row) for row in choices_NB)
        return StepResult(tuple(paths), value.detach())
