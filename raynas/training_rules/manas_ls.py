"""MANAS-LS: agents, one per choice block, whose credit is a least-squares fit of the joint validation losses.

Lopes, Carlucci, Esperanca et al., "MANAS: Multi-Agent Neural Architecture Search", Machine Learning 2024
(arXiv:1909.01051). How many rounds a stack has is not in the sources we reached: ours is the default below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raynas.architecture import Architecture
from raynas.space import SearchSpace
from raynas.training_rules._agents import Agents


class ManasLs(Agents):
    """Fits sums of a number per choice to a stack of S losses; then each agent draws by its ranks, p ~ 1 / rank (Zipf).

    The agents draw uniformly until the first stack is full. A stack is fitted alone: rounds before it are forgotten, as
    are their weights. Stacks end with the last round, so that none is lost, and the first takes what does not fill one
    more. Memory is that of one path. One agent a block: whether cells are tied is the space's choice.

    steps: of the whole training, T.
    stack: S; None: half of the training, but at least twice the N (K - 1) + 1 rounds that tell all differences of N
        agents of K choices apart. A training with fewer rounds has one stack, whatever it can tell.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int, steps: int, stack: int | None = None, penalty: float = 1.0
    ) -> None:
        super().__init__(space, penalty)
        if stack is not None and stack < 1:
            raise ValueError(f"expected stack >= 1, but got {stack=}; raise it or leave it out")
        del seed  # the trainer hands each step its generator; the agents start with uniform probabilities
        self.sizes = [len(block.choices) for block in space.blocks]
        self.steps = steps
        unknown = sum(size - 1 for size in self.sizes) + 1
        self.stack = max(2 * unknown, steps // 2) if stack is None else stack
        self.paths: list[Architecture] = []
        self.losses: list[float] = []
        self.pi = space.uniform_probabilities()

    def learn(self, path: Architecture, loss: float, number: int) -> None:
        """Stack the round; with a full stack fit it, move the agents, and begin another."""
        self.paths.append(path)
        self.losses.append(loss)
        left = self.steps - 1 - number
        if left % self.stack == 0 and (len(self.paths) >= self.stack or left == 0):
            effects = additive_effects(self.paths, np.array(self.losses), self.sizes)
            self.pi = tuple(zipf(of_choices) for of_choices in effects)
            self.paths, self.losses = [], []

    def probabilities(self) -> tuple[NDArray[np.float64], ...]:
        """For each block Zipf's distribution over the ranks of the last fit; uniform before the first."""
        return self.pi

    def metrics(self) -> dict[str, float]:
        """S."""
        return {"stack": float(self.stack)}

    def state_dict(self) -> dict[str, Any]:
        """The probabilities, the stack, and the path whose loss is still to be taken."""
        return {
            **super().state_dict(),
            "pi": [torch.from_numpy(p.copy()) for p in self.pi],
            "paths": torch.tensor(self.paths, dtype=torch.int64).reshape(-1, len(self.sizes)),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the probabilities, the stack and the path."""
        super().load_state_dict(state)
        self.pi = tuple(p.numpy().copy() for p in state["pi"])
        self.paths = [tuple(path) for path in state["paths"].tolist()]
        self.losses = state["losses"].tolist()


def additive_effects(
    paths: Sequence[Architecture], losses_S: NDArray[np.float64], sizes: Sequence[int]
) -> list[NDArray[np.float64]]:
    """argmin_beta sum_s (L_s - beta z_s)^2, z_s the one-hot codes of path s: for each block beta, shape (choices,).

    Each block's code sums to 1, so that there are many minimisers: they differ by constants of the blocks, and by what
    the paths do not tell apart. Taken is the one of least norm for centred codes, in which each block's effects sum to
    0. A choice that no path has stands at its block's mean; without the centring it would seem to have the least loss.
    """
    blocks = np.array(paths).T
    codes_SF = np.concatenate([np.eye(size)[choices] for size, choices in zip(sizes, blocks, strict=True)], axis=1)
    effects_F = np.linalg.lstsq(codes_SF - codes_SF.mean(0), losses_S - losses_S.mean(), rcond=None)[0]
    return np.split(effects_F, np.cumsum(sizes)[:-1])


def zipf(effects_K: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (rank H_K), H_K = 1 + 1/2 + ... + 1/K, for the ranks by rising loss; of equal ones the first is better."""
    ranks_K = np.argsort(np.argsort(effects_K, kind="stable"), kind="stable") + 1
    return np.asarray(1 / ranks_K / (1 / ranks_K).sum())
