"""Width and depth: cells of chosen width, number of layers and skip links, for the networks of FLASH.

Li et al., "FLASH: Fast Neural Architecture Search with Hardware Optimization", ACM TECS 2021 (arXiv:2108.00568). A
cell is a chain of layers of one width; its skip links lead past layers, and are concatenated (DenseNet) or added
(ResNet, MobileNetV2). The space's `cells` say what NN-Degree is computed from. The paper's grids are not in the
sources we reached: ours are four cells, eight widths of a quarter to twice the cell's base width, one to eight layers,
and up to seven links into a layer, 6.9e10 keys (the paper speaks of more than 63e9 configurations). Its links are drawn
at random; ours come from the nearest earlier layers, so that they have weights to share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from raynas.architecture import Architecture
from raynas.elastic import (
    Channels,
    ElasticBatchNorm,
    ElasticConv2d,
    ElasticLinear,
    Sometimes,
    Width,
    is_absent,
    or_skipped,
    scaled,
)
from raynas.space import Cell, ChoiceBlock, SearchSpace
from raynas.supernet import Choices, Supernet

Variant: TypeAlias = Literal["dense", "residual", "mobile"]
"""A convolution that reads concatenated links; a basic block, or an inverted residual, to which links are added."""

COUNTS = (4,)
MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
DEPTHS = (1, 2, 3, 4, 5, 6, 7, 8)
LINKS = (0, 1, 2, 3, 4, 5, 6, 7)
EXPANSION = 6
"""Of the inverted residuals, MobileNetV2's own."""

SMALL: dict[str, Any] = {"channels": 4}


@dataclass(frozen=True, slots=True)
class Grid:
    """What there is to choose, and which block chooses it; with one number of cells, no block is there to choose it."""

    variant: Variant = "dense"
    counts: tuple[int, ...] = COUNTS
    multiples: tuple[float, ...] = MULTIPLES
    depths: tuple[int, ...] = DEPTHS
    links: tuple[int, ...] = LINKS
    channels: int = 16

    def __post_init__(self) -> None:
        for name in ("counts", "multiples", "depths", "links"):
            values = getattr(self, name)
            least = 0 if name == "links" else 1e-9
            if not values or min(values) < least or list(values) != sorted(set(values)):
                raise ValueError(f"expected positive {name} in rising order, but got {values}; correct them.")
        if self.variant not in get_args(Variant):
            raise ValueError(f"expected a variant of {', '.join(get_args(Variant))}, but got {self.variant!r}.")

    @property
    def first(self) -> int:
        """The block of the first cell's width."""
        return int(len(self.counts) > 1)

    def block(self, cell: int) -> int:
        """The block of a cell's width; those of its layers and of its links are the next."""
        return self.first + 3 * cell

    def count(self, architecture: Architecture) -> int:
        """How many cells an architecture has."""
        return self.counts[architecture[0]] if self.first else self.counts[0]

    def width(self, cell: int) -> Width:
        """The channels of a cell: multiples of the base width, which doubles from cell to cell."""
        sizes = tuple(max(1, round(self.channels * 2**cell * multiple)) for multiple in self.multiples)
        return Width(self.block(cell), sizes)

    def reach(self, layer: int) -> int:
        """How many links can lead into a layer (counted from 0): from what its cell computes before it.

        A concatenated link is one more input besides the layer before; an added one may be that layer's output itself.
        """
        return layer if self.variant == "dense" else layer + 1

    def cells(self, choices: Sequence[float]) -> tuple[Cell, ...]:
        """The cells that an architecture has; between two choices, what lies between."""
        found = []
        for cell in range(self.counts[round(choices[0])] if self.first else self.counts[0]):
            at = choices[self.block(cell) : self.block(cell) + 3]
            ranges = (self.width(cell).sizes, self.depths, self.links)
            width, layers, links = (
                float(np.interp(place, range(len(values)), values)) for values, place in zip(ranges, at, strict=True)
            )
            into = (min(links, self.reach(layer)) * min(1, layers - layer) for layer in range(math.ceil(layers)))
            found.append(Cell(width, layers, width * sum(into), 1 / 4**cell))
        return tuple(found)

    def canonical(self, architecture: Architecture) -> Architecture:
        """As few links as give the same ones; cells beyond the number of cells take their first choices."""
        result = [*architecture[: self.first], *(0 for _ in architecture[self.first :])]
        for cell in range(self.count(architecture)):
            block = self.block(cell)
            most = self.reach(self.depths[architecture[block + 1]] - 1)
            used = min(self.links[architecture[block + 2]], most)
            fewest = next(choice for choice, links in enumerate(self.links) if min(links, most) == used)
            result[block : block + 3] = [*architecture[block : block + 2], fewest]
        return tuple(result)

    def to_string(self, architecture: Architecture) -> str:
        """`0.5x4+2 1x8+0 ...`: width's multiple, layers and links of each cell; those beyond the last behind a bar."""
        terms = []
        for cell in range(self.counts[-1]):
            width, depth, links = architecture[self.block(cell) : self.block(cell) + 3]
            terms.append(f"{self.multiples[width]:g}x{self.depths[depth]}+{self.links[links]}")
        count = self.count(architecture)
        beyond = f" | {' '.join(terms[count:])}" if any(architecture[self.block(count) :]) else ""
        return " ".join(terms[:count]) + beyond

    def from_string(self, text: str) -> Architecture:
        """Read `to_string`; raises ValueError for anything else."""
        used, _, beyond = text.partition(" | ")
        codes = {
            f"{width:g}x{depth}+{links}": (code_w, code_d, code_l)
            for code_w, width in enumerate(self.multiples)
            for code_d, depth in enumerate(self.depths)
            for code_l, links in enumerate(self.links)
        }
        count, terms = len(used.split(" ")), [*used.split(" "), *(beyond.split(" ") if beyond else ())]
        if count not in self.counts or not set(terms) <= set(codes) or len(terms) not in (count, self.counts[-1]):
            raise ValueError(
                f"expected {' or '.join(map(str, self.counts))} cells of multiple x layers + links, such as "
                f"{next(iter(codes))}, with multiples of {self.multiples}, layers of {self.depths} and links of "
                f"{self.links}, but got {text!r}"
            )
        choices = [choice for term in terms for choice in codes[term]]
        choices += [0] * (3 * self.counts[-1] - len(choices))
        return (*((self.counts.index(count),) * self.first), *choices)


