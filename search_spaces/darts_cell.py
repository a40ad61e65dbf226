"""The DARTS cell space, an operation per edge: a normal and a reduction cell of 14 edges and 8 operations each.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (arXiv:1806.09055), sections 2.1 and 3. A
cell has two inputs (nodes 0 and 1: the cell before the last, and the last) and four intermediate nodes (2 to 5), each
the sum of its incoming edges; its output is their concatenation. This encoding is for relaxed training, DARTS-PT and
MANAS; `darts_cell_pairs` is the same network with two (input, operation) pairs per node, as DARTS derives it.

The restricted spaces S1 to S4 are those of Zela et al., "Understanding and Robustifying Differentiable Architecture
Search", ICLR 2020 (arXiv:1909.09656), with the lists of its published code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raynas.architecture import Architecture
from raynas.space import ChoiceBlock, Connection, SearchSpace
from raynas.supernet import BatchNorm, Choice, Choices, Supernet, TrainingOnly
from search_spaces import _genotype
from search_spaces._darts_operations import (
    NOISE,
    NONE,
    OPERATIONS,
    SKIP,
    ReluConvNorm,
    Zero,
    operation,
    reduction,
)
from search_spaces._genotype import NODES

EDGES = tuple((source, target) for target in range(2, 2 + NODES) for source in range(target))
CELLS = ("normal", "reduction")
KEPT = 2
"""Edges of each node that DARTS's derivation keeps."""

Variant: TypeAlias = Literal["darts", "s1", "s2", "s3", "s4"]
"""Which operations the edges offer: all of DARTS's, or those of a restricted space."""

SMALL = {"channels": 4, "cells": 3}
"""Settings for tests: the fewest cells that hold both kinds."""

MAX, AVG, SEP_3, DIL_3, DIL_5 = "max_pool_3x3", "avg_pool_3x3", "sep_conv_3x3", "dil_conv_3x3", "dil_conv_5x5"
S1_NORMAL = (
    *((SKIP, DIL_3), (SKIP, DIL_5)),
    *((SKIP, DIL_5), (SKIP, SEP_3), (SKIP, DIL_3)),
    *((MAX, SKIP), (SKIP, SEP_3), (SKIP, SEP_3), (SKIP, DIL_3)),
    *((SKIP, SEP_3), (MAX, SKIP), (SKIP, DIL_3), (DIL_3, DIL_5), (DIL_3, DIL_5)),
)
S1_REDUCTION = (
    *((MAX, AVG), (MAX, DIL_3)),
    *((MAX, AVG), (MAX, AVG), (SKIP, DIL_5)),
    *((MAX, AVG), (MAX, SEP_3), (SKIP, DIL_3), (SKIP, DIL_5)),
    *((MAX, AVG), (MAX, AVG), (SKIP, DIL_5), (SKIP, DIL_5), (SKIP, DIL_5)),
)


def edge_operations(variant: Variant) -> tuple[tuple[str, ...], ...]:
    """What each edge offers, those of the normal cell before those of the reduction cell; raises ValueError."""
    if variant == "s1":
        return (*S1_NORMAL, *S1_REDUCTION)
    alike = {"darts": OPERATIONS, "s2": (SKIP, SEP_3), "s3": (NONE, SKIP, SEP_3), "s4": (NOISE, SEP_3)}
    if variant not in alike:
        raise ValueError(f"expected one of darts, s1, s2, s3, s4 as variant, but got {variant!r}; correct it.")
    return (alike[variant],) * (len(CELLS) * len(EDGES))


def genotype(architecture: Architecture, offered: tuple[tuple[str, ...], ...]) -> tuple[_genotype.Cell, ...]:
    """What each node of the normal and of the reduction cell adds up; edges without operation are left out."""
    names = [operations[choice] for operations, choice in zip(offered, architecture, strict=True)]
    return tuple(
        tuple(
            tuple(
                (name, source)
                for (source, into), name in zip(EDGES, names[first : first + len(EDGES)], strict=True)
                if into == target and name != NONE
            )
            for target in range(2, 2 + NODES)
        )
        for first in (0, len(EDGES))
    )


