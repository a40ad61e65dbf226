"""DARTS, first order: all choices at once, weighed by the softmax of alpha, which follows the validation loss.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (arXiv:1806.09055), sections 2.2 and 2.3;
Adam and the start of alpha are those of its code. Memory is that of all choices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from raynas import seeds
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Supernet
from raynas.training_rule import Batch, Loss, StepResult
from raynas.training_rules._alpha import Alpha, summed

Gradients = tuple[list[Tensor], list[Tensor]]
"""Of alpha, and of the weights where they are asked for."""


class Darts1(Alpha):
    """Each step moves alpha by the validation batch first, and then the weights by the training batch.

    alpha_learning_rate, alpha_weight_decay: of Adam on alpha.
    penalty: of the mixture's costs above the run's limits, which alpha learns to keep.
    """

    needs_validation = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        alpha_learning_rate: float = 3e-4,
        alpha_weight_decay: float = 1e-3,
        penalty: float = 1.0,
    ) -> None:
        rng = seeds.generator(seed, "alpha")
        start = [1e-3 * rng.standard_normal(len(block.choices)) for block in space.blocks]
        super().__init__(
            space, start, learning_rate=alpha_learning_rate, weight_decay=alpha_weight_decay, penalty=penalty
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
        """Move alpha; accumulate the gradient of the mixture that it then is on the training batch."""
        self.follow(supernet, train, validation, loss, group)
        with torch.no_grad():
            mixture = self.mixture(train.images_NCHW.device)
        value = loss(supernet(train.images_NCHW, mixture), train.labels_N)
        (value / group.world).backward()  # type: ignore[no-untyped-call]
        return StepResult(self.paths, value.detach(), self.watch())

    def follow(
        self, supernet: Supernet, train: Batch, validation: Batch | None, loss: Loss, group: ReplicaGroup
    ) -> None:
        """Move alpha against the validation loss."""
        assert validation is not None
        self.move(self.alpha_gradients(supernet, train, validation, loss, group))

    def alpha_gradients(
        self, supernet: Supernet, train: Batch, validation: Batch, loss: Loss, group: ReplicaGroup
    ) -> list[Tensor]:
        """Of the validation loss with the weights as they are (the paper's xi = 0)."""
        return self.gradients(supernet, {}, validation, loss, group)[0]

    def gradients(
        self,
        supernet: Supernet,
        weights: Mapping[str, Tensor],
        batch: Batch,
        loss: Loss,
        group: ReplicaGroup,
        of: Sequence[Tensor] = (),
    ) -> Gradients:
        """Of the joined batch's loss by alpha and by some of the weights; nothing is accumulated anywhere.

        weights: by name, those with which the network runs in place of its own.
        """
        device = batch.images_NCHW.device
        logits_NK = functional_call(supernet, dict(weights), (batch.images_NCHW, self.mixture(device)))
        asked = [*self.alpha, *of]
        found = torch.autograd.grad(loss(logits_NK, batch.labels_N) / group.world, asked, allow_unused=True)
        filled = [torch.zeros_like(x) if g is None else g for x, g in zip(asked, found, strict=True)]
        count = len(self.alpha)
        return summed(filled[:count], group, device), summed(filled[count:], group, device) if of else []
