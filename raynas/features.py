"""Architectures as rows of numbers, for whoever learns from some of them what others are worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raynas.architecture import Architecture
from raynas.space import Connection, SearchSpace, is_none, is_skip, topological


def features(space: SearchSpace, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
    """What each architecture has chosen, and what its graph is like: shape (A, F).

    First the choices of its canonical form, one-hot for each block. Then of its connections (those of its drawing, or
    a chain of its choices in a space without one), for each operation: how many there are, on how many paths it lies,
    and how often at most on one of them; last, how many paths have 0, 1, 2 ... operations that are not skips. Paths
    lead from nodes that nothing enters to nodes that nothing leaves: where a cell's output, which joins several nodes,
    is not drawn, from its inputs to each last one of them. The operations are those that occur in these architectures.
    """
    canonical = [space.canonicalise(one) for one in architectures]
    chosen = [np.eye(len(block.choices))[[one[b] for one in canonical]] for b, block in enumerate(space.blocks)]
    drawn = [[arrow for arrow in space.connections(one) if not is_none(arrow.operation)] for one in canonical]
    place = {
        name: index for index, name in enumerate(sorted({arrow.operation for arrows in drawn for arrow in arrows}))
    }
    graphs = [_graph(arrows, place) for arrows in drawn]
    longest = max((len(paths_L) for *_, paths_L in graphs), default=0)
    rows = [np.concatenate([*row, np.zeros(longest - len(row[-1]))]) for row in graphs]
    return np.hstack([*chosen, np.array(rows).reshape(len(rows), -1)])


def _graph(arrows: Sequence[Connection], place: dict[str, int]) -> tuple[NDArray[np.float64], ...]:
    """Of each operation its number, its paths and its most on one path; last, the numbers of paths by their length."""
    order = topological(arrows)
    leaving: dict[str, list[Connection]] = {node: [] for node in order}
    for arrow in arrows:
        leaving[arrow.source].append(arrow)
    shape = len(place)
    begins = leaving.keys() - {arrow.target for arrow in arrows}
    paths_L = {node: np.eye(1, len(order))[0] * (node in begins) for node in order}  # to the node, by length
    without = {node: np.full(shape, float(node in begins)) for node in order}  # to the node, without an operation
    most = {node: np.zeros(shape) for node in order}  # of an operation on one path to the node
    for node in order:
        for arrow in leaving[node]:
            is_it = np.arange(shape) == place[arrow.operation]
            longer = not is_skip(arrow.operation)
            paths_L[arrow.target][longer:] += paths_L[node][: len(order) - longer]
            without[arrow.target] += np.where(is_it, 0, without[node])
            most[arrow.target] = np.maximum(most[arrow.target], most[node] + is_it)
    ends = [node for node in order if not leaving[node]]
    by_length_L = sum((paths_L[node] for node in ends), np.zeros(len(order)))
    on_paths = by_length_L.sum() - sum((without[node] for node in ends), np.zeros(shape))
    number = np.bincount([place[arrow.operation] for arrow in arrows], minlength=shape).astype(np.float64)
    return number, on_paths, np.max([np.zeros(shape), *most.values()], axis=0), np.trim_zeros(by_length_L, "b")
