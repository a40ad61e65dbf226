"""Partitions are disjoint and cover the space, whatever they are split by; and each is a space of its own."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from raynas import seeds
from raynas.config import PartitionSettings, SpaceSettings
from raynas.errors import UserError
from raynas.members import members
from raynas.partition import (
    ELSEWHERE,
    Groups,
    Partition,
    alike_groups,
    find,
    likeness_between,
    neighbour_groups,
    random_groups,
    reference_sample,
    split_space,
)
from raynas.plan import load_space
from raynas.space import SearchSpace
from raynas.strategies.random_search import RandomSearch
from raynas.testing import STAGES
from search_spaces.nas_bench_201 import SPACE

SPACES = [load_space(SpaceSettings(name=name)) for name in members("search_spaces")]
BY = ("random", "lexicographic", "gradient")


def likeness(space: SearchSpace, seed: int = 0) -> Any:
    """Cosines of random vectors, as gradients would give them."""

    def of(*, block: int) -> np.ndarray:
        vectors = seeds.generator(seed, block).standard_normal((len(space.blocks[block].choices), 3))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit @ unit.T

    return of


def parts(space: SearchSpace, seed: int = 0, **settings: Any) -> tuple[Partition, ...]:
    return split_space(space, PartitionSettings(**settings), seed=seed, likeness=likeness(space))


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("blocks", [None, 1, 2])
@pytest.mark.parametrize("space", [*SPACES, STAGES], ids=lambda space: space.name)
def test_partitions_are_disjoint_and_together_cover_the_space(space: SearchSpace, blocks: int | None, by: str) -> None:
    most = sorted(space.blocks, key=lambda block: -len(block.choices))[: blocks or 1]
    for groups in range(2, min(5, len(most[-1].choices)) + 1):
        names = tuple(block.name for block in most) if blocks else None
        found = parts(space, groups=groups, by=by, blocks=names)
        assert len(found) == groups ** (blocks or 1)
        assert sum(partition.size for partition in found) == space.size
        rng = seeds.generator(0, "keys")
        for _ in range(50):
            key = space.sample(rng)
            assert [key in partition for partition in found].count(True) == 1
            assert key in found[find(found, key)]


def test_every_key_of_a_small_space_is_in_one_partition() -> None:
    found = parts(STAGES, groups=2, by="random", blocks=("layer1", "layer4"))
    keys = list(itertools.product(range(3), repeat=6))
    assert sorted(key for partition in found for key in keys if key in partition) == keys


@pytest.mark.parametrize("by", BY)
def test_a_split_hangs_on_the_seed_alone_and_only_where_it_is_random(by: str) -> None:
    splits = [parts(SPACE, seed, groups=2, by=by) for seed in (0, 0, *range(1, 6))]
    assert splits[0] == splits[1]
    assert (len(set(splits)) > 1) == (by == "random")


def test_groups_have_equal_sizes_where_nothing_is_measured_and_neighbours_stay_together() -> None:
    assert neighbour_groups(5, 2) == ((0, 1, 2), (3, 4))
    drawn = {random_groups(5, 2, seeds.generator(seed)) for seed in range(20)}
    assert len(drawn) > 3 and all(sorted(map(len, groups)) == [2, 3] for groups in drawn)


def test_groups_by_likeness_keep_together_what_is_alike() -> None:
    planted: Groups = ((0, 3, 5), (1,), (2, 4))
    direction = {choice: np.eye(3)[index] for index, group in enumerate(planted) for choice in group}
    noise = 0.1 * seeds.generator(0, "noise").standard_normal((6, 3))
    vectors = np.array([direction[choice] for choice in range(6)]) + noise
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert alike_groups(unit @ unit.T, 3) == planted
    assert alike_groups(np.ones((5, 5)), 5) == ((0,), (1,), (2,), (3,), (4,))
    assert sum(map(len, alike_groups(np.ones((5, 5)), 2))) == 5  # ties do not merge all into one


def test_the_block_that_is_split_is_the_one_whose_groups_disagree_most() -> None:
    def likeness(*, block: int) -> np.ndarray:
        alike = np.full((3, 3), -0.5 if block == 4 else 0.5)
        np.fill_diagonal(alike, 1)
        return alike

    found = split_space(STAGES, PartitionSettings(groups=3), seed=0, likeness=likeness)
    assert [partition.choices[4] for partition in found] == [(0,), (1,), (2,)]
    assert likeness_between(likeness(block=4), ((0,), (1, 2))) == -0.5


@pytest.mark.parametrize("space", [*SPACES, STAGES], ids=lambda space: space.name)
def test_a_partition_is_a_space_of_its_own(space: SearchSpace) -> None:
    rng = seeds.generator(0, "keys")
    for partition in parts(space, groups=2, by="random"):
        inner = partition.restrict(space)
        assert inner.size == partition.size
        for _ in range(30):
            key = inner.check(inner.sample(rng))
            outer = partition.outer(key)
            assert outer in partition and partition.inner(outer) == key
            assert inner.print(key) == space.print(outer) or space.to_string is None
            if space.from_string is not None:
                assert inner.parse(space.print(outer)) == key
            assert inner.connections(key) == space.connections(outer)
            form = space.canonicalise(outer)
            assert inner.canonicalise(key) == (partition.inner(form) if form in partition else ELSEWHERE)
            assert inner.canonicalise(inner.canonicalise(key)) == inner.canonicalise(key)


def test_notation_of_another_partition_is_told() -> None:
    one, other = parts(SPACE, groups=2, by="lexicographic")
    with pytest.raises(UserError, match="expected an architecture of the partition"):
        one.restrict(SPACE).parse(SPACE.print(other.outer((0, 0, 0, 0, 0, 0))))


def test_reference_architectures_are_distinct_networks_that_the_partition_scores() -> None:
    settings = PartitionSettings(groups=5, blocks=("op03",), reference=20)
    for partition in parts(SPACE, groups=5, blocks=("op03",), by="lexicographic"):
        sample = reference_sample(SPACE, partition, settings, 0)
        assert len(set(sample)) == len(sample) == 20
        assert all(SPACE.canonicalise(one) == one and one in partition for one in sample)
        assert (
            sample == reference_sample(SPACE, partition, settings, 0) != reference_sample(SPACE, partition, settings, 1)
        )
    only = Partition(((1,),) * 6)
    assert reference_sample(STAGES, only, settings, 0) == [(1,) * 6]
    assert reference_sample(STAGES, only, settings.model_copy(update={"comparable": "none"}), 0) == []


def test_a_strategy_searches_a_partition_as_any_space() -> None:
    partition = parts(STAGES, groups=3, by="lexicographic")[0]
    asked = RandomSearch(partition.restrict(STAGES), seed=0).ask(1000)
    assert all(partition.outer(one) in partition for one in asked) and len(asked) > 10


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"blocks": ("op003",)}, "unknown block 'op003' in blocks; did you mean 'op03'? known: op01"),
        ({"blocks": ("op03",), "groups": 6}, "groups = 6 is more than block op03 of nas_bench_201 has cho"),
        ({"groups": 6}, "groups = 6 is more than any block of nas_bench_201 has choices (5); lower it"),
    ],
)
def test_a_split_that_cannot_be_made_is_told(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as mistake:
        parts(SPACE, **settings)
    assert told in str(mistake.value) and "\n" not in str(mistake.value)
