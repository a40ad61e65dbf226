"""PARSEC: importance-weighted Monte Carlo empirical Bayes over weights and a distribution of architectures.

Casale, Gordon and Fusi, "Probabilistic Neural Architecture Search", 2019 (arXiv:1902.05116), section 3. Learning rates
and the number of samples on other spaces than DARTS's are not in the sources we reached: ours are the defaults below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from raynas.architecture import Architecture
from raynas.checkpoint import load_moments
from raynas.replica_group import ReplicaGroup
from raynas.space import SearchSpace
from raynas.supernet import Owner, Supernet
from raynas.training_rule import Batch, DivergenceError, Loss, StepResult
from raynas.training_rules._distribution import draw, entropy
from raynas.training_rules._penalised import Penalised

LEAST = 1e-6
"""What an initial probability is raised to: what had none would never be drawn again."""
NEGLIGIBLE = 1e-4
"""A child whose weight is below this has no backward pass; the other weights are not renormalised."""


class Parsec(Penalised):
    """K children a step, weighted by how well each explains the batch; memory is that of one child.

    samples: children K (16 on the DARTS space).
    distribution_learning_rate: of Adam on the logits theta, pi = softmax(theta) block by block.
    temperature: T in softmax(-B * CE / T) over a batch of B images; 1 is the paper's likelihood of the whole batch,
        whose effective sample size falls to 1 for large batches.
    penalty: of the expected costs above the run's limits, against the log likelihood.
    initial: the probabilities of each block's choices that the distribution begins at, such as another run has learnt;
        None: uniform ones.
    """

    needs_validation = True
    splits_batch = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        samples: int = 16,
        distribution_learning_rate: float = 0.05,
        temperature: float = 1.0,
        penalty: float = 1.0,
        initial: tuple[tuple[float, ...], ...] | None = None,
    ) -> None:
        if samples < 1 or temperature <= 0:
            raise ValueError(
                f"expected samples >= 1 and temperature > 0, but got {samples=} and {temperature=}; raise the lower one"
            )
        del seed  # the trainer hands each step its generator
        super().__init__(penalty)
        self.space = space
        self.samples = samples
        self.temperature = temperature
        logits = [np.log(np.maximum(p, LEAST)) for p in space.probabilities(initial)]
        self.theta = [torch.from_numpy(values).requires_grad_() for values in logits]
        self.adam = torch.optim.Adam(self.theta, lr=distribution_learning_rate)

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
        """Accumulate the weighted gradient of K children on the training batch; move theta by the validation batch."""
        assert validation is not None
        pi = self.probabilities()
        children = [draw(pi, rng) for _ in range(self.samples)]
        losses_train = self._batch_losses(supernet, children, train, loss, group)
        losses_validation = self._batch_losses(supernet, children, validation, loss, group)
        if not (np.isfinite(losses_train).all() and np.isfinite(losses_validation).all()):
            raise DivergenceError("a child's loss is not finite")
        weights_train = importance_weights(losses_train, self.temperature)
        weights_validation = importance_weights(losses_validation, self.temperature)
        kept = []
        for child, weight in zip(children, weights_train, strict=True):
            if weight > NEGLIGIBLE:
                value = loss(supernet(train.images_NCHW, child), train.labels_N)
                (value * weight / group.world).backward()
                kept.append(child)
        self._move_distribution(children, weights_validation, pi)
        images = len(train.labels_N) * group.world
        return StepResult(
            tuple(kept),
            torch.tensor(float(weights_train @ losses_train) / images),
            {
                "effective_sample_size": effective_sample_size(weights_train),
                "effective_sample_size_validation": effective_sample_size(weights_validation),
                "entropy": entropy(pi),
                **self.excess([torch.from_numpy(p) for p in pi]),
            },
        )

    def observe(self, owners: Sequence[Owner], result: StepResult) -> None:
        """Theta has moved already."""

    def probabilities(self) -> tuple[NDArray[np.float64], ...]:
        """pi: for each block the softmax of its logits."""
        return tuple(logits.detach().softmax(0).numpy() for logits in self.theta)

    def state_dict(self) -> dict[str, Any]:
        """The logits and Adam's moments."""
        return {"theta": [logits.detach().clone() for logits in self.theta], "adam": self.adam.state_dict()["state"]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the logits and Adam's moments."""
        for logits, saved in zip(self.theta, state["theta"], strict=True):
            logits.copy_(saved)
        load_moments(self.adam, state["adam"])

    @torch.no_grad()
    def _batch_losses(
        self, supernet: Supernet, children: list[Architecture], batch: Batch, loss: Loss, group: ReplicaGroup
    ) -> NDArray[np.float64]:
        """-log p(y | X, v, a_k) of the joined batch: the sum of its images' cross-entropies, shape (K,)."""
        means = torch.stack([loss(supernet(batch.images_NCHW, child), batch.labels_N) for child in children])
        return (group.sum(means * len(batch.labels_N)).double().cpu()).numpy()

    def _move_distribution(
        self, children: list[Architecture], weights_K: NDArray[np.float64], pi: tuple[NDArray[np.float64], ...]
    ) -> None:
        penalties = self.penalties(self.theta, [logits.softmax(0) for logits in self.theta])
        gradients = distribution_gradient(children, weights_K, pi)
        for logits, gradient, penalty in zip(self.theta, gradients, penalties, strict=True):
            logits.grad = penalty - torch.from_numpy(gradient)  # Adam descends; the likelihood is to rise
        self.adam.step()


def importance_weights(losses_K: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """omega_k = p(y|X,v,a_k) / sum_j p(y|X,v,a_j) from the children's batch losses, in log space."""
    return np.asarray(scipy.special.softmax(-losses_K / temperature))


def effective_sample_size(weights_K: NDArray[np.float64]) -> float:
    """1 / sum omega^2: K when all children count alike, 1 when one decides."""
    return float(1 / np.square(weights_K).sum())


def distribution_gradient(
    children: list[Architecture], weights_K: NDArray[np.float64], pi: tuple[NDArray[np.float64], ...]
) -> list[NDArray[np.float64]]:
    """Per block the gradient of the log marginal likelihood: sum_k omega_k (onehot(a_k) - pi)."""
    return [
        np.bincount([child[block] for child in children], weights=weights_K, minlength=len(p)) - weights_K.sum() * p
        for block, p in enumerate(pi)
    ]
