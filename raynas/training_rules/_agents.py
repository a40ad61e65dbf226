"""One bandit agent per choice block: what the rules of MANAS share; how the agents learn is each rule's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from raynas.architecture import Architecture
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Supernet
from raynas.training_rule import Batch, DivergenceError, FixedRule, Loss, StepResult
from raynas.training_rules._distribution import draw, entropy
from raynas.training_rules._penalised import Penalised


class Agents(Penalised, FixedRule):
    """One path a step, of which each agent draws its own block's choice; all see only the path's validation loss.

    The loss is that of the weights which the path's own training step has moved (Z_t with w_{t+1}). The trainer moves
    them after `step` has ended, so that a path is scored at the beginning of the next step, on that one's validation
    batch, before another path is drawn. The last step's path is never scored: of T steps T - 1 teach the agents.
    """

    needs_validation = True

    def __init__(self, space: SearchSpace, penalty: float) -> None:
        Penalised.__init__(self, penalty)
        FixedRule.__init__(self, space)
        self.unscored: Architecture | None = None

    def learn(self, path: Architecture, loss: float, number: int) -> None:
        """Take up one round, before the path of step `number` is drawn; probabilities() are still those that drew it.

        loss: the mean cross-entropy on the validation batch as a share of that of guessing, ln(classes); where there
            are limits, its mean with what the path's costs are above them.
        """
        raise NotImplementedError(f"{type(self).__name__} must define learn(path, loss, number).")

    def metrics(self) -> dict[str, float]:
        """The rule's figures for the curve."""
        return {}

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
        """Learn from the step before; then draw a path and accumulate its gradient on the training batch."""
        assert validation is not None
        if self.unscored is not None:
            share = _share_of_guessing(supernet, self.unscored, validation, loss, group)
            self.learn(self.unscored, self._penalised(share, self.unscored), number)
        pi = self.probabilities()
        path = draw(pi, rng)
        value = loss(supernet(train.images_NCHW, path), train.labels_N)
        (value / group.world).backward()  # type: ignore[no-untyped-call]
        self.unscored = path
        figures = {"entropy": entropy(pi), **self.metrics(), **self.excess([torch.from_numpy(p) for p in pi])}
        return StepResult((path,), value.detach(), figures)

    def state_dict(self) -> dict[str, Any]:
        """The path whose loss is still to be taken."""
        return {"unscored": None if self.unscored is None else list(self.unscored)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up that path."""
        self.unscored = None if state["unscored"] is None else tuple(map(int, state["unscored"]))

    def _penalised(self, loss: float, path: Architecture) -> float:
        """The mean of the loss and, with the weight of the penalty, the excess: both are at most about 1."""
        if self.limits is None:
            return loss
        sizes = [len(block.choices) for block in self.space.blocks]
        excess = self.limits.excess([torch.eye(size)[choice] for size, choice in zip(sizes, path, strict=True)])
        return (loss + self.penalty * min(1.0, float(excess))) / (1 + self.penalty)


@torch.no_grad()
def _share_of_guessing(supernet: Supernet, path: Architecture, batch: Batch, loss: Loss, group: ReplicaGroup) -> float:
    """The loss of the joined batch over ln(classes), so that it is about 1 before anything is learnt."""
    logits_NK = supernet(batch.images_NCHW, path)
    mean = float(group.sum(loss(logits_NK, batch.labels_N))) / group.world  # the shares of a batch are equally large
    if not math.isfinite(mean):
        raise DivergenceError("a path's validation loss is not finite")
    return mean / math.log(max(2, logits_NK.shape[1]))
