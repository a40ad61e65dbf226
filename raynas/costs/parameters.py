"""Parameters of the stand-alone network: weights, biases, and the scale and shift of each BatchNorm."""

from collections.abc import Callable

from raynas.architecture import Architecture
from raynas.costs._additive import additive
from raynas.supernet import Supernet


def parameters(supernet: Supernet, image_shape_CHW: tuple[int, int, int]) -> Callable[[Architecture], float]:
    """A function that says how many parameters an architecture's subnet has, in microseconds and exactly.

    The supernet itself has affine-free BatchNorm; what is counted is the subnet, as its user would train it.
    """
    del image_shape_CHW
    return additive(supernet, lambda subnet: sum(parameter.numel() for parameter in subnet.parameters()))
