"""Hypervolume: how much of the space of objectives some architectures dominate (Zitzler and Thiele, IEEE TEC 3, 1999).

Objectives are all minimised and lie in 0..1; the reference point is 1 in each of them.
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray

DIGITS = 12  # beyond which volumes differ by the rounding of their sums


def hypervolume(objectives_AM: NDArray[np.float64]) -> float:
    """The volume of what any of the architectures dominates: shape (A, M) -> 0..1."""
    return round(float(moocore.hypervolume(objectives_AM, ref=np.ones(objectives_AM.shape[1]))), DIGITS)


def most_hypervolume(objectives_AM: NDArray[np.float64], count: int) -> list[int]:
    """`count` rows, or all: the first one, and then again and again the one that adds most hypervolume to those before.

    Greedy subset selection (Guerreiro, Fonseca and Paquete, Evolutionary Computation 24, 2016), but for its first. Of
    those that add as much it is the first.
    """
    chosen: list[int] = []
    left = list(range(len(objectives_AM)))
    while left and len(chosen) < count:
        volumes = [hypervolume(objectives_AM[[*chosen, row]]) for row in left] if chosen else [1.0]
        chosen.append(left.pop(int(np.argmax(volumes))))
    return chosen
