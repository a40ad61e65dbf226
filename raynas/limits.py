"""Limits on costs while a distribution over architectures is learnt: by how much what it draws goes beyond them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from raynas.architecture import Architecture
from raynas.space import SearchSpace


class Limits:
    """Costs of weights of all choices, as shares of their limits.

    predictors, limits: by the cost's name. A choice's cost is what it adds to the architecture of all first choices:
    exact for costs that are sums over the blocks, and to first order for others.
    """

    def __init__(
        self, space: SearchSpace, predictors: Mapping[str, Callable[[Architecture], float]], limits: Mapping[str, float]
    ) -> None:
        first = (0,) * len(space.blocks)

        def shares(architecture: Architecture) -> Tensor:
            return torch.tensor([predictors[name](architecture) / limit for name, limit in limits.items()]).double()

        self.first = shares(first)
        """Of that architecture: (limits,)."""
        self.added = [
            torch.stack([shares((*first[:b], choice, *first[b + 1 :])) for choice in range(len(block.choices))], dim=1)
            - self.first[:, None]
            for b, block in enumerate(space.blocks)
        ]
        """By each block's choices: (limits, choices)."""

    def excess(self, weights: Sequence[Tensor]) -> Tensor:
        """How far the expected costs are above their limits, in limits, summed; 0 if all are kept.

        weights: of each block's choices, shape (choices,), which sum to 1; gradients flow to them.
        """
        added = torch.stack([costs @ of.double().cpu() for costs, of in zip(self.added, weights, strict=True)])
        return (self.first + added.sum(0) - 1).clamp(min=0).sum()