def space(
    *,
    variant: Variant = "dense",
    counts: Sequence[int] = COUNTS,
    multiples: Sequence[float] = MULTIPLES,
    depths: Sequence[int] = DEPTHS,
    links: Sequence[int] = LINKS,
    channels: int = 16,
) -> SearchSpace:
    """Networks of a number of cells of `counts`, each of these widths, layers and links into a layer.

    channels: as in `supernet`; the cells' widths are multiples of it. Raises ValueError for a range that is empty, out
    of order, or holds what is not positive.
    """
    grid = Grid(variant, tuple(counts), tuple(multiples), tuple(depths), tuple(links), channels)
    number = (ChoiceBlock("cells", tuple(f"{count} cells" for count in counts)),) * grid.first
    return SearchSpace(
        name="width_depth",
        blocks=(
            *number,
            *(
                block
                for cell in range(1, grid.counts[-1] + 1)
                for block in (
                    ChoiceBlock(f"width {cell}", tuple(f"{multiple:g} wide" for multiple in multiples)),
                    ChoiceBlock(f"layers {cell}", tuple(f"{depth} layers" for depth in depths)),
                    ChoiceBlock(f"links {cell}", tuple(f"{link} links" for link in links)),
                )
            ),
        ),
        canonical=grid.canonical,
        to_string=grid.to_string,
        from_string=grid.from_string,
        cells=grid.cells,
    )


SPACE = space()


def supernet(
    *,
    in_channels: int,
    classes: int,
    resolution: int,
    variant: Variant = "dense",
    counts: Sequence[int] = COUNTS,
    multiples: Sequence[float] = MULTIPLES,
    depths: Sequence[int] = DEPTHS,
    links: Sequence[int] = LINKS,
    channels: int = 16,
) -> Supernet:
    """The network with all choices of these ranges (as in `space`).

    channels: base width of the first cell; each later cell doubles it and halves `resolution`. Raises ValueError for
    settings that are not positive.
    """
    if min(channels, resolution) < 1:
        raise ValueError(
            f"expected channels and resolution of at least 1, but got {channels=}, {resolution=}; raise it."
        )
    grid = Grid(variant, tuple(counts), tuple(multiples), tuple(depths), tuple(links), channels)
    return WidthDepth(in_channels, classes, grid)


class WidthDepth(Supernet):
    """The cells, and a classifier behind each that may be the last."""

    def __init__(self, in_channels: int, classes: int, grid: Grid) -> None:
        super().__init__()
        number = 0 if grid.first else None
        self.cells, self.heads = nn.ModuleList(), nn.ModuleList()
        inputs: Channels | int = in_channels
        for cell in range(grid.counts[-1]):
            width = grid.width(cell)
            layers = Layers(grid, cell, inputs, width)
            self.cells.append(Sometimes(layers, number, [cell < count for count in grid.counts]))
            head = ElasticLinear(width, classes) if cell + 1 in grid.counts else nn.Identity()
            self.heads.append(Sometimes(head, number, [cell + 1 == count for count in grid.counts]))
            inputs = width

    @property
    def classifiers(self) -> list[nn.Module]:
        """One behind each cell that may be the last."""
        return [module for module in self.heads.modules() if isinstance(module, ElasticLinear)]

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        features_NCHW, logits = images_NCHW, []
        for cell, head in zip(self.cells, self.heads, strict=True):
            if is_absent(cell.weight(architecture)):  # type: ignore[operator]
                break
            features_NCHW = cell(features_NCHW, architecture)
            if not is_absent(weight := head.weight(architecture)):  # type: ignore[operator]
                logits.append(scaled(head(features_NCHW.mean((2, 3)), architecture), weight))
        return reduce(add, logits)


