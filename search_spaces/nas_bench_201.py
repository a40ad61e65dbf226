"""NAS-Bench-201: one cell of four nodes and six edges, repeated through three stages (Dong and Yang, ICLR 2020).

The choice blocks are the cell's edges in the order of the benchmark's own cell string,
`|op01~0|+|op02~0|op12~1|+|op03~0|op13~1|op23~2|`, where opXY runs from node X to node Y; all cells share them.
"""

from __future__ import annotations

from functools import cache, reduce
from itertools import product
from operator import add

import torch
from torch import Tensor, nn

from raynas.architecture import Architecture
from raynas.space import ChoiceBlock, Connection, SearchSpace
from raynas.supernet import BatchNorm, Choice, Choices, Supernet

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV_1X1, CONV_3X3, POOL = range(5)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def to_string(architecture: Architecture) -> str:
    """The benchmark's cell string."""
    terms = [f"{OPERATIONS[choice]}~{source}" for (source, _), choice in zip(EDGES, architecture, strict=True)]
    return f"|{terms[0]}|+|{terms[1]}|{terms[2]}|+|{terms[3]}|{terms[4]}|{terms[5]}|"


def from_string(text: str) -> Architecture:
    """Read the benchmark's cell string; raises ValueError for anything else."""
    terms = [term for node in text.split("+") for term in node.strip("|").split("|")]
    codes = {operation: code for code, operation in enumerate(OPERATIONS)}
    architecture = tuple(codes.get(term.partition("~")[0], NONE) for term in terms)
    if len(terms) != len(EDGES) or to_string(architecture) != text:
        raise ValueError(
            "expected a cell |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with op one of "
            f"{', '.join(OPERATIONS)}, but got {text!r}"
        )
    return architecture


def canonical(architecture: Architecture) -> Architecture:
    """The cheapest key of the same network: 15,625 keys, 6,466 networks by the benchmark's own rule.

    Cheapest, so that what is searched under a constraint still meets it in its canonical form: with the fewest 3x3
    convolutions, then 1x1 convolutions, then poolings; the smallest of those that are left.
    """
    return _representatives()[_expression(architecture)]


def drawing(architecture: Architecture) -> tuple[Connection, ...]:
    """The cell's edges between its nodes 0 (input) to 3 (output), without those that are `none`."""
    return tuple(
        Connection(str(source), str(target), OPERATIONS[choice])
        for (source, target), choice in zip(EDGES, architecture, strict=True)
        if choice != NONE
    )


def synonyms(architecture: Architecture) -> list[Architecture]:
    """Those keys of its network that run through different convolutions; its canonical one first."""
    return _synonyms()[canonical(architecture)]


@cache
def _synonyms() -> dict[Architecture, list[Architecture]]:
    """Canonical key -> the keys; made at the first use."""
    found: dict[Architecture, dict[frozenset[tuple[int, int]], Architecture]] = {}
    keys = product(range(len(OPERATIONS)), repeat=len(EDGES))
    for key in sorted(keys, key=lambda key: canonical(key) != key):  # canonical ones first
        found.setdefault(canonical(key), {}).setdefault(_convolutions(key), key)
    return {first: list(distinct.values()) for first, distinct in found.items()}


def _convolutions(architecture: Architecture) -> frozenset[tuple[int, int]]:
    """Edge and operation of those that lie between input and output."""
    reached, needed = {0}, {3}
    edges = [(*edge, choice) for edge, choice in zip(EDGES, architecture, strict=True) if choice != NONE]
    for source, target, _ in edges:
        if source in reached:
            reached.add(target)
    for source, target, _ in reversed(edges):
        if target in needed:
            needed.add(source)
    return frozenset(
        (index, choice)
        for index, ((source, target), choice) in enumerate(zip(EDGES, architecture, strict=True))
        if choice in (CONV_1X1, CONV_3X3) and source in reached and target in needed
    )


@cache
def _representatives() -> dict[str, Architecture]:
    """Expression -> its cheapest key; made at the first use in a tenth of a second."""
    keys = product(range(len(OPERATIONS)), repeat=len(EDGES))
    cheapest: dict[str, Architecture] = {}
    for key in sorted(keys, key=lambda key: (key.count(CONV_3X3), key.count(CONV_1X1), key.count(POOL), key)):
        cheapest.setdefault(_expression(key), key)
    return cheapest


