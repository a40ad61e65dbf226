"""The operations of the DARTS space, as its search network has them: affine-free BN, also behind the poolings.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, section 3.1.1. `noise` is an operation
of RobustDARTS's space S4 alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from raynas.supernet import BatchNorm

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NONE, SKIP, NOISE = "none", "skip_connect", "noise"


def operation(name: str, channels: int, stride: int, *, normalise_pools: bool, place: int) -> nn.Module:
    """An operation: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).

    normalise_pools: BN behind poolings, as while searching; DARTS's evaluation network has none there. place: a number
    of the operation's own, for what its noise looks like.
    """
    kernel_size = 5 if name.endswith("5x5") else 3
    if name == NONE:
        return Zero(stride)
    if name == NOISE:
        return Noise(stride, place)
    if name == SKIP:
        return nn.Identity() if stride == 1 else reduction(channels, channels)
    if name in ("max_pool_3x3", "avg_pool_3x3"):
        pool = (
            nn.MaxPool2d(3, stride, padding=1)
            if name == "max_pool_3x3"
            else nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        )
        return nn.Sequential(pool, BatchNorm(channels)) if normalise_pools else pool
    if name in ("sep_conv_3x3", "sep_conv_5x5"):
        return nn.Sequential(*_separable(channels, kernel_size, stride), *_separable(channels, kernel_size, 1))
    if name in ("dil_conv_3x3", "dil_conv_5x5"):
        return nn.Sequential(*_separable(channels, kernel_size, stride, dilation=2))
    raise ValueError(f"expected one of {', '.join((*OPERATIONS, NOISE))}, but got {name!r}; correct the operation.")


def _separable(channels: int, kernel_size: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel_size // 2)
    return [
        nn.ReLU(),  # not in place: a node's value goes to several edges
        nn.Conv2d(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, kernel_size=1, bias=False),
        BatchNorm(channels),
    ]


class ReluConvNorm(nn.Sequential):
    """What brings a cell's input to the cell's number of channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.ReLU(), nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False), BatchNorm(out_channels)
        )


class FactorizedReduction(nn.Module):
    """Half the resolution without losing pixels: two 1x1 convolutions of stride 2, one of them a pixel further."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(in_channels, out_channels // 2, kernel_size=1, stride=2, bias=False)
        self.far = nn.Conv2d(in_channels, out_channels - out_channels // 2, kernel_size=1, stride=2, bias=False)

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, ceil(H / 2), ceil(W / 2)); beyond the last pixel are zeros."""
        shifted_NCHW = functional.pad(inputs_NCHW, (0, 1, 0, 1))[:, :, 1:, 1:]
        return torch.cat([self.near(inputs_NCHW), self.far(shifted_NCHW)], 1)


def reduction(in_channels: int, out_channels: int) -> nn.Module:
    """DARTS's FactorizedReduce, between ReLU and BatchNorm."""
    return nn.Sequential(nn.ReLU(), FactorizedReduction(in_channels, out_channels), BatchNorm(out_channels))


class Zero(nn.Module):
    """The operation `none`, where a relaxed mixture gives it all the weight."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """Zeros: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        return torch.zeros_like(inputs_NCHW[:, :, :: self.stride, :: self.stride])


class Noise(nn.Module):
    """Standard normal noise in place of the input; it differs between the images of a batch, and not between batches.

    RobustDARTS draws it anew each time. Here it is a function of the position in the batch (a counter-based generator),
    so that a network's output is a function of its input, on any device and in an exported program.
    """

    def __init__(self, stride: int, place: int) -> None:
        super().__init__()
        self.stride = stride
        self.place = place

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """Noise: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        outputs_NCHW = inputs_NCHW[:, :, :: self.stride, :: self.stride]
        count, channels, height, width = outputs_NCHW.shape
        position = torch.arange(count * channels * height * width, device=inputs_NCHW.device)
        bits = _scramble(position + (self.place << 40))
        radius = (-2 * (((bits & 0xFFFFFF) + 1).double() / 2**24).log()).sqrt()  # Box and Muller
        angle = 2 * math.pi * ((bits >> 24) & 0xFFFFFF).double() / 2**24
        return (radius * angle.cos()).to(inputs_NCHW.dtype).view(count, channels, height, width)


def _scramble(counter: Tensor) -> Tensor:
    """Well mixed bits of int64 counters (the finaliser of MurmurHash3; products wrap around)."""
    for factor in (-0x00AE502812AA7333, -0x3B314601E57A13AD):
        counter = counter ^ ((counter >> 33) & 0x7FFFFFFF)
        counter = counter * factor
    return counter ^ ((counter >> 33) & 0x7FFFFFFF)
