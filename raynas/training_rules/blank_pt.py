"""Selection by perturbation from a mixture whose weights were never learnt: Wang et al., ICLR 2021, section 5.3."""

from __future__ import annotations

import torch

from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Supernet
from raynas.training_rule import Batch, Loss
from raynas.training_rules.darts_pt import DartsPt


class BlankPt(DartsPt):
    """As `darts_pt`, with alpha at zero: every choice weighs the same until its block is fixed."""

    needs_validation = False

    def __init__(self, space: SearchSpace, *, seed: int, steps: int, selection: float = 1 / 3) -> None:
        super().__init__(space, seed=seed, steps=steps, selection=selection)
        for values in self.alpha:
            values.data = torch.zeros_like(values)

    def follow(
        self, supernet: Supernet, train: Batch, validation: Batch | None, loss: Loss, group: ReplicaGroup
    ) -> None:
        """Alpha stays where it is."""
