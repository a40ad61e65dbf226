"""MANAS: one EXP3 bandit per choice block, whose agents learn from the joint validation loss alone.

Lopes, Carlucci, Esperanca et al., "MANAS: Multi-Agent Neural Architecture Search", Machine Learning 2024
(arXiv:1909.01051). Its text prints softmax(+eta * B) for B that accumulates losses; it must be minus. eta and the floor
of the probabilities are not in the sources we reached: ours are those of EXP3's theory (Auer et al., "The Nonstochastic
Multiarmed Bandit Problem", SIAM J. Comput. 2002).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from raynas.architecture import Architecture
from raynas.space import SearchSpace
from raynas.training_rules._agents import Agents


class Manas(Agents):
    """Each agent adds up importance-weighted losses of its choices, B_k += L 1[a = k] / pi_k, and avoids large ones.

    L is the validation loss over ln(classes), clipped to at most 1, what guessing costs. Memory is that of one path.
    One agent a block: whether cells are tied is the space's choice.

    steps: of the whole training, T.
    eta: pi follows softmax(-eta * B); None: sqrt(2 ln K / (K T)) for an agent of K choices.
    penalty: the weight, beside the loss's 1, that a path's costs above the run's limits have in L.
    exploration: gamma; pi = (1 - gamma) softmax + gamma / K. None: min(1/2, eta K), with which no single loss moves a
        choice's log odds by more than 1, or by 2 eta K where that is more.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        steps: int,
        eta: float | None = None,
        exploration: float | None = None,
        penalty: float = 1.0,
    ) -> None:
        super().__init__(space, penalty)
        if (eta is not None and not 0 < eta < math.inf) or (exploration is not None and not 0 < exploration <= 1):
            raise ValueError(
                f"expected eta > 0 and exploration above 0, up to 1, but got {eta=} and {exploration=}; "
                "correct them or leave them out"
            )
        del seed  # the trainer hands each step its generator; the agents start with uniform probabilities
        sizes = [len(block.choices) for block in space.blocks]
        self.etas = [math.sqrt(2 * math.log(size) / (size * steps)) if eta is None else eta for size in sizes]
        self.gammas = [
            min(0.5, own * size) if exploration is None else exploration
            for own, size in zip(self.etas, sizes, strict=True)
        ]
        self.estimates = [np.zeros(size) for size in sizes]
        self.clipped = 0.0

    def learn(self, path: Architecture, loss: float, number: int) -> None:
        """B_k += L / pi_k of the choice that each agent drew."""
        self.clipped = float(loss > 1)
        for estimates, choice, p in zip(self.estimates, path, self.probabilities(), strict=True):
            estimates[choice] += min(loss, 1.0) / p[choice]

    def probabilities(self) -> tuple[NDArray[np.float64], ...]:
        """For each block (1 - gamma) softmax(-eta * B) + gamma / K."""
        return tuple(
            (1 - gamma) * scipy.special.softmax(-eta * estimates) + gamma / len(estimates)
            for eta, gamma, estimates in zip(self.etas, self.gammas, self.estimates, strict=True)
        )

    def metrics(self) -> dict[str, float]:
        """The mean eta and gamma of the agents, and whether the step's loss was clipped."""
        return {
            "eta": float(np.mean(self.etas)),
            "exploration": float(np.mean(self.gammas)),
            "clipped_losses": self.clipped,
        }

    def state_dict(self) -> dict[str, Any]:
        """B of each agent, and the path whose loss is still to be taken."""
        return {**super().state_dict(), "estimates": [torch.from_numpy(one.copy()) for one in self.estimates]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up B and the path."""
        super().load_state_dict(state)
        self.estimates = [one.numpy().copy() for one in state["estimates"]]
