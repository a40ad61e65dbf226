"""The DARTS cell space, two (input, operation) pairs per node: what a DARTS search derives, for PARSEC and evolution.

The network is that of `darts_cell`: same weights, same names. A block is one slot of a node, and its choices are the
pairs of an earlier node and one of the operations but `none`: PARSEC's prior is one distribution for each (Casale et
al., 2019, section 4). Both slots of a node may choose the same input, then both operations run on it; if they choose
the same operation too, it counts twice (in a stand-alone network as two modules with weights of their own). DARTS
itself derives two different inputs; whether PARSEC allows equal ones we have not found in its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from raynas.architecture import Architecture
from raynas.space import ChoiceBlock, Connection, SearchSpace
from raynas.supernet import Choices, Shared, SharedChoice, Supernet
from search_spaces import _genotype
from search_spaces._darts_operations import NONE
from search_spaces._genotype import NODES
from search_spaces.darts_cell import (
    CELLS,
    EDGES,
    DartsNetwork,
    Variant,
    draw_cells,
    edge_operations,
    edge_options,
    from_genotype,
    strongest_edges,
)

SMALL = {"channels": 4, "cells": 3}
"""Settings for tests: the fewest cells that hold both kinds."""

Pairs: TypeAlias = tuple[tuple[str, int], ...]
SLOTS = 2
"""Pairs that each node adds up."""


def slot_pairs(variant: Variant) -> tuple[Pairs, ...]:
    """What each block offers: the (operation, node) pairs of both slots of nodes 2 to 5, for both kinds of cell."""
    offered = edge_operations(variant)
    slots = []
    for first in (0, len(EDGES)):
        for target in range(2, 2 + NODES):
            edges = [(source, offered[first + EDGES.index((source, target))]) for source in range(target)]
            pairs = tuple((name, source) for source, names in edges for name in names if name != NONE)
            slots += [pairs] * SLOTS
    return tuple(slots)


def genotype(architecture: Architecture, slots: tuple[Pairs, ...]) -> tuple[_genotype.Cell, ...]:
    """The pairs of each node of the normal and of the reduction cell."""
    pairs = [of[choice] for of, choice in zip(slots, architecture, strict=True)]
    nodes = [tuple(pairs[first : first + SLOTS]) for first in range(0, len(pairs), SLOTS)]
    return tuple(nodes[:NODES]), tuple(nodes[NODES:])


def canonical(architecture: Architecture) -> Architecture:
    """The pairs of each node in order: a sum does not depend on it."""
    return tuple(
        choice for first in range(0, len(architecture), SLOTS) for choice in sorted(architecture[first : first + SLOTS])
    )


def to_string(architecture: Architecture, slots: tuple[Pairs, ...]) -> str:
    """The usual genotype."""
    return _genotype.write(*genotype(architecture, slots))


def from_string(text: str, slots: tuple[Pairs, ...]) -> Architecture:
    """Read a genotype; raises ValueError for anything else."""
    nodes = [node for cell in _genotype.read(text) for node in cell]
    if any(len(node) != SLOTS for node in nodes):
        raise ValueError(f"expected {SLOTS} pairs for each node, but got {text!r}; name darts_cell as the space")
    pairs = [pair for node in nodes for pair in node]
    for pair, offered in zip(pairs, slots, strict=True):
        if pair not in offered:
            names = ", ".join(dict.fromkeys(name for name, source in offered if source == pair[1]))
            raise ValueError(f"expected one of {names} from node {pair[1]}, but got {pair[0]}")
    return tuple(offered.index(pair) for pair, offered in zip(pairs, slots, strict=True))


def to_edges(architecture: Architecture) -> Architecture:
    """The same network in `darts_cell`, `none` on all other edges; raises ValueError if a node takes an input twice."""
    return from_genotype(genotype(architecture, slot_pairs("darts")), edge_operations("darts"))


def derive(weights: Sequence[NDArray[np.float64]], *, variant: Variant = "darts") -> Architecture:
    """What DARTS derives from weights of the operations of each edge of `darts_cell`."""
    pairs = [pair for cell in strongest_edges(weights, edge_operations(variant)) for node in cell for pair in node]
    return canonical(tuple(of.index(pair) for of, pair in zip(slot_pairs(variant), pairs, strict=True)))


def drawing(architecture: Architecture, slots: tuple[Pairs, ...]) -> tuple[Connection, ...]:
    """Both cells; an output is the concatenation of nodes 2 to 5."""
    return draw_cells(genotype(architecture, slots))


def space(*, variant: Variant = "darts") -> SearchSpace:
    """The space of 16 slots with the pairs that the variant offers."""
    slots = slot_pairs(variant)
    names = [f"{kind} node {target} {slot}" for kind in CELLS for target in range(2, 2 + NODES) for slot in ("a", "b")]
    return SearchSpace(
        name="darts_cell_pairs" if variant == "darts" else f"darts_cell_pairs {variant}",
        blocks=tuple(
            ChoiceBlock(block, tuple(f"{name} {source}" for name, source in pairs))
            for block, pairs in zip(names, slots, strict=True)
        ),
        canonical=canonical,
        to_string=partial(to_string, slots=slots),
        from_string=partial(from_string, slots=slots),
        drawing=partial(drawing, slots=slots),
    )


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
    """The network of `darts_cell`, which explains the settings, with a choice of two pairs for each node."""
    offered = edge_operations(variant)
    slots = slot_pairs(variant)

    def nodes(number: int, kind: int, channels: int) -> nn.Module:
        of_cell = offered[kind * len(EDGES) : (kind + 1) * len(EDGES)]
        options = edge_options(of_cell, number, kind, channels, normalise_pools)
        by_pair = [dict(zip(names, modules, strict=True)) for names, modules in zip(of_cell, options, strict=True)]
        return PairNodes(kind * SLOTS * NODES, slots, options, by_pair)

    return DartsNetwork(
        nodes, in_channels, classes, resolution, channels, cells, drop_path=drop_path, auxiliary=auxiliary
    )


class PairNodes(nn.Module):
    """What arrives at the nodes of a cell by two choices of a pair for each; both run through the same operations.

    first: the block of the cell's first slot. operations: by their name, for each edge.
    """

    def __init__(
        self,
        first: int,
        slots: tuple[Pairs, ...],
        options: list[list[nn.Module]],
        operations: list[dict[str, nn.Module]],
    ) -> None:
        super().__init__()
        self.edges = nn.ModuleList(Shared(of) for of in options)
        self.slots = nn.ModuleList(
            SharedChoice(
                first + number,
                [
                    FromNode(source, operations[EDGES.index((source, 2 + number // SLOTS))][name])
                    for name, source in slots[first + number]
                ],
            )
            for number in range(SLOTS * NODES)
        )

    def forward(self, nodes: list[Tensor], architecture: Choices) -> list[Tensor]:
        """The two terms of the next node, from all nodes before it."""
        start = SLOTS * (len(nodes) - 2)
        return [self.slots[start + number](nodes, architecture) for number in range(SLOTS)]


class FromNode(nn.Module):
    """An operation on one of the nodes."""

    def __init__(self, source: int, operation: nn.Module) -> None:
        super().__init__()
        self.source = source
        self.operation = operation

    def forward(self, nodes: list[Tensor]) -> Tensor:
        """(N, C, H, W) for each node -> (N, C, H, W)."""
        return self.operation(nodes[self.source])  # type: ignore[no-any-return]
