"""What the chains of inverted residuals share: how often small images are halved, rounded channels, normed layers."""

from __future__ import annotations

from torch import nn

from raynas.supernet import BatchNorm

STRIDES = 5
"""Places where the resolution is halved: the stem and four stages."""


def strides(resolution: int) -> list[int]:
    """The strides of the stem and of the halving stages: as many of the last ones are 2 as leave a side of 4."""
    halvings = max((count for count in range(STRIDES + 1) if resolution // 2**count >= 4), default=0)
    return [1] * (STRIDES - halvings) + [2] * halvings


def scaled(channels: int, factor: float) -> int:
    """The nearest multiple of 8, but at least 8 and nine tenths of what is asked for: MobileNets' own rounding."""
    wanted = channels * factor
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * wanted else nearest + 8


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution that keeps H and W but for its stride, and its batch normalisation."""
    padding = kernel_size // 2
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=padding, groups=groups, bias=False),
        BatchNorm(out_channels),
    ]
