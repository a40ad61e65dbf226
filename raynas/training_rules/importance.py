"""Importance sampling: single paths, of which those with large gradients are drawn more often (PA&DA's paths).

Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023 (arXiv:2302.14772): the variance of the
supernet's gradient is least if a path's probability is proportional to its gradient norm. Ours differs from the public
code on purpose: its options without weights have no norm and are hardly drawn in the end, and its losses are not
weighted, so that another mean is learnt. The decay and the greatest strength are our choices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raynas.errors import UserError
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Owner, Supernet
from raynas.training_rule import Batch, FixedRule, Loss, StepResult
from raynas.training_rules._distribution import draw, entropy

WEIGHT = "importance_weight"


class Importance(FixedRule):
    """One path a step; at each block, a choice's probability follows a decaying mean of its weights' gradient norms.

    An option without weights, or not seen yet, counts as the mean of its block's others, and `1 - strength` of the
    probability stays uniform throughout, so that none starves.

    steps: of the whole training, over which the share of the norms rises in proportion from 0 to `strength`.
    decay: of the mean, for each time that a choice is on the path.
    corrected: each loss is multiplied by uniform over drawn probability, so that the expected gradient is that of the
        rule `uniform` (Zhao and Zhang, "Stochastic Optimization with Importance Sampling for Regularized Loss
        Minimization", ICML 2015); without, training leans towards choices with large gradients.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        steps: int,
        strength: float = 0.5,
        decay: float = 0.9,
        corrected: bool = True,
    ) -> None:
        super().__init__(space)
        if not (0 <= strength < 1 and 0 <= decay < 1):
            raise ValueError(
                f"expected strength and decay from 0 to below 1, but got {strength=} and {decay=}; correct them"
            )
        del seed  # the trainer hands each step its generator; nothing else is drawn
        self.steps = steps
        self.strength = strength
        self.decay = decay
        self.corrected = corrected
        self.seen = 0
        self.norms = [np.full(len(block.choices), math.nan) for block in space.blocks]

    def check(self, supernet: Supernet) -> None:
        """Raises UserError where no choice has weights of its own whose norm could tell, before anything is trained."""
        if not any(places for _, places in supernet.owners()):
            raise UserError(
                f"importance expects choices with weights of their own, but those of {self.space.name} share slices of "
                "the same ones, and all would be drawn alike; choose the training_rule uniform or ordered_dropout."
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
        """Accumulate the weighted gradient of one path on the training batch."""
        self.seen = number
        probabilities = self.probabilities()
        path = draw(probabilities, rng)
        drawn = zip(path, probabilities, strict=True)
        weight = math.prod(1 / (len(p) * p[choice]) for choice, p in drawn) if self.corrected else 1.0
        value = loss(supernet(train.images_NCHW, path), train.labels_N)
        (value * weight / group.world).backward()  # type: ignore[no-untyped-call]
        return StepResult((path,), value.detach(), {WEIGHT: weight, "entropy": entropy(probabilities)})

    def observe(self, owners: Sequence[Owner], result: StepResult) -> None:
        """Take up the gradient norms of the path's options; dead ends have no gradients and tell nothing."""
        (path,) = result.paths
        found: dict[int, list[torch.Tensor]] = {}
        for parameter, places in owners:
            for block in {block for block, option in places if path[block] == option}:
                if parameter.grad is not None:
                    found.setdefault(block, []).append(parameter.grad)
        if found:
            norms = torch.stack([torch.stack(torch._foreach_norm(grads)).norm() for grads in found.values()])
            for block, norm in zip(found, norms.tolist(), strict=True):
                before, now = self.norms[block][path[block]], norm / float(result.metrics[WEIGHT])
                self.norms[block][path[block]] = (
                    now if math.isnan(before) else self.decay * before + (1 - self.decay) * now
                )
        self.seen += 1

    def probabilities(self) -> tuple[NDArray[np.float64], ...]:
        """For each block a mixture of its normed gradient norms and the uniform distribution."""
        share = self.strength * min(1.0, self.seen / self.steps)
        return tuple(share * _normed(norms) + (1 - share) / len(norms) for norms in self.norms)

    def state_dict(self) -> dict[str, Any]:
        """The norms, and how far the schedule has come."""
        return {"seen": self.seen, "norms": [torch.from_numpy(norms.copy()) for norms in self.norms]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the norms and the place in the schedule."""
        self.seen = int(state["seen"])
        self.norms = [norms.numpy().copy() for norms in state["norms"]]


def _normed(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of the sum of a block's norms; what has none (NaN) counts as the mean of the others."""
    known = norms[~np.isnan(norms)]
    if not known.sum():
        return np.full(len(norms), 1 / len(norms))
    filled = np.where(np.isnan(norms), known.mean(), norms)
    return np.asarray(filled / filled.sum())