def from_genotype(cells: tuple[_genotype.Cell, ...], offered: tuple[tuple[str, ...], ...]) -> Architecture:
    """The operation of every edge, `none` where the cells have none; raises ValueError for what edges cannot say."""
    chosen: dict[int, str] = {}
    for first, cell in zip((0, len(EDGES)), cells, strict=True):
        for target, node in enumerate(cell, start=2):
            for name, source in node:
                block = first + EDGES.index((source, target))
                if block in chosen:
                    raise ValueError(
                        f"node {target} takes node {source} twice, and an edge has one operation; "
                        "name darts_cell_pairs as the space, or another genotype"
                    )
                chosen[block] = name
    names = [chosen.get(block, NONE) for block in range(len(offered))]
    for block, (name, operations) in enumerate(zip(names, offered, strict=True)):
        if name not in operations:
            raise ValueError(f"expected one of {', '.join(operations)} on the edge {_edge(block)}, but got {name}")
    return tuple(operations.index(name) for name, operations in zip(names, offered, strict=True))


def strongest_edges(
    weights: Sequence[NDArray[np.float64]], offered: tuple[tuple[str, ...], ...]
) -> tuple[_genotype.Cell, ...]:
    """DARTS's derivation (section 2.4): each node keeps its two strongest edges, each with its strongest operation.

    weights: of the operations of each edge, the softmax taken including `none`; an edge is as strong as its strongest
    operation but `none`. Of equal ones the first.
    """
    strongest = [
        max(((float(w), name) for name, w in zip(names, of, strict=True) if name != NONE), key=lambda one: one[0])
        for names, of in zip(offered, weights, strict=True)
    ]

    def node(first: int, target: int) -> tuple[tuple[str, int], ...]:
        edges = [(*strongest[first + EDGES.index((source, target))], source) for source in range(target)]
        kept = sorted(edges, key=lambda edge: -edge[0])[:KEPT]
        return tuple((name, source) for _, name, source in kept)

    return tuple(tuple(node(first, target) for target in range(2, 2 + NODES)) for first in (0, len(EDGES)))


def derive(weights: Sequence[NDArray[np.float64]], offered: tuple[tuple[str, ...], ...]) -> Architecture:
    """The strongest edges, and `none` on all others."""
    return from_genotype(strongest_edges(weights, offered), offered)


def canonical(architecture: Architecture, offered: tuple[tuple[str, ...], ...]) -> Architecture:
    """With `none` on the edges out of nodes that nothing reaches: whatever is applied to zeros is zero.

    (A BN of an evaluation network could learn a shift there.) Cells that differ by the numbering of their nodes stay
    different, since the following cell tells the concatenated nodes apart.
    """
    result = list(architecture)
    for first in (0, len(EDGES)):
        alive = {0, 1}
        for block, (source, target) in enumerate(EDGES, start=first):
            if source not in alive:
                result[block] = offered[block].index(NONE)
            if offered[block][result[block]] != NONE:
                alive.add(target)
    return tuple(result)


def to_string(architecture: Architecture, offered: tuple[tuple[str, ...], ...]) -> str:
    """The usual genotype; where nodes do not have two edges each, with a list of edges for each node."""
    return _genotype.write(*genotype(architecture, offered))


def from_string(text: str, offered: tuple[tuple[str, ...], ...]) -> Architecture:
    """Read a genotype; raises ValueError for anything else."""
    return from_genotype(_genotype.read(text), offered)


def drawing(architecture: Architecture, offered: tuple[tuple[str, ...], ...]) -> tuple[Connection, ...]:
    """Both cells; an output is the concatenation of nodes 2 to 5."""
    return draw_cells(genotype(architecture, offered))


def draw_cells(cells: tuple[_genotype.Cell, ...]) -> tuple[Connection, ...]:
    """The arrows of both cells, none of them twice."""
    arrows = (
        Connection(f"{kind} {source}", f"{kind} {target}", name)
        for kind, cell in zip(CELLS, cells, strict=True)
        for target, node in enumerate(cell, start=2)
        for name, source in node
    )
    return tuple(dict.fromkeys(arrows))


def space(*, variant: Variant = "darts") -> SearchSpace:
    """The space of 28 edges with what the variant offers on each.

    Where no edge can be left out (s1, s2, s4), what is derived keeps all 14 edges of a cell.
    """
    offered = edge_operations(variant)
    has_none = all(NONE in operations for operations in offered)
    return SearchSpace(
        name="darts_cell" if variant == "darts" else f"darts_cell {variant}",
        blocks=tuple(ChoiceBlock(f"edge {_edge(block)}", operations) for block, operations in enumerate(offered)),
        canonical=partial(canonical, offered=offered) if has_none else None,
        to_string=partial(to_string, offered=offered),
        from_string=partial(from_string, offered=offered),
        drawing=partial(drawing, offered=offered),
        derive=partial(derive, offered=offered) if has_none else None,
    )


