"""PNAS cell: up to five blocks, each the sum of two operations on earlier outputs; one cell for a whole network.

Liu et al., "Progressive Neural Architecture Search", ECCV 2018 (arXiv:1712.00559). A choice block is one of a block's
two slots, a choice an (operation, input) pair such as `sep_conv_3x3 1`: input 0 is the output of the cell before the
last, 1 that of the last cell, 2 and up are the outputs of this cell's earlier blocks. Every pair has weights of its own
in every slot of every cell. Cells of stride 2 have the same choices as the others and stand for reduction cells.

The eight operations are the paper's as others quote them; that the dilated one is an ordinary 3x3 convolution of
dilation 2 is our choice. The rest is as in the code released with PNASNet-5: separable convolutions are applied twice;
a cell's output is the concatenation of all its blocks (not, as in NASNet, of those alone that no other block reads),
which each of the two cells behind it brings to its own width by a 1x1 convolution; the first cell of a later stage has
stride 2. So built, PNASNet-5 has its published 3.2 million parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from raynas.architecture import Architecture
from raynas.elastic import Sometimes, is_absent, scaled
from raynas.space import ChoiceBlock, Connection, SearchSpace
from raynas.supernet import BatchNorm, Choice, Choices, Supernet
from search_spaces._darts_operations import FactorizedReduction

OPERATIONS = (
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "conv_1x7_7x1",
    "identity",
    "avg_pool_3x3",
    "max_pool_3x3",
    "dil_conv_3x3",
)
INPUTS = 2
"""How many earlier cells a cell reads."""

SMALL: dict[str, Any] = {"repeats": 1, "filters": 4}

Block: TypeAlias = tuple[int, int]
"""The choices of a block's two slots."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the choice blocks describe a cell; growing: the first one is the number of the cell's blocks."""

    blocks: int
    growing: bool

    def slot(self, block: int, side: int) -> int:
        """The choice block of a block's left (0) or right (1) slot."""
        return self.growing + 2 * block + side

    def split(self, architecture: Architecture) -> list[Block]:
        """The cell's blocks; those that a growing cell does not have yet are left out."""
        count = architecture[0] + 1 if self.growing else self.blocks
        return [(architecture[self.slot(block, 0)], architecture[self.slot(block, 1)]) for block in range(count)]

    def join(self, cell: Sequence[Block]) -> Architecture:
        """The key of a cell; absent blocks take their first choices."""
        size = (len(cell) - 1,) if self.growing else ()
        return (*size, *(choice for block in cell for choice in block), *(0,) * 2 * (self.blocks - len(cell)))

    def part(self, block: int, layer: nn.Module) -> Sometimes:
        """What a network has for a block: always, or in a growing cell from a certain number of blocks on."""
        if not self.growing:
            return Sometimes(layer)
        return Sometimes(layer, 0, [block < count for count in range(1, self.blocks + 1)])


def space(*, blocks: int = 5, growing: bool = False) -> SearchSpace:
    """Cells of `blocks` blocks; growing: a first choice says how many of them a cell has, from one up.

    Five blocks have 5.6e14 keys; one has 256, of 136 networks. Raises ValueError for no blocks.
    """
    if blocks < 1:
        raise ValueError(f"expected at least 1 block, but got {blocks=}; raise it.")
    layout = Layout(blocks, growing)
    sizes = (ChoiceBlock("blocks", tuple(str(count) for count in range(1, blocks + 1))),) if growing else ()
    slots = (
        ChoiceBlock(f"block {block + 1} {side}", _pairs(block)) for block in range(blocks) for side in ("left", "right")
    )

    def to_string(architecture: Architecture) -> str:
        """`sep_conv_3x3~0+identity~1|max_pool_3x3~1+sep_conv_5x5~2`, a term a block.

        Behind two bars are the blocks that a growing cell does not have yet, if anything is chosen for them.
        """
        pairs = _pairs(blocks)
        terms = [
            "+".join(pairs[architecture[layout.slot(block, side)]].replace(" ", "~") for side in (0, 1))
            for block in range(blocks)
        ]
        count = len(layout.split(architecture))
        absent = "||" + "|".join(terms[count:]) if any(architecture[layout.slot(count, 0) :]) else ""
        return "|".join(terms[:count]) + absent

    def from_string(text: str) -> Architecture:
        """Read `to_string`; raises ValueError for anything else."""
        present, _, absent = text.partition("||")
        cell, rest = _read(present.split("|"), 0), _read(absent.split("|"), present.count("|") + 1) if absent else []
        if len(cell) > blocks or (len(cell) < blocks and not growing) or (rest and len(cell) + len(rest) != blocks):
            raise ValueError(f"expected {'at most ' * growing}{blocks} blocks, but got {len(cell)} in {text!r}")
        key = layout.join(cell)
        return (*key[: layout.slot(len(cell), 0)], *(choice for block in rest for choice in block)) if rest else key

    return SearchSpace(
        name="pnas_cell",
        blocks=(*sizes, *slots),
        canonical=lambda architecture: layout.join(canonical(layout.split(architecture))),
        to_string=to_string,
        from_string=from_string,
        drawing=lambda architecture: _drawn(layout.split(architecture)),
    )


