"""Partitions: parts of a search space, disjoint and together all of it, so that each can have a supernet of its own.

Zhao et al., "Few-Shot Neural Architecture Search", ICML 2021 (a supernet for each choice of a block); Zhang et al.,
"Deeper Insights into Weight Sharing in Neural Architecture Search", 2020 (groups at random and by lexicographic
similarity); Hu et al., "Generalizing Few-Shot NAS with Gradient Matching", ICLR 2022 (groups by gradients).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError, closest
from raynas.space import ChoiceBlock, Connection, SearchSpace

if TYPE_CHECKING:
    from raynas.config import PartitionSettings

Groups: TypeAlias = tuple[tuple[int, ...], ...]
"""A block's choices in groups: disjoint, together all of them, each ascending, in the order of their first."""


class Likeness(Protocol):
    """How alike the choices of a block are."""

    def __call__(self, *, block: int) -> NDArray[np.float64]:
        """Shape (choices, choices); 1 for equal."""


ELSEWHERE: Architecture = ()
"""The canonical form in a partition of all networks whose canonical form another partition holds, and scores."""


@dataclass(frozen=True, slots=True)
class Partition:
    """The architectures that take, at each block, one of these choices (ascending indices)."""

    choices: tuple[tuple[int, ...], ...]

    def __contains__(self, architecture: Architecture) -> bool:
        return all(choice in allowed for choice, allowed in zip(architecture, self.choices, strict=True))

    @property
    def size(self) -> int:
        """How many keys it has."""
        return math.prod(map(len, self.choices))

    def inner(self, architecture: Architecture) -> Architecture:
        """An architecture of the partition in the choice indices of its own space."""
        return tuple(allowed.index(choice) for choice, allowed in zip(architecture, self.choices, strict=True))

    def outer(self, architecture: Architecture) -> Architecture:
        """An architecture of the partition's own space in the choice indices of the whole one."""
        return tuple(allowed[choice] for choice, allowed in zip(architecture, self.choices, strict=True))

    def restrict(self, space: SearchSpace) -> SearchSpace:
        """The partition as a space of its own, for whoever draws from it."""
        blocks = tuple(
            ChoiceBlock(block.name, tuple(block.choices[choice] for choice in allowed))
            for block, allowed in zip(space.blocks, self.choices, strict=True)
        )
        return replace(
            space,
            blocks=blocks,
            canonical=space.canonical and partial(_canonical, self, space),
            to_string=space.to_string and partial(_to_string, self, space),
            from_string=space.from_string and partial(_from_string, self, space),
            drawing=space.drawing and partial(_drawing, self, space),
            synonyms=None,  # nor are all of an architecture's among its keys
            derive=None,  # an edge that is to be left out may have no `none` in the partition
            cells=None,  # between two choices there may be others, which the partition has not
        )


def split_space(
    space: SearchSpace, settings: PartitionSettings, *, seed: int, likeness: Likeness | None = None
) -> tuple[Partition, ...]:
    """The partitions that the settings ask for, always in the same order.

    likeness: what `by = "gradient"` goes by; the block that is split, where none is named, is then the one whose
        groups are least alike, and else the first for lexicographic groups, and one that is drawn.
    Raises UserError for blocks that do not exist or have too few choices.
    """
    check_split(space, settings)
    names = [block.name for block in space.blocks]
    sizes = [len(block.choices) for block in space.blocks]
    if settings.blocks is not None:
        candidates = [names.index(name) for name in settings.blocks]
    else:
        candidates = [block for block, size in enumerate(sizes) if size >= settings.groups]
        if settings.by == "lexicographic":
            candidates = candidates[:1]
        elif settings.by == "random":
            candidates = [int(seeds.generator(seed, "split").choice(candidates))]
    if settings.by == "gradient":
        assert likeness is not None  # who asks for gradients has a supernet to measure them on
        alike = {block: likeness(block=block) for block in candidates}
        groups = {block: alike_groups(alike[block], settings.groups) for block in candidates}
        if settings.blocks is None:
            worst = min(candidates, key=lambda block: (likeness_between(alike[block], groups[block]), block))
            groups = {worst: groups[worst]}
    elif settings.by == "lexicographic":
        groups = {block: neighbour_groups(sizes[block], settings.groups) for block in candidates}
    else:
        rngs = {block: seeds.generator(seed, "groups", block) for block in candidates}
        groups = {block: random_groups(sizes[block], settings.groups, rng) for block, rng in rngs.items()}
    every = [groups.get(block, (tuple(range(size)),)) for block, size in enumerate(sizes)]
    return tuple(Partition(choices) for choices in product(*every))


def possible_parts(space: SearchSpace, settings: PartitionSettings, *, seed: int) -> tuple[Partition, ...]:
    """The partitions themselves; or, where gradients will decide, the least that may be left: one choice of a block."""
    if settings.by != "gradient":
        return split_space(space, settings, seed=seed)
    whole = [tuple(range(len(block.choices))) for block in space.blocks]
    return tuple(
        Partition((*whole[:index], (choice,), *whole[index + 1 :]))
        for index, block in enumerate(space.blocks)
        if len(block.choices) >= settings.groups and (settings.blocks is None or block.name in settings.blocks)
        for choice in whole[index]
    )


