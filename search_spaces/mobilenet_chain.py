"""SCARLET's space S2: a chain of 19 inverted residuals that choose expansion, kernel and squeeze-excitation, or skip.

Chu et al., "SCARLET-NAS", ICCVW 2021 (arXiv:1908.06022); the network is that of the authors' released models. The
choice blocks are the layers from input to output. A layer that keeps its shape may also be skipped, so that depth is
searched too: 13 of the 19 may, which makes 13^13 * 12^6 = 9.0e20 keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raynas.architecture import Architecture
from raynas.space import ChoiceBlock, SearchSpace
from raynas.stabiliser import EquivariantStabiliser
from raynas.supernet import Choice, Choices, Supernet
from search_spaces._mobile import conv_norm, scaled, strides

SKIP = "skip"
STAGES = ((32, 2, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))
"""Channels, layers, and the stride of the first of them."""
SMALL = {"width": 0.1, "head_channels": 32}


class Operation(NamedTuple):
    """What a layer may be: an inverted residual of this expansion and kernel, with squeeze-excitation or without."""

    expansion: int
    kernel_size: int
    excite: bool = False

    @property
    def name(self) -> str:
        """Such as MB6_K5_SE."""
        return f"MB{self.expansion}_K{self.kernel_size}{'_SE' * self.excite}"


OPERATIONS = tuple(Operation(*values) for values in product((3, 6), (3, 5, 7), (False, True)))


def chain_space(name: str, operations: Sequence[Operation], *, skips: bool) -> SearchSpace:
    """The space of chains of these operations; its notation lists the layers, as `MB3_K5_SE-skip-MB6_K7`."""
    names = tuple(operation.name for operation in operations)
    blocks = tuple(
        ChoiceBlock(f"{channels} channels, layer {layer}", (*names, SKIP) if skips and layer > 1 else names)
        for channels, layers, _ in STAGES
        for layer in range(1, layers + 1)
    )

    def to_string(architecture: Architecture) -> str:
        return "-".join(block.choices[choice] for block, choice in zip(blocks, architecture, strict=True))

    def from_string(text: str) -> Architecture:
        layers = text.split("-")
        if len(layers) != len(blocks):
            raise ValueError(f"expected {len(blocks)} layers joined by -, such as {names[-1]}, but got {len(layers)}")
        for number, (block, layer) in enumerate(zip(blocks, layers, strict=True), 1):
            if layer not in block.choices:
                raise ValueError(f"expected layer {number} to be one of {', '.join(block.choices)}, but got {layer!r}")
        return tuple(block.choices.index(layer) for block, layer in zip(blocks, layers, strict=True))

    def canonical(architecture: Architecture) -> Architecture:
        """Push skips behind the other layers of their stage; its first layer, which changes the shape, stays."""
        result: list[int] = []
        for _, layers, _ in STAGES:
            first, *rest = architecture[len(result) : len(result) + layers]
            result += [first, *sorted(rest, key=lambda choice: choice == len(names))]  # stable: the others keep order
        return tuple(result)

    return SearchSpace(
        name=name,
        blocks=blocks,
        canonical=canonical if skips else None,
        to_string=to_string,
        from_string=from_string,
    )


SPACE = chain_space("mobilenet_chain", OPERATIONS, skips=True)


def supernet(
    *,
    in_channels: int,
    classes: int,
    resolution: int,
    width: float = 1.0,
    head_channels: int = 1280,
    stabiliser: bool = False,
) -> Supernet:
    """The network of the released models with all choices in every layer; its defaults are theirs at 224 pixels.

    Smaller images are halved less often: the last maps keep a side of 4, so that at 32 pixels the stem and the first
    stage keep the resolution, at 64 the stem alone, and from 128 on nothing does.
    width: factor on all channels but the head's, which are then rounded to multiples of 8.
    head_channels: before the classifier. stabiliser: put SCARLET's ELS on each skip.
    Raises ValueError for settings that are not positive.
    """
    return MobileNetChain(
        SPACE,
        OPERATIONS,
        nn.Hardswish,
        in_channels=in_channels,
        classes=classes,
        resolution=resolution,
        width=width,
        head_channels=head_channels,
        stabiliser=stabiliser,
    )


class MobileNetChain(Supernet):
    """Stem, separable convolution, the chain of 19 layers, 1x1 convolution and classifier.

    activation: of the layers; outside them it is ReLU6, as in the released models.
    """

    def __init__(
        self,
        space: SearchSpace,
        operations: Sequence[Operation],
        activation: Callable[[], nn.Module],
        *,
        in_channels: int,
        classes: int,
        resolution: int,
        width: float,
        head_channels: int,
        stabiliser: bool = False,
    ) -> None:
        if width <= 0 or min(head_channels, resolution) < 1:
            raise ValueError(
                f"expected a width above 0 and head_channels and resolution of at least 1, "
                f"but got {width=}, {head_channels=}, {resolution=}; raise it."
            )
        super().__init__()
        steps = strides(resolution)
        stem, channels = scaled(32, width), scaled(16, width)
        self.stem = nn.Sequential(
            *conv_norm(in_channels, stem, 3, steps.pop(0)),
            nn.ReLU6(inplace=True),
            *conv_norm(stem, stem, 3, groups=stem),
            nn.ReLU6(inplace=True),
            *conv_norm(stem, channels, 1),
        )
        self.layers = nn.ModuleList()
        for full_width, layers, stride in STAGES:
            out_channels = scaled(full_width, width)
            for layer in range(layers):
                block = len(self.layers)
                step = steps.pop(0) if stride == 2 and layer == 0 else 1
                options: list[nn.Module] = [
                    InvertedResidual(channels, out_channels, step, operation, activation) for operation in operations
                ]
                if SKIP in space.blocks[block].choices:
                    options.append(EquivariantStabiliser(channels) if stabiliser else nn.Identity())
                self.layers.append(Choice(block, options))
                channels = out_channels
        self.head = nn.Sequential(
            *conv_norm(channels, head_channels, 1),
            nn.ReLU6(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(head_channels, classes),
        )

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        features_NCHW = self.stem(images_NCHW)
        for layer in self.layers:
            features_NCHW = layer(features_NCHW, architecture)
        return self.head(features_NCHW)  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, squeeze-excitation if any, project; no shortcut where the shape changes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        operation: Operation,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        hidden = in_channels * operation.expansion
        self.shortcut = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            *conv_norm(in_channels, hidden, 1),
            activation(),
            *conv_norm(hidden, hidden, operation.kernel_size, stride, groups=hidden),
            activation(),
            *([SqueezeExcite(hidden)] if operation.excite else []),
            *conv_norm(hidden, out_channels, 1),
        )

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        outputs_NCHW: Tensor = self.layers(inputs_NCHW)
        return outputs_NCHW + inputs_NCHW if self.shortcut else outputs_NCHW


class SqueezeExcite(nn.Module):
    """Scale each channel by what all channels' means say (Hu et al., CVPR 2018), through a quarter of the width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 4, channels, kernel_size=1),
            nn.Hardsigmoid(),
        )

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return torch.mul(inputs_NCHW, self.gate(inputs_NCHW))