class Layers(nn.Module):
    """A cell: a convolution that brings the input to its width, by stride 2 but in the first cell; then the layers."""

    def __init__(self, grid: Grid, cell: int, inputs: Channels | int, width: Width) -> None:
        super().__init__()
        self.entry = ElasticConv2d(inputs, width, kernel_size=3, stride=2 if cell else 1)
        block, build = grid.block(cell), LAYERS[grid.variant]
        self.layers = nn.ModuleList()
        for layer in range(grid.depths[-1]):
            reach = min(grid.reach(layer), grid.links[-1])
            present = [[links > link for links in grid.links] for link in range(reach)]
            self.layers.append(
                Sometimes(build(width, block + 2, present), block + 1, [layer < depth for depth in grid.depths])
            )

    def forward(self, inputs_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> (N, width, ceil(H / stride), ceil(W / stride))."""
        outputs = [functional.relu(self.entry(inputs_NCHW, architecture))]
        for layer in self.layers:
            outputs.append(or_skipped(layer, outputs, outputs[-1], architecture))
        return outputs[-1]


class DenseLayer(nn.Module):
    """3x3 convolution of the concatenation of the layer before and the links, BatchNorm, ReLU.

    The convolution of a concatenation is computed as the sum of those of its parts.
    """

    def __init__(self, width: Width, block: int, present: Sequence[Sequence[bool]]) -> None:
        super().__init__()
        self.convolution = ElasticConv2d(width, width, kernel_size=3, norm=False)
        self.links = nn.ModuleList(
            Sometimes(ElasticConv2d(width, width, kernel_size=3, norm=False), block, choices) for choices in present
        )
        self.norm = ElasticBatchNorm(width)

    def forward(self, outputs: Sequence[Tensor], architecture: Choices) -> Tensor:
        """The cell's outputs so far, each (N, C, H, W) -> the next."""
        *earlier, last_NCHW = outputs
        sum_NCHW = self.convolution(last_NCHW, architecture) + linked(self.links, earlier, architecture)
        return functional.relu(self.norm(sum_NCHW, architecture))


class ResidualLayer(nn.Module):
    """ResNet's basic block, to whose output the links are added before the last ReLU."""

    def __init__(self, width: Width, block: int, present: Sequence[Sequence[bool]]) -> None:
        super().__init__()
        self.first = ElasticConv2d(width, width, kernel_size=3)
        self.second = ElasticConv2d(width, width, kernel_size=3)
        self.links = nn.ModuleList(Sometimes(nn.Identity(), block, choices) for choices in present)

    def forward(self, outputs: Sequence[Tensor], architecture: Choices) -> Tensor:
        """The cell's outputs so far, each (N, C, H, W) -> the next."""
        hidden_NCHW = functional.relu(self.first(outputs[-1], architecture))
        return functional.relu(self.second(hidden_NCHW, architecture) + linked(self.links, outputs, architecture))


class MobileLayer(nn.Module):
    """MobileNetV2's inverted residual, to whose output the links are added."""

    def __init__(self, width: Width, block: int, present: Sequence[Sequence[bool]]) -> None:
        super().__init__()
        hidden = Width(width.block, tuple(EXPANSION * size for size in width.sizes))
        self.expand = ElasticConv2d(width, hidden, kernel_size=1)
        self.filter = ElasticConv2d(hidden, hidden, kernel_size=3, depthwise=True)
        self.project = ElasticConv2d(hidden, width, kernel_size=1)
        self.links = nn.ModuleList(Sometimes(nn.Identity(), block, choices) for choices in present)

    def forward(self, outputs: Sequence[Tensor], architecture: Choices) -> Tensor:
        """The cell's outputs so far, each (N, C, H, W) -> the next."""
        hidden_NCHW = functional.relu6(self.expand(outputs[-1], architecture))
        hidden_NCHW = functional.relu6(self.filter(hidden_NCHW, architecture))
        return self.project(hidden_NCHW, architecture) + linked(self.links, outputs, architecture)  # type: ignore[no-any-return]


LAYERS = {"dense": DenseLayer, "residual": ResidualLayer, "mobile": MobileLayer}


def linked(links: nn.ModuleList, outputs: Sequence[Tensor], architecture: Choices) -> Tensor | float:
    """The sum over the links that there are; the first leads from the last output, the next from the one before."""
    weights = [link.weight(architecture) for link in links]  # type: ignore[operator]
    return sum(
        scaled(link(output, architecture), weight)
        for link, weight, output in zip(links, weights, reversed(outputs), strict=False)
        if not is_absent(weight)
    )
