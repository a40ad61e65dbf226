"""A user's own cost that breaks its process as an accelerator does: after one architecture every call fails."""

from __future__ import annotations

from collections.abc import Callable

from raynas.architecture import Architecture
from raynas.supernet import Supernet
from tests.distributed.fatal_cost import FATAL

met: list[Architecture] = []
"""What broke this process."""


def breaking_cost(supernet: Supernet, image_shape_CHW: tuple[int, int, int]) -> Callable[[Architecture], float]:
    """A function that is 1 as long as it has not met FATAL."""
    del supernet, image_shape_CHW

    def predict(architecture: Architecture) -> float:
        if met or architecture == FATAL:
            met.append(architecture)
            raise RuntimeError("CUDA error: device-side assert triggered\nmore")
        return 1.0

    return predict