def _edge(block: int) -> str:
    kind, edge = divmod(block, len(EDGES))
    return f"{CELLS[kind]} {EDGES[edge][0]}-{EDGES[edge][1]}"


SPACE = space()


def supernet(
    *,
    in_channels: int,
    classes: int,
    resolution: int,
    variant: Variant = "darts",
    channels: int = 16,
    cells: int = 8,
    normalise_pools: bool = True,
    drop_path: float = 0.0,
    auxiliary: float = 0.0,
) -> Supernet:
    """DARTS's network with all operations on every edge; the defaults are those of its search.

    channels: of the first cells, doubled by the reduction cells, which are those at a third and two thirds of `cells`.
    normalise_pools: BN behind poolings. drop_path, auxiliary: of stand-alone training alone, the rate at its end and
    the weight of the auxiliary head's loss. DARTS evaluates with channels=36, cells=20, normalise_pools=False,
    drop_path=0.2, auxiliary=0.4. Raises ValueError for settings out of range.
    """
    offered = edge_operations(variant)

    def nodes(number: int, kind: int, channels: int) -> nn.Module:
        first = kind * len(EDGES)
        of_cell = offered[first : first + len(EDGES)]
        return EdgeNodes(first, of_cell, edge_options(of_cell, number, kind, channels, normalise_pools))

    return DartsNetwork(
        nodes, in_channels, classes, resolution, channels, cells, drop_path=drop_path, auxiliary=auxiliary
    )


def edge_options(
    offered: tuple[tuple[str, ...], ...], number: int, kind: int, channels: int, normalise_pools: bool
) -> list[list[nn.Module]]:
    """The operations of each edge of cell `number`, in the order offered; kind: 0 normal, 1 reduction."""
    return [
        [
            operation(
                name,
                channels,
                stride=2 if kind == 1 and source < 2 else 1,
                normalise_pools=normalise_pools,
                place=number * len(EDGES) + edge,
            )
            for name in names
        ]
        for edge, ((source, _), names) in enumerate(zip(EDGES, offered, strict=True))
    ]


Drop: TypeAlias = Callable[[Tensor], Tensor]


class DartsNetwork(Supernet):
    """Stem, a row of cells, pooling and classifier; the auxiliary head stands behind the second reduction cell.

    make_nodes: builds what gives the terms of a cell's nodes, from the cell's number, kind (0 normal, 1 reduction) and
        channels.
    """

    def __init__(
        self,
        make_nodes: Callable[[int, int, int], nn.Module],
        in_channels: int,
        classes: int,
        resolution: int,
        channels: int,
        cells: int,
        *,
        drop_path: float,
        auxiliary: float,
    ) -> None:
        if min(channels, resolution) < 1 or cells < 3:
            raise ValueError(
                f"expected channels and resolution of at least 1 and at least 3 cells, but got {channels=}, "
                f"{resolution=}, {cells=}; raise it."
            )
        if not (0 <= drop_path < 1 and auxiliary >= 0):
            raise ValueError(
                f"expected drop_path in 0..1 (below 1) and auxiliary >= 0, but got {drop_path=}, {auxiliary=}; "
                "correct it."
            )
        super().__init__()
        self.reductions = (cells // 3, 2 * cells // 3)
        self.drop_path = drop_path
        self.auxiliary_weight = auxiliary
        before_last = last = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(in_channels, last, kernel_size=3, padding=1, bias=False), BatchNorm(last))
        self.cells = nn.ModuleList()
        for number in range(cells):
            kind = int(number in self.reductions)
            channels *= 2 if kind else 1
            halve = number - 1 in self.reductions
            self.cells.append(Cell(make_nodes(number, kind, channels), before_last, last, channels, kind, halve))
            before_last, last = last, NODES * channels
            if number == self.reductions[1]:
                middle = last
        side = (resolution + 3) // 4
        self.auxiliary = AuxiliaryHead(middle, classes, side) if auxiliary else None
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes))

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        return self.head(self._features(images_NCHW, architecture, None)[-1])  # type: ignore[no-any-return]

    def training_logits(
        self, images_NCHW: Tensor, architecture: Choices, *, progress: float, rng: torch.Generator
    ) -> list[tuple[float, Tensor]]:
        """With drop-path at a rate that rises linearly, and the auxiliary head's logits behind the network's own."""
        rate = self.drop_path * progress
        features = self._features(images_NCHW, architecture, partial(drop_paths, rate=rate, rng=rng) if rate else None)
        logits = [(1.0, self.head(features[-1]))]
        if self.auxiliary is not None:
            logits.append((self.auxiliary_weight, self.auxiliary(features[self.reductions[1]])))
        return logits

    def _features(self, images_NCHW: Tensor, architecture: Choices, drop: Drop | None) -> list[Tensor]:
        """The output of each cell."""
        before_last_NCHW = last_NCHW = self.stem(images_NCHW)
        features = []
        for cell in self.cells:
            before_last_NCHW, last_NCHW = last_NCHW, cell(before_last_NCHW, last_NCHW, architecture, drop)
            features.append(last_NCHW)
        return features


