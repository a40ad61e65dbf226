"""A user's own cost that takes its time, so that a test can find an evaluator at work."""

from __future__ import annotations

import time
from collections.abc import Callable

from raynas.architecture import Architecture
from raynas.supernet import Supernet

SECONDS = 0.05


def slow_cost(supernet: Supernet, image_shape_CHW: tuple[int, int, int]) -> Callable[[Architecture], float]:
    """A function that says how many of an architecture's choices are not the first, after a while."""
    del supernet, image_shape_CHW

    def predict(architecture: Architecture) -> float:
        time.sleep(SECONDS)
        return float(sum(choice > 0 for choice in architecture))

    return predict
