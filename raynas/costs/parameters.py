"""Parameters of the stand-alone network: weights, biases, and the scale and shift of each BatchNorm."""

from collections.abc import Callable, Sequence

from torch import nn

from raynas.architecture import Architecture
from raynas.costs._additive import additive
from raynas.supernet import Supernet, TrainingOnly


def parameters(supernet: Supernet, image_shape_CHW: tuple[int, int, int]) -> Callable[[Architecture], float]:
    """A function that says how many parameters an architecture's subnet has, in microseconds and exactly.

    The supernet itself has affine-free BatchNorm; what is counted is the subnet, as its user would train it, without an
    auxiliary head.
    """
    del image_shape_CHW
    return additive(supernet, count)


def count(subnet: nn.Module, modules: Sequence[nn.Module]) -> list[int]:
    """How many parameters each of these modules of a subnet has."""
    left_out = {one for part in subnet.modules() if isinstance(part, TrainingOnly) for one in part.parameters()}
    return [sum(one.numel() for one in module.parameters() if one not in left_out) for module in modules]
