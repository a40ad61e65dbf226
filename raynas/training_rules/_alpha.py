"""What differentiable rules share: the architecture parameters alpha, how they move, and the watch over a collapse."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raynas.architecture import Architecture
from raynas.checkpoint import load_moments
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace, is_none, is_skip
from raynas.supernet import Mixture, Owner
from raynas.training_rule import StepResult
from raynas.training_rules._distribution import entropy
from raynas.training_rules._penalised import Penalised

BETAS = (0.5, 0.999)
"""Of Adam, as DARTS's code and SNAS's set them."""


class Alpha(Penalised):
    """A vector for each block, whose softmax weighs the block's choices, and Adam, which moves it.

    It is kept on the CPU in float64, and is the same on all replicas to the bit.
    """

    splits_batch = True

    def __init__(
        self,
        space: SearchSpace,
        initial: Sequence[NDArray[np.float64]],
        *,
        learning_rate: float,
        weight_decay: float,
        penalty: float,
    ) -> None:
        super().__init__(penalty)
        self.space = space
        self.alpha = [torch.from_numpy(values.copy()).requires_grad_() for values in initial]
        self.adam = torch.optim.Adam(self.alpha, lr=learning_rate, betas=BETAS, weight_decay=weight_decay)
        sizes = [len(block.choices) for block in space.blocks]
        self.paths = tuple(tuple(min(number, size - 1) for size in sizes) for number in range(max(sizes)))
        """Together they hold every choice, as a relaxed pass does."""

    def observe(self, owners: Sequence[Owner], result: StepResult) -> None:
        """Alpha has moved already."""

    def derived(self) -> Architecture:
        """What alpha is discretised to at present."""
        return self.space.strongest(self.probabilities())

    def probabilities(self) -> tuple[NDArray[np.float64], ...]:
        """For each block the softmax of its alpha."""
        return tuple(values.detach().softmax(0).numpy() for values in self.alpha)

    def weights(self) -> list[Tensor]:
        """The weights of each block's choices, on the CPU."""
        return [values.softmax(0).float() for values in self.alpha]

    def mixture(self, device: torch.device) -> Mixture:
        """The same where the network is."""
        return Mixture.on(device, self.weights())

    def move(self, gradients: Sequence[Tensor]) -> None:
        """One step of Adam along the gradients of the joined batch, and of the penalty."""
        penalties = self.penalties(self.alpha, self.weights())
        for values, gradient, penalty in zip(self.alpha, gradients, penalties, strict=True):
            values.grad = gradient.to(values) + penalty
        self.adam.step()

    def watch(self) -> dict[str, Tensor | float]:
        """The collapse watch: the entropy of alpha in nats, and how many of the operations it derives are skips."""
        chosen = [block.choices[choice] for block, choice in zip(self.space.blocks, self.derived(), strict=True)]
        return {
            "entropy": entropy(self.probabilities()),
            "derived_skips": float(sum(map(is_skip, chosen))),
            "derived_operations": float(sum(not is_none(one) for one in chosen)),
            **self.excess(self.weights()),
        }

    def state_dict(self) -> dict[str, Any]:
        """Alpha and Adam's moments."""
        alpha = [values.detach().clone() for values in self.alpha]
        return {"alpha": alpha, "adam": deepcopy(self.adam.state_dict()["state"])}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up alpha and Adam's moments."""
        for values, saved in zip(self.alpha, state["alpha"], strict=True):
            values.copy_(saved)
        load_moments(self.adam, state["adam"])


def summed(values: Sequence[Tensor], group: ReplicaGroup, device: torch.device) -> list[Tensor]:
    """The sums over all replicas, added up on `device` in one flat buffer."""
    if group.world == 1:
        return list(values)
    flat = group.sum(torch.cat([one.reshape(-1) for one in values]).to(device))
    pieces = flat.split_with_sizes([one.numel() for one in values])
    return [piece.view_as(one).to(one) for piece, one in zip(pieces, values, strict=True)]