def canonical(cell: Sequence[Block]) -> tuple[Block, ...]:
    """The same cell with the smaller choice of each block on the left, and its blocks in the least possible order.

    A block may stand wherever its inputs stand before it. At each place stands the smallest block that may; where
    several are equal, each is tried, as later blocks may tell them apart.
    """
    return min(_orders(cell, {}, ()))


def _orders(cell: Sequence[Block], places: dict[int, int], ordered: tuple[Block, ...]) -> Iterator[tuple[Block, ...]]:
    """All ways to go on with an order; places: where the blocks that it has already stand."""
    if len(ordered) == len(cell):
        yield ordered
        return
    ready = {}
    for index, block in enumerate(cell):
        if index not in places and all(_block(choice) < 0 or _block(choice) in places for choice in block):
            left, right = sorted(
                choice if _block(choice) < 0 else _choice(choice % len(OPERATIONS), places[_block(choice)])
                for choice in block
            )
            ready[index] = (left, right)
    least = min(ready.values())
    for index, block in ready.items():
        if block == least:
            yield from _orders(cell, {**places, index: len(ordered)}, (*ordered, block))


def _block(choice: int) -> int:
    """The block that a choice reads; negative for an earlier cell."""
    return choice // len(OPERATIONS) - INPUTS


def _choice(operation: int, block: int) -> int:
    return (block + INPUTS) * len(OPERATIONS) + operation


def _pairs(block: int) -> tuple[str, ...]:
    """The choices of a block's slot, by input and then by operation."""
    return tuple(f"{operation} {source}" for source in range(block + INPUTS) for operation in OPERATIONS)


def _read(terms: Sequence[str], first: int) -> list[Block]:
    """Read blocks from the first one's number on; raises ValueError for what is none."""
    cell = []
    for block, term in enumerate(terms, first):
        pairs = [pair.replace(" ", "~") for pair in _pairs(block)]
        left, _, right = term.partition("+")
        if left not in pairs or right not in pairs:
            raise ValueError(
                f"expected operation~input+operation~input as block {block + 1}, with inputs below {block + INPUTS} "
                f"and operations of {', '.join(OPERATIONS)}, but got {term!r}"
            )
        cell.append((pairs.index(left), pairs.index(right)))
    return cell


def _drawn(cell: Sequence[Block]) -> tuple[Connection, ...]:
    """Earlier cells and blocks as nodes; a block that does the same thing twice has one arrow for both."""

    def node(block: int) -> str:
        return f"block {block + 1}" if block >= 0 else f"cell {block}"

    arrows = (
        Connection(node(_block(choice)), node(block), OPERATIONS[choice % len(OPERATIONS)])
        for block, choices in enumerate(cell)
        for choice in choices
    )
    return tuple(dict.fromkeys(arrows))


SPACE = space()


def supernet(
    *,
    in_channels: int,
    classes: int,
    resolution: int,
    blocks: int = 5,
    growing: bool = False,
    repeats: int = 2,
    filters: int = 24,
) -> Supernet:
    """The network of the paper's search: three stages of `repeats` cells.

    blocks, growing: as in `space`. repeats (N), filters (F of the first stage, doubled by each later one): the defaults
    are those of the networks that the paper's search trains [recalled]; PNASNet-5 has N = 3 and F = 48.
    Raises ValueError for settings that are not positive.
    """
    if min(blocks, repeats, filters, resolution) < 1:
        raise ValueError(
            f"expected blocks, repeats, filters and resolution of at least 1, "
            f"but got {blocks=}, {repeats=}, {filters=}, {resolution=}; raise it."
        )
    return PnasNetwork(in_channels, classes, Layout(blocks, growing), repeats, filters)


class PnasNetwork(Supernet):
    """Stem, three stages of cells, classifier.

    What reads a cell's output has a layer for each of its blocks and adds up what they give: a 1x1 convolution, or a
    linear layer, of a concatenation is the sum of those of its parts, and so no block's weights depend on its place.
    """

    def __init__(self, in_channels: int, classes: int, layout: Layout, repeats: int, filters: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, filters, kernel_size=3, padding=1, bias=False), BatchNorm(filters)
        )
        self.cells = nn.ModuleList()
        older = newer = Layout(1, growing=False), filters  # the stem's output is read like that of a cell of one block
        before = 1
        for stride in (*[1] * repeats, 2, *[1] * (repeats - 1), 2, *[1] * (repeats - 1)):
            filters *= stride
            self.cells.append(Cell(layout, Entry(*older, filters, before), Entry(*newer, filters, 1), filters, stride))
            older, newer, before = newer, (layout, filters), stride
        self.head = Head(layout, filters, classes)

    @property
    def classifiers(self) -> list[nn.Module]:
        """One for each block of the last cell."""
        return [module for module in self.head.modules() if isinstance(module, nn.Linear)]

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        older = newer = [self.stem(images_NCHW)]
        for cell in self.cells:
            older, newer = newer, cell(older, newer, architecture)
        return self.head(newer, architecture)  # type: ignore[no-any-return]


