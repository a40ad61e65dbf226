"""DARTS with selection by perturbation: a choice is worth what the trained mixture loses without it.

Wang, Cheng, Chen, Tang and Hsieh, "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021
(arXiv:2108.04392), algorithm 1; a tenth of the learning rate with a cosine and moments of its own is that of its code.
One block is fixed at a time, where its code fixes one of the normal and one of the reduction cell, and the edges of all
nodes are left out in one last round, where it takes a node after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot
from torch.optim import Optimizer

from raynas import seeds
from raynas.architecture import Architecture
from raynas.batches import Batches
from raynas.derivations.mode import mode
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace, is_none
from raynas.supernet import Choices, Mixture, Supernet
from raynas.training_rule import Batch, Loss, StepResult
from raynas.training_rules.darts1 import Darts1

TUNING = 0.1
"""Of the training's learning rate, at which the tuning between two selections begins."""


class DartsPt(Darts1):
    """Trains as `darts1` does, then fixes the blocks one by one, in random order, and trains on after each.

    A block is fixed to the choice without which the mixture, its other weights as they are, gets most validation images
    wrong. A space that keeps some of the edges (`derive`) is last asked which, given what each edge's absence costs; on
    such a space, `none` is no choice before that. Replicas share the images of every measurement.

    steps: of the training; the last `selection` of them, a share, hold the selections, at equal distances.
    """

    optimizer: Optimizer
    validation: Batches
    batch_size: int

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        steps: int,
        selection: float = 1 / 3,
        alpha_learning_rate: float = 3e-4,
        alpha_weight_decay: float = 1e-3,
        penalty: float = 1.0,
    ) -> None:
        if not 0 < selection < 1:
            raise ValueError(f"expected a share of the steps, 0 < selection < 1, but got {selection:g}; change it")
        super().__init__(
            space,
            seed=seed,
            alpha_learning_rate=alpha_learning_rate,
            alpha_weight_decay=alpha_weight_decay,
            penalty=penalty,
        )
        self.steps = steps
        self.begin = min(steps - 1, round(steps * (1 - selection)))
        self.order = seeds.generator(seed, "selection").permutation(len(space.blocks)).tolist()
        self.rounds = len(self.order) + (space.derive is not None)
        self.selected = 0
        """Rounds that are over."""
        self.fixed: dict[int, NDArray[np.float64]] = {}
        """Of each fixed block, the shares of its choices in what their absence costs; the largest is the one taken."""

    def look_at(self, optimizer: Optimizer) -> None:
        """What moves the weights: while blocks are selected, at a learning rate of this rule's own."""
        self.optimizer = optimizer

    def measure_on(self, validation: Batches, batch_size: int) -> None:
        """The images by which choices are selected, and how many of them share their batch statistics."""
        self.validation, self.batch_size = validation, batch_size

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
        """Select what is due, then train what is left of the mixture."""
        if (tuned := number - self.begin) >= 0:
            left = self.steps - self.begin
            self._tune(tuned / left)
            while self.selected < math.ceil((tuned + 1) * self.rounds / left):
                self._select(supernet, group, train.images_NCHW.device)
                self.selected += 1
        return super().step(supernet, train, validation, loss=loss, rng=rng, number=number, group=group)

    def weights(self) -> list[Tensor]:
        """The weights of each block's choices: one alone where it is fixed."""
        weights = super().weights()
        for block, shares in self.fixed.items():
            weights[block] = one_hot(torch.tensor(int(shares.argmax())), len(shares)).float()
        return weights

    def probabilities(self) -> tuple[NDArray[np.float64], ...]:
        """The softmax of alpha; of a fixed block, the shares of its choices in what their absence costs."""
        return tuple(self.fixed.get(block, values) for block, values in enumerate(super().probabilities()))

    def derived(self) -> Architecture:
        """What is fixed, and the largest alpha of every other block."""
        return mode(self.probabilities())

    def state_dict(self) -> dict[str, Any]:
        """Alpha with Adam's moments, and what has been selected."""
        fixed = [[block, torch.from_numpy(shares)] for block, shares in self.fixed.items()]
        return {**super().state_dict(), "selected": self.selected, "fixed": fixed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up alpha with Adam's moments, and what has been selected."""
        super().load_state_dict(state)
        self.selected = int(state["selected"])
        self.fixed = {int(block): shares.numpy().copy() for block, shares in state["fixed"]}

    def _tune(self, done: float) -> None:
        if not done:
            self.optimizer.state.clear()
        for settings in self.optimizer.param_groups:
            settings["lr"] = TUNING * self.optimizer.defaults["lr"] * 0.5 * (1 + math.cos(math.pi * done))

    @torch.no_grad()
    def _select(self, supernet: Supernet, group: ReplicaGroup, device: torch.device) -> None:
        """Fix the next block; or, when all are, leave out the edges that the space does not keep."""
        weights = self.weights()
        if self.selected < len(self.order):
            block = self.order[self.selected]
            choices = self._candidates(block)
            masked = [weights[block].index_fill(0, torch.tensor([choice]), 0) for choice in choices]
            wrong = self._wrong(supernet, [_replaced(weights, block, one, device) for one in masked], group)
            self.fixed[block] = np.zeros(len(weights[block]))
            self.fixed[block][choices] = _shares(wrong)
            return
        assert self.space.derive is not None
        cut = [_replaced(weights, block, torch.zeros_like(one), device) for block, one in enumerate(weights)]
        costs = 1 + self._wrong(supernet, cut, group)  # above 0, the weight of all that is not fixed
        kept = self.space.derive([w.double().numpy() * cost for w, cost in zip(weights, costs, strict=True)])
        for block, choice in enumerate(kept):
            if choice != self.fixed[block].argmax():
                self.fixed[block] = np.eye(len(self.fixed[block]))[choice]

    def _candidates(self, block: int) -> list[int]:
        """The choices that a block may be fixed to."""
        names = self.space.blocks[block].choices
        named = [index for index, name in enumerate(names) if not is_none(name)]
        return named if named and self.space.derive is not None else list(range(len(names)))

    def _wrong(self, supernet: Supernet, mixtures: Sequence[Choices], group: ReplicaGroup) -> NDArray[np.float64]:
        """How many of all validation images each mixture gets wrong, by batch statistics."""
        counts = torch.zeros(len(mixtures), device=self.validation.device)
        images = len(self.validation)
        for rows in np.array_split(np.arange(images), math.ceil(images / self.batch_size)):
            images_NCHW, labels_N = self.validation.plain(rows[group.rank :: group.world])
            for index, mixture in enumerate(mixtures):
                counts[index] += (supernet(images_NCHW, mixture).argmax(1) != labels_N).sum()
        return group.sum(counts).double().cpu().numpy()


def _replaced(weights: Sequence[Tensor], block: int, own: Tensor, device: torch.device) -> Mixture:
    return Mixture.on(device, [*weights[:block], own, *weights[block + 1 :]])


def _shares(wrong: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the images that only some absences cost; one more for each, so that none has a share of zero."""
    costs = wrong - wrong.min() + 1
    return np.asarray(costs / costs.sum())
