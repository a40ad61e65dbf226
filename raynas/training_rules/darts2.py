"""DARTS, second order: alpha follows the validation loss of the weights that a training step ahead would give.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (arXiv:1806.09055), equations 6 to 8; the
step ahead has momentum and weight decay, as in its code. A step takes five passes with gradients, one of `darts1` two.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from raynas.device import full_precision
from raynas.replica_group import ReplicaGroup
from raynas.supernet import Supernet
from raynas.training_rule import Batch, Loss
from raynas.training_rules.darts1 import Darts1

RADIUS = 0.01
"""How far the finite difference goes to both sides, in the norm of all weights together."""


class Darts2(Darts1):
    """Alpha's gradient is taken one virtual step of the weights ahead; xi is the step's learning rate.

    The network is run with other weights; its own are not written to.
    """

    optimizer: Optimizer

    def look_at(self, optimizer: Optimizer) -> None:
        """What moves the weights, and so says where the step ahead leads."""
        self.optimizer = optimizer

    def alpha_gradients(
        self, supernet: Supernet, train: Batch, validation: Batch, loss: Loss, group: ReplicaGroup
    ) -> list[Tensor]:
        """Of the validation loss at the weights ahead; by alpha in them, too, as a finite difference (equation 8).

        In full precision: rounded to bfloat16, most weights would be the same on both sides.
        """
        with full_precision(train.images_NCHW.device):
            return self._second_order(supernet, train, validation, loss, group)

    def _second_order(
        self, supernet: Supernet, train: Batch, validation: Batch, loss: Loss, group: ReplicaGroup
    ) -> list[Tensor]:
        own = dict(supernet.named_parameters())
        _, of_train = self.gradients(supernet, own, train, loss, group, list(own.values()))
        ahead = dict(zip(own, self._ahead(list(own.values()), of_train), strict=True))
        direct, of_validation = self.gradients(supernet, ahead, validation, loss, group, list(ahead.values()))
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v) for v in of_validation]))
        epsilon = RADIUS / norm.clamp(min=1e-12)  # no direction: both sides are the weights themselves
        xi = self.optimizer.param_groups[0]["lr"]

        def beside(sign: int) -> list[Tensor]:
            moved = {
                name: weight.detach() + sign * epsilon * v
                for (name, weight), v in zip(own.items(), of_validation, strict=True)
            }
            return self.gradients(supernet, moved, train, loss, group)[0]

        return [
            g - xi * (plus - minus) / (2 * epsilon).to(g)
            for g, plus, minus in zip(direct, beside(1), beside(-1), strict=True)
        ]

    @torch.no_grad()
    def _ahead(self, weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """The weights after one step of the optimiser, without its clipping of gradients; no moment is changed."""
        how = self.optimizer.param_groups[0]
        result = []
        for weight, gradient in zip(weights, gradients, strict=True):
            step = gradient + how["weight_decay"] * weight
            moment = self.optimizer.state.get(weight, {}).get("momentum_buffer")
            if moment is not None:
                step = step + how["momentum"] * moment
            result.append((weight - how["lr"] * step).requires_grad_())
        return result
