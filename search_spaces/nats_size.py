"""NATS-Bench's size space: the channels of five positions of one fixed network, each 8 to 64 (Dong et al., 2021).

Dong et al., "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size", TPAMI (arXiv:2009.00437).
The positions are, from input to output, a cell, a reduction, a cell, a reduction and a cell; the first also sets the
stem's channels. An architecture is written as `64:64:56:64:24`. The supernet's weights are sliced: elastic layers.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from raynas.architecture import Architecture
from raynas.elastic import ElasticBatchNorm, ElasticConv2d, ElasticLinear, Width
from raynas.space import ChoiceBlock, SearchSpace
from raynas.supernet import Choices, Chosen, Copy, PathModule, Supernet

SIZES = tuple(range(8, 65, 8))
POSITIONS = ("stem and cell 1", "reduction 1", "cell 2", "reduction 2", "cell 3")
EDGES = ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3))
"""The 3x3 convolutions of the benchmark's cell; its last edge, from node 0 to node 3, is the skip connection."""


def to_string(architecture: Architecture) -> str:
    """The benchmark's notation."""
    return ":".join(str(SIZES[choice]) for choice in architecture)


def from_string(text: str) -> Architecture:
    """Read the benchmark's notation; raises ValueError for anything else."""
    choices = {str(size): choice for choice, size in enumerate(SIZES)}
    sizes = text.split(":")
    if len(sizes) != len(POSITIONS) or not set(sizes) <= set(choices):
        raise ValueError(
            f"expected the channels of {len(POSITIONS)} positions, multiples of 8 up to 64, such as 64:64:56:64:24, "
            f"but got {text!r}"
        )
    return tuple(choices[size] for size in sizes)


SPACE = SearchSpace(
    name="nats_size",
    blocks=tuple(ChoiceBlock(position, tuple(map(str, SIZES))) for position in POSITIONS),
    to_string=to_string,
    from_string=from_string,
)


def supernet(*, in_channels: int, classes: int, resolution: int, width_multiple: float = 1.0) -> Supernet:
    """The benchmark's network with all widths of every position; its defaults are the benchmark's own network.

    width_multiple: of all channels, rounded up. Raises ValueError for settings that are not positive.
    """
    if width_multiple <= 0 or resolution < 1:
        raise ValueError(
            f"expected a positive width_multiple and a resolution of at least 1, but got {width_multiple=} and "
            f"{resolution=}; raise it."
        )
    sizes = tuple(-int(-size * width_multiple // 1) for size in SIZES)
    return NatsSize(in_channels, classes, tuple(Width(block, sizes) for block in range(len(POSITIONS))))


class NatsSize(Supernet):
    """Stem, three cells with reductions between them, pooling and classifier."""

    def __init__(self, in_channels: int, classes: int, widths: tuple[Width, ...]) -> None:
        super().__init__()
        first, second, third, fourth, last = widths
        self.stem = ElasticConv2d(in_channels, first, kernel_size=3)
        self.layers = nn.ModuleList(
            [Cell(first, first), Reduction(first, second), Cell(second, third), Reduction(third, fourth)]
        )
        self.layers.append(Cell(fourth, last))
        self.norm = ElasticBatchNorm(last)
        self.head = ElasticLinear(last, classes)

    @property
    def classifiers(self) -> list[nn.Module]:
        """The elastic layer, which is called in place of the nn.Linear inside it."""
        return [self.head]

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        features_NCHW = self.stem(images_NCHW, architecture)
        for layer in self.layers:
            features_NCHW = layer(features_NCHW, architecture)
        pooled_NC = torch.relu(self.norm(features_NCHW, architecture)).mean((2, 3))
        return self.head(pooled_NC, architecture)  # type: ignore[no-any-return]


class Cell(nn.Module):
    """The benchmark's fixed cell: a node is the sum of its incoming edges, the output is the last node."""

    def __init__(self, inputs: Width, outputs: Width) -> None:
        super().__init__()
        self.edges = nn.ModuleList(ReluConvNorm(outputs if source else inputs, outputs) for source, _ in EDGES)
        self.skip = Skip(inputs, outputs) if inputs != outputs else None

    def forward(self, inputs_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> (N, out, H, W)."""
        nodes = [inputs_NCHW]
        for target in (1, 2, 3):
            arriving = [
                edge(nodes[source], architecture)
                for (source, into), edge in zip(EDGES, self.edges, strict=True)
                if into == target
            ]
            nodes.append(reduce(add, arriving))
        return nodes[-1] + (inputs_NCHW if self.skip is None else self.skip(inputs_NCHW, architecture))


class Skip(PathModule):
    """The benchmark's skip connection: an identity where the widths are equal, a 1x1 convolution where they differ."""

    per_image = True

    def __init__(self, inputs: Width, outputs: Width) -> None:
        super().__init__()
        assert inputs.sizes == outputs.sizes
        self.inputs, self.outputs = inputs, outputs
        self.projection = ElasticConv2d(inputs, outputs, kernel_size=1)

    def forward(self, inputs_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> (N, out, H, W); with weights, as much of either as the widths are equal."""
        ends = [architecture[width.block] for width in (self.inputs, self.outputs)]
        weights = [end for end in ends if isinstance(end, Tensor)]
        if not weights:
            return inputs_NCHW if ends[0] == ends[1] else self.projection(inputs_NCHW, architecture)
        one_hot = torch.eye(len(self.inputs.sizes), dtype=weights[0].dtype, device=weights[0].device)
        before, after = (end if isinstance(end, Tensor) else one_hot[end] for end in ends)
        equal = (before * after).sum(-1)  # () or (N,)
        projected_NCHW = self.projection(inputs_NCHW, architecture, (1 - equal) if equal.dim() else None)
        same = equal[..., None, None, None]
        return same * inputs_NCHW + (1 - same) * projected_NCHW  # type: ignore[no-any-return]

    def blocks(self) -> dict[int, int]:
        """Those of both its ends."""
        return {**self.inputs.blocks, **self.outputs.blocks}

    def cut(self, architecture: Architecture, copy: Copy) -> nn.Module:
        """One of the two."""
        equal = self.inputs.size(architecture) == self.outputs.size(architecture)
        return Chosen(nn.Identity()) if equal else copy(self.projection)


class Reduction(nn.Module):
    """The benchmark's residual block of stride 2; its shortcut is a pooling and a bare 1x1 convolution."""

    def __init__(self, inputs: Width, outputs: Width) -> None:
        super().__init__()
        self.first = ReluConvNorm(inputs, outputs, stride=2)
        self.second = ReluConvNorm(outputs, outputs)
        self.pool = nn.AvgPool2d(2, stride=2, ceil_mode=True)  # ceil: an odd side gives what the convolution gives
        self.shortcut = ElasticConv2d(inputs, outputs, kernel_size=1, norm=False)

    def forward(self, inputs_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> (N, out, ceil(H / 2), ceil(W / 2))."""
        residual_NCHW = self.second(self.first(inputs_NCHW, architecture), architecture)
        return residual_NCHW + self.shortcut(self.pool(inputs_NCHW), architecture)  # type: ignore[no-any-return]


class ReluConvNorm(nn.Module):
    """ReLU, 3x3 convolution and batch normalisation."""

    def __init__(self, inputs: Width, outputs: Width, stride: int = 1) -> None:
        super().__init__()
        self.convolution = ElasticConv2d(inputs, outputs, kernel_size=3, stride=stride)

    def forward(self, inputs_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        return self.convolution(torch.relu(inputs_NCHW), architecture)  # type: ignore[no-any-return]