def check_split(space: SearchSpace, settings: PartitionSettings) -> None:
    """Raises UserError if the space cannot be split so."""
    sizes = {block.name: len(block.choices) for block in space.blocks}
    if settings.blocks is None:
        if max(sizes.values()) < settings.groups:
            raise UserError(
                f"groups = {settings.groups} is more than any block of {space.name} has choices "
                f"({max(sizes.values())}); lower it."
            )
        return
    for name in settings.blocks:
        if name not in sizes:
            raise UserError(f"unknown block {name!r} in blocks; {closest(name, sizes)}.")
        if sizes[name] < settings.groups:
            raise UserError(
                f"groups = {settings.groups} is more than block {name} of {space.name} has choices "
                f"({sizes[name]}); lower it, or name other blocks."
            )


def find(partitions: Sequence[Partition], architecture: Architecture) -> int:
    """The index of the partition that holds an architecture, which must be in its canonical form."""
    return next(index for index, partition in enumerate(partitions) if architecture in partition)


def reference_sample(
    space: SearchSpace, partition: Partition, settings: PartitionSettings, seed: int
) -> list[Architecture]:
    """The networks on which a partition's scores are compared: distinct, their canonical forms in the partition.

    Drawn from the seed; fewer than `settings.reference` where the partition holds fewer, none if nothing is compared.
    """
    rng = seeds.generator(seed, "reference", str(partition.choices))
    inner = partition.restrict(space)
    found: dict[Architecture, None] = {}
    for _ in range(20 * settings.reference if settings.comparable != "none" else 0):
        form = space.canonicalise(partition.outer(inner.sample(rng)))
        if form in partition:
            found.setdefault(form)
        if len(found) == settings.reference:
            break
    return list(found)


def joint_probabilities(
    space: SearchSpace, partitions: Sequence[Partition], learnt: Sequence[Sequence[Sequence[float]]]
) -> tuple[NDArray[np.float64], ...]:
    """For each block the distribution over its choices if a key is drawn from partitions as often as they are large.

    learnt: each partition's own, for each block over the partition's choices. Uniform ones give the uniform one.
    """
    found = [np.zeros(len(block.choices)) for block in space.blocks]
    for partition, probabilities in zip(partitions, learnt, strict=True):
        for p, allowed, own in zip(found, partition.choices, probabilities, strict=True):
            p[list(allowed)] += np.array(own) * (partition.size / space.size)
    return tuple(found)


def random_groups(choices: int, groups: int, rng: np.random.Generator) -> Groups:
    """Groups of nearly equal size, drawn."""
    return _ordered(np.array_split(rng.permutation(choices), groups))


def neighbour_groups(choices: int, groups: int) -> Groups:
    """Groups of nearly equal size of choices that follow each other."""
    return _ordered(np.array_split(np.arange(choices), groups))


def alike_groups(likeness_CC: NDArray[np.float64], groups: int) -> Groups:
    """Groups of any size of choices that are alike: average-linkage clusters of 1 - likeness.

    GM-NAS cuts the graph of likenesses at the least cost; clusters are the same idea for any number of groups.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    # rounded: no tie may be broken by the order in which a machine sums
    distance_CC = np.round(1 - (likeness_CC + likeness_CC.T) / 2, 6).clip(min=0)
    np.fill_diagonal(distance_CC, 0)
    tree = linkage(squareform(distance_CC, checks=False), method="average")
    cluster_C = cut_tree(tree, n_clusters=groups)[:, 0]
    return _ordered([np.flatnonzero(cluster_C == cluster) for cluster in range(groups)])


def likeness_between(likeness_CC: NDArray[np.float64], groups: Groups) -> float:
    """Mean likeness of choices of different groups: where it is least, sharing weights harms most."""
    group_C = np.empty(len(likeness_CC), dtype=int)
    for index, group in enumerate(groups):
        group_C[list(group)] = index
    return float(likeness_CC[group_C[:, None] != group_C[None, :]].mean())


def _ordered(groups: Sequence[NDArray[np.int64]]) -> Groups:
    return tuple(sorted(tuple(sorted(int(choice) for choice in group)) for group in groups))


def _canonical(partition: Partition, space: SearchSpace, architecture: Architecture) -> Architecture:
    if architecture == ELSEWHERE:
        return ELSEWHERE
    form = space.canonicalise(partition.outer(architecture))
    return partition.inner(form) if form in partition else ELSEWHERE


def _to_string(partition: Partition, space: SearchSpace, architecture: Architecture) -> str:
    return space.print(partition.outer(architecture))


def _from_string(partition: Partition, space: SearchSpace, text: str) -> Architecture:
    assert space.from_string is not None
    if (architecture := space.from_string(text)) not in partition:
        raise ValueError(f"expected an architecture of the partition {partition.choices}, but got {text!r}")
    return partition.inner(architecture)


def _drawing(partition: Partition, space: SearchSpace, architecture: Architecture) -> tuple[Connection, ...]:
    return space.connections(partition.outer(architecture))