def _expression(architecture: Architecture) -> str:
    """What the cell computes, written out; cells with the same expression are the same network.

    This is the benchmark's own notion of isomorphism, which its 6,466 rests on: a `none`,
    and whatever is applied to it, is zero (#); a skip is what it skips from; a sum does not depend on its order. Equal
    cells compute the same function if equal operations on the same input share their weights. Not all cells that do
    are found: zeros stay in a sum, and terms that a skip brings in are not sorted among the others (with both, 4,930
    networks would be left). So the classes hang on how terms sort: on the very characters written here.
    """
    nodes = ["0"]
    for target in (1, 2, 3):
        terms = []
        for (source, into), choice in zip(EDGES, architecture, strict=True):
            if into != target:
                continue
            if choice == NONE or nodes[source] == "#":
                terms.append("#")
            elif choice == SKIP:
                terms.append(nodes[source])
            else:
                terms.append(f"({nodes[source]})@{OPERATIONS[choice]}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


SPACE = SearchSpace(
    name="nas_bench_201",
    blocks=tuple(ChoiceBlock(f"op{source}{target}", OPERATIONS) for source, target in EDGES),
    canonical=canonical,
    to_string=to_string,
    from_string=from_string,
    drawing=drawing,
    synonyms=synonyms,
)


def supernet(
    *, in_channels: int, classes: int, resolution: int, channels: int = 16, cells_per_stage: int = 5
) -> Supernet:
    """The benchmark's network with all operations on every edge; its defaults are the benchmark's own width and depth.

    channels: of the first stage; doubled by the second and the third, which work at half and a quarter of `resolution`.
    Raises ValueError for settings that are not positive.
    """
    if min(channels, cells_per_stage, resolution) < 1:
        raise ValueError(
            f"expected channels, cells_per_stage and resolution of at least 1, "
            f"but got {channels=}, {cells_per_stage=}, {resolution=}; raise it."
        )
    return NasBench201(in_channels, classes, channels, cells_per_stage)


class NasBench201(Supernet):
    """Stem, three stages of equal cells with a residual block of stride 2 between them, classifier."""

    def __init__(self, in_channels: int, classes: int, channels: int, cells_per_stage: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False), BatchNorm(channels)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(Cell(channels * scale) for _ in range(cells_per_stage)) for scale in (1, 2, 4)
        )
        self.reductions = nn.ModuleList([Reduction(channels, channels * 2), Reduction(channels * 2, channels * 4)])
        self.head = nn.Sequential(
            BatchNorm(channels * 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels * 4, classes)
        )

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        features_NCHW = self.stem(images_NCHW)
        for stage, reduction in zip(self.stages, (*self.reductions, nn.Identity()), strict=True):
            for cell in stage:  # type: ignore[attr-defined]
                features_NCHW = cell(features_NCHW, architecture)
            features_NCHW = reduction(features_NCHW)
        return self.head(features_NCHW)  # type: ignore[no-any-return]


class Cell(nn.Module):
    """The cell: a node is the sum of its incoming edges, the output is the last node.

    A `none` edge costs nothing. An edge into a dead end is computed all the same, as in the benchmark, whose FLOPs
    count it: a cost is then a sum over the edges.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(Choice(block, _operations(channels)) for block in range(len(EDGES)))

    def forward(self, inputs_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> the same shape; zeros if no edge leads to the last node."""
        nodes = [inputs_NCHW]
        for target in (1, 2, 3):
            arriving = [
                edge(nodes[source], architecture)
                for (source, into), edge, choice in zip(EDGES, self.edges, architecture, strict=True)
                if into == target and (isinstance(choice, Tensor) or choice != NONE)
            ]
            nodes.append(reduce(add, arriving) if arriving else torch.zeros_like(inputs_NCHW))
        return nodes[-1]


class Zero(nn.Module):
    """The operation `none`, where a relaxed mixture gives it a weight."""

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """Zeros of the same shape."""
        return torch.zeros_like(inputs_NCHW)


class Reduction(nn.Module):
    """The benchmark's residual block of stride 2; its shortcut is a pooling and a bare 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_relu_conv_norm(in_channels, out_channels, kernel_size=3, stride=2),
            *_relu_conv_norm(out_channels, out_channels, kernel_size=3),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, stride=2, ceil_mode=True),  # ceil: an odd side gives what the strided convolution gives
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        )

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, ceil(H / 2), ceil(W / 2))."""
        return self.shortcut(inputs_NCHW) + self.residual(inputs_NCHW)  # type: ignore[no-any-return]


def _operations(channels: int) -> list[nn.Module]:
    """The options of an edge, in the order of OPERATIONS."""
    return [
        Zero(),
        nn.Identity(),
        _relu_conv_norm(channels, channels, kernel_size=1),
        _relu_conv_norm(channels, channels, kernel_size=3),
        nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    ]


def _relu_conv_norm(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),  # not in place: a node's value goes to several edges
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        BatchNorm(out_channels),
    )
