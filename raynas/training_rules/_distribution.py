"""Distributions over architectures, one over each block's choices: what the rules that draw from one share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raynas.architecture import Architecture


def draw(pi: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> Architecture:
    """A sample of p(a | pi), pi of shape (choices,) for each block."""
    return tuple(int(rng.choice(len(p), p=p)) for p in pi)


def entropy(pi: Sequence[NDArray[np.float64]]) -> float:
    """The entropy of p(a | pi) in nats: the sum over blocks."""
    return float(sum(-(p * np.log(np.maximum(p, 1e-300))).sum() for p in pi))
