"""What DARTS derives of learnt weights (Liu et al., ICLR 2019, section 2.4), then derivations of noisy weights.

A DARTS search ends with the first. The others are for searches with limits, where it may cost too much, and for a
budget: Gumbel noise on the logits, so that where a block's strongest choice is taken, it is a sample of their softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from raynas import seeds
from raynas.architecture import Architecture
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategies.distribution_sampling import DRAWS


class DerivationSampling:
    """Networks that the space derives of weights near the learnt ones; random ones where those are all known.

    probabilities: of each block's choices, shape (choices,) each, summing to 1; None: uniform.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int, probabilities: Sequence[NDArray[np.float64]] | None = None
    ) -> None:
        given = space.probabilities(probabilities)
        self._rng = seeds.generator(seed, "derivation_sampling")
        self._unasked = Unasked(space)
        self._derived: Architecture | None = space.strongest(given)
        with np.errstate(divide="ignore"):
            self._logits = [np.log(block) for block in given]

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures; what is derived comes first, unless it was told of before."""
        return self._unasked.ask(count, self._rng, self._propose)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn nothing but what need not be asked any more: the weights were learnt before."""
        self._unasked.note(evaluations)

    def _propose(self) -> Architecture | None:
        derived, self._derived = self._derived, None
        if derived is not None and self._unasked.claim(derived):
            return derived
        return self._unasked.first(self._sample, DRAWS)

    def _sample(self) -> Architecture:
        noisy = [logits + self._rng.gumbel(size=len(logits)) for logits in self._logits]
        return self._unasked.space.strongest([scipy.special.softmax(logits) for logits in noisy])
