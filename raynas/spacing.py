"""Some of many, evenly: what stands for a whole that is too large."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Places at equal distances among `count`, the first and the last with them: all, or `most` of them, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
