"""SNAS: all choices at once, by weights drawn nearly one-hot; weights and alpha follow one loss on the training batch.

Xie, Zheng, Liu and Lin, "SNAS: Stochastic Neural Architecture Search", ICLR 2019 (arXiv:1812.09926), section 2; Adam,
the start of alpha and the temperatures are those of its code. Memory is that of all choices.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raynas import seeds
from raynas.architecture import Architecture
from raynas.derivations.mode import mode
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Mixture, Supernet
from raynas.training_rule import Batch, Loss, StepResult
from raynas.training_rules._alpha import Alpha, summed

SMALLEST = 1e-12
"""Uniform draws are kept so far from 0 and 1, where the logarithms have no value."""


class Snas(Alpha):
    """Each step draws one mixture from the concrete distribution of each block, which all modules of the block share.

    steps: of the training, over which the temperature falls linearly to its last value.
    alpha_learning_rate, alpha_weight_decay: of Adam on alpha.
    penalty: of the expected costs above the run's limits: the resource term (section 2.4), which is linear in the
        sample, by the probabilities that the sample is drawn with.
    """

    needs_validation = False

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        steps: int,
        alpha_learning_rate: float = 3e-4,
        alpha_weight_decay: float = 1e-3,
        first_temperature: float = 1.0,
        last_temperature: float = 0.03,
        penalty: float = 1.0,
    ) -> None:
        if not 0 < last_temperature <= first_temperature:
            raise ValueError(
                f"expected 0 < last_temperature <= first_temperature, but got {last_temperature=} and "
                f"{first_temperature=}; lower the one or raise the other"
            )
        rng = seeds.generator(seed, "alpha")
        start = [rng.normal(1, 0.01, len(block.choices)) for block in space.blocks]
        super().__init__(
            space, start, learning_rate=alpha_learning_rate, weight_decay=alpha_weight_decay, penalty=penalty
        )
        self.steps = steps
        self.first_temperature = first_temperature
        self.last_temperature = last_temperature

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
        """Accumulate the weights' gradient and move alpha, by one backward pass."""
        device = train.images_NCHW.device
        temperature = self.temperature(number)
        drawn = [concrete(values, gumbel(rng, len(values)), temperature).float() for values in self.alpha]
        for values in self.alpha:
            values.grad = None
        value = loss(supernet(train.images_NCHW, Mixture.on(device, drawn)), train.labels_N)
        (value / group.world).backward()  # type: ignore[no-untyped-call]
        gradients = [torch.zeros_like(values) if values.grad is None else values.grad for values in self.alpha]
        self.move(summed(gradients, group, device))
        return StepResult(self.paths, value.detach(), {"temperature": temperature, **self.watch()})

    def temperature(self, number: int) -> float:
        """Of a step: linear from the first one's to the last one's."""
        done = number / max(1, self.steps - 1)
        return self.first_temperature + (self.last_temperature - self.first_temperature) * done

    def derived(self) -> Architecture:
        """The argmax of every block; where that is `none`, the edge is left out."""
        return mode(self.probabilities())


def gumbel(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Standard Gumbel noise, -log(-log U)."""
    return np.asarray(-np.log(-np.log(rng.random(size).clip(SMALLEST, 1 - SMALLEST))))


def concrete(logits: Tensor, noise: NDArray[np.float64], temperature: float) -> Tensor:
    """A sample of the concrete distribution: softmax((log pi + G) / temperature), pi the logits' softmax."""
    return ((logits.log_softmax(0) + torch.from_numpy(noise)) / temperature).softmax(0)
