"""What rules that learn a distribution share where the run has limits: a penalty for what it draws beyond them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raynas.limits import Limits


class Penalised:
    """Adds `penalty` times the excess over the limits (1: an expected cost of twice its limit) to what is learnt from.

    Without limits, or with a penalty of 0, nothing is added.
    """

    limits: Limits | None = None

    def __init__(self, penalty: float) -> None:
        if penalty < 0:
            raise ValueError(f"expected penalty >= 0, but got {penalty:g}; raise it")
        self.penalty = penalty

    def keep(self, limits: Limits) -> None:
        """Told once which limits the run has."""
        self.limits = limits

    def penalties(self, logits: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of the penalty of these weights by their logits; 0 where no weight is computed from those."""
        if self.limits is None or not any(of_choices.requires_grad for of_choices in weights):
            return [torch.zeros_like(values) for values in logits]
        penalty = self.penalty * self.limits.excess(weights)
        return list(torch.autograd.grad(penalty, logits, allow_unused=True, materialize_grads=True))

    def excess(self, weights: Sequence[Tensor]) -> dict[str, float]:
        """How far the weights go beyond the limits, as a figure for the curve; none without limits."""
        return {} if self.limits is None else {"excess": float(self.limits.excess(weights).detach())}
