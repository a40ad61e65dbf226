"""The mode of a factorised distribution: the most probable choice of every block (Casale et al. 2019, PARSEC)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raynas.architecture import Architecture


def mode(probabilities: Sequence[NDArray[np.float64]]) -> Architecture:
    """The argmax of each block's probabilities, shape (choices,) each; of equal ones the first."""
    return tuple(int(np.argmax(of_choices)) for of_choices in probabilities)
