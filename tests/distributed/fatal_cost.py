"""A user's own cost that takes its process with it when it meets one architecture."""

from __future__ import annotations

import os
from collections.abc import Callable

from raynas.architecture import Architecture
from raynas.supernet import Supernet

FATAL = (0, 0, 0, 3, 0, 0)


def fatal_cost(supernet: Supernet, image_shape_CHW: tuple[int, int, int]) -> Callable[[Architecture], float]:
    """A function that is 1, but for FATAL, of which it dies."""
    del supernet, image_shape_CHW

    def predict(architecture: Architecture) -> float:
        if architecture == FATAL:
            os._exit(1)
        return 1.0

    return predict