class Cell(nn.Module):
    """Brings the outputs of the last two cells to its width and resolution, and runs its blocks."""

    def __init__(self, layout: Layout, older: Entry, newer: Entry, filters: int, stride: int) -> None:
        super().__init__()
        self.older, self.newer = older, newer
        self.left, self.right = (
            nn.ModuleList(
                layout.part(block, Choice(layout.slot(block, side), _options(filters, block, stride)))
                for block in range(layout.blocks)
            )
            for side in (0, 1)
        )

    def forward(self, older: Sequence[Tensor], newer: Sequence[Tensor], architecture: Choices) -> list[Tensor]:
        """The blocks of the last two cells, the older perhaps twice as large -> its own, at its stride."""
        states = [self.older(older, architecture), self.newer(newer, architecture)]
        outputs = []
        for left, right in zip(self.left, self.right, strict=True):
            weight = left.weight(architecture)  # type: ignore[operator]
            if is_absent(weight):
                break  # what a growing cell has are its first blocks
            states.append(left(states, architecture) + right(states, architecture))
            outputs.append(scaled(states[-1], weight))
        return outputs


class Entry(nn.Module):
    """ReLU, 1x1 convolution and BatchNorm of a cell's output; with stride 2, a factorised reduction."""

    def __init__(self, layout: Layout, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            layout.part(
                block,
                nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
                if stride == 1
                else FactorizedReduction(in_channels, out_channels),
            )
            for block in range(layout.blocks)
        )
        self.norm = BatchNorm(out_channels)

    def forward(self, blocks: Sequence[Tensor], architecture: Choices) -> Tensor:
        """Blocks (N, C, H, W) -> (N, F, ceil(H / stride), ceil(W / stride))."""
        parts = zip(self.layers, blocks, strict=False)  # a growing cell may have fewer
        return self.norm(reduce(add, [layer(functional.relu(block), architecture) for layer, block in parts]))  # type: ignore[no-any-return]


class Head(nn.Module):
    """ReLU, global average and linear layer of a cell's output."""

    def __init__(self, layout: Layout, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            layout.part(block, nn.Linear(channels, classes, bias=False)) for block in range(layout.blocks)
        )
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, blocks: Sequence[Tensor], architecture: Choices) -> Tensor:
        """Blocks (N, C, H, W) -> logits (N, K)."""
        parts = zip(self.layers, blocks, strict=False)
        return reduce(
            add, [layer(functional.relu(block).mean((2, 3)), architecture) for layer, block in parts], self.bias
        )


class Pair(nn.Module):
    """An operation on one of the earlier outputs."""

    def __init__(self, source: int, operation: nn.Module) -> None:
        super().__init__()
        self.source, self.operation = source, operation

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """The operation on the output that it reads."""
        return self.operation(states[self.source])  # type: ignore[no-any-return]


def _options(filters: int, block: int, stride: int) -> list[nn.Module]:
    """The options of a block's slot, in the order of `_pairs`; only what earlier cells give is still to be strided."""
    return [
        Pair(source, operation)
        for source in range(block + INPUTS)
        for operation in _operations(filters, stride if source < INPUTS else 1)
    ]


def _operations(filters: int, stride: int) -> list[nn.Module]:
    """The operations in the order of OPERATIONS: (N, F, H, W) -> (N, F, ceil(H / stride), ceil(W / stride))."""
    return [
        *(_separable(filters, kernel_size, stride) for kernel_size in (3, 5, 7)),
        nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(filters, filters, (1, 7), stride=(1, stride), padding=(0, 3), bias=False),
            BatchNorm(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, (7, 1), stride=(stride, 1), padding=(3, 0), bias=False),
            BatchNorm(filters),
        ),
        nn.Identity()
        if stride == 1
        else nn.Sequential(nn.ReLU(), nn.Conv2d(filters, filters, 1, stride, bias=False), BatchNorm(filters)),
        nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
        nn.MaxPool2d(3, stride, padding=1),
        nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, stride, padding=2, dilation=2, bias=False),
            BatchNorm(filters),
        ),
    ]


def _separable(filters: int, kernel_size: int, stride: int) -> nn.Sequential:
    """ReLU, depthwise and 1x1 convolution, BatchNorm; twice, the first time with the stride."""
    return nn.Sequential(
        *(
            layer
            for step in (stride, 1)
            for layer in (
                nn.ReLU(),  # not in place: an output goes to several operations
                nn.Conv2d(filters, filters, kernel_size, step, kernel_size // 2, groups=filters, bias=False),
                nn.Conv2d(filters, filters, kernel_size=1, bias=False),
                BatchNorm(filters),
            )
        )
    )