class Cell(nn.Module):
    """Brings both inputs to the cell's channels and size, and concatenates the nodes made of them.

    halve: the input before the last is twice as large, as a reduction cell came in between.
    """

    def __init__(self, nodes: nn.Module, before_last: int, last: int, channels: int, kind: int, halve: bool) -> None:
        super().__init__()
        self.before_last = reduction(before_last, channels) if halve else ReluConvNorm(before_last, channels)
        self.last = ReluConvNorm(last, channels)
        self.nodes = nodes
        self.nothing = Zero(stride=2 if kind else 1)

    def forward(self, before_last_NCHW: Tensor, last_NCHW: Tensor, architecture: Choices, drop: Drop | None) -> Tensor:
        """Two inputs -> (N, 4C, H, W), at half the size in a reduction cell; a node that nothing reaches is zero."""
        nodes = [self.before_last(before_last_NCHW), self.last(last_NCHW)]
        for _ in range(NODES):
            terms = self.nodes(nodes, architecture)
            if drop is not None:  # from all but plain skips, as in DARTS's code
                terms = [term if any(term is node for node in nodes) else drop(term) for term in terms]
            nodes.append(reduce(add, terms) if terms else self.nothing(nodes[0]))
        return torch.cat(nodes[2:], 1)


class EdgeNodes(nn.Module):
    """What arrives at the nodes of a cell by a Choice on each edge.

    first: the block of the cell's first edge. offered: the operations of each edge.
    """

    def __init__(self, first: int, offered: tuple[tuple[str, ...], ...], options: list[list[nn.Module]]) -> None:
        super().__init__()
        self.first = first
        self.offered = offered
        self.edges = nn.ModuleList(Choice(block, of) for block, of in enumerate(options, start=first))

    def forward(self, nodes: list[Tensor], architecture: Choices) -> list[Tensor]:
        """The terms of the next node, from all nodes before it; an edge of `none` costs nothing."""
        start = EDGES.index((0, len(nodes)))
        terms = []
        for number, inputs_NCHW in enumerate(nodes, start=start):
            choice = architecture[self.first + number]
            if isinstance(choice, Tensor) or self.offered[number][choice] != NONE:
                terms.append(self.edges[number](inputs_NCHW, architecture))
        return terms


class AuxiliaryHead(TrainingOnly):
    """A classifier on the features of a cell in the middle of the network; its input of (N, C, H, W) is pooled to 2x2.

    At the 8x8 of CIFAR-10 the pooling is DARTS's, 5x5 with stride 3; at other sizes in proportion.
    """

    def __init__(self, channels: int, classes: int, side: int) -> None:
        if side < 2:
            raise ValueError("expected a resolution of at least 5 for an auxiliary head; set auxiliary = 0")
        super().__init__()
        kernel_size = 5 * side // 8
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(kernel_size, stride=side - kernel_size),
            nn.Conv2d(channels, 128, kernel_size=1, bias=False),
            BatchNorm(128),
            nn.ReLU(inplace=True),
            nn.Conv2d(128, 768, kernel_size=2, bias=False),
            BatchNorm(768),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(768, classes),
        )

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        return self.layers(features_NCHW)  # type: ignore[no-any-return]


def drop_paths(inputs_NCHW: Tensor, *, rate: float, rng: torch.Generator) -> Tensor:
    """Set a term to zero for a share `rate` of the images, drawn anew, and divide the others' by 1 - rate."""
    draws_N111 = torch.rand(len(inputs_NCHW), 1, 1, 1, generator=rng, device=inputs_NCHW.device)
    return inputs_NCHW * ((draws_N111 >= rate) / (1 - rate)).to(inputs_NCHW.dtype)
