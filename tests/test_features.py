"""What the rows of numbers say of an architecture's graph."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest

from raynas import seeds
from raynas.features import features
from raynas.members import family
from raynas.space import Connection, SearchSpace, topological
from search_spaces import nas_bench_201, nas_bench_macro
from search_spaces.nas_bench_201 import CONV_1X1, CONV_3X3, NONE, SKIP

CELLS = nas_bench_201.SPACE
ONE_HOT = sum(len(block.choices) for block in CELLS.blocks)


def of_graph(space: SearchSpace, *architectures: tuple[int, ...]) -> list[list[float]]:
    """Without the choices."""
    return features(space, architectures)[:, sum(len(block.choices) for block in space.blocks) :].tolist()


def test_choices_come_first_as_one_of_each_block() -> None:
    architecture = CELLS.canonicalise((CONV_3X3, SKIP, CONV_1X1, CONV_3X3, SKIP, CONV_1X1))
    row_F = features(CELLS, [architecture])[0, :ONE_HOT].reshape(6, 5)
    assert row_F.argmax(axis=1).tolist() == list(architecture) and (row_F.sum(axis=1) == 1).all()


def test_operations_and_paths_of_a_cell_are_counted() -> None:
    # paths from 0 to 3: conv_3x3; conv_1x1, conv_3x3; skip, conv_1x1; conv_1x1, conv_3x3, conv_1x1
    cell = (CONV_1X1, SKIP, CONV_3X3, CONV_3X3, CONV_3X3, CONV_1X1)
    number, on_paths, most = [2, 3, 1], [3, 3, 1], [2, 1, 1]  # of nor_conv_1x1, nor_conv_3x3, skip_connect
    assert of_graph(CELLS, cell) == [[*number, *on_paths, *most, *[0, 2, 1, 1]]]


def test_a_cell_of_nothing_has_no_paths() -> None:
    nothing, skip = of_graph(CELLS, (NONE,) * 6, (NONE, NONE, NONE, SKIP, NONE, NONE))
    assert nothing == [0, 0, 0, 0] and skip == [1, 1, 1, 1]


def test_a_chain_is_one_path() -> None:
    (row,) = of_graph(nas_bench_macro.SPACE, (1, 0, 2, 2, 0, 1, 0, 0))
    # MB3_K3, MB6_K5, identity: numbers, whether on the path, most; then no path shorter than four
    assert row == [*[2, 2, 4], *[1, 1, 1], *[2, 2, 4], *[0, 0, 0, 0, 1]]


def test_keys_of_one_network_have_equal_rows() -> None:
    cell = (NONE, SKIP, CONV_3X3, SKIP, CONV_1X1, SKIP)
    assert CELLS.canonicalise(cell) != cell
    first_F, second_F = features(CELLS, [cell, CELLS.canonicalise(cell)])
    assert first_F.tolist() == second_F.tolist()


def test_a_circle_in_a_drawing_ends() -> None:
    circle = (Connection("a", "b", "x"), Connection("b", "a", "x"), Connection("b", "c", "x"))
    assert sorted(topological(circle)) == ["a", "b", "c"]
    drawn = replace(nas_bench_macro.SPACE, drawing=lambda _: circle)
    assert np.isfinite(of_graph(drawn, (0,) * 8)).all()


@pytest.mark.parametrize("name", family("search_spaces"))
def test_every_space_has_finite_features_that_differ(name: str) -> None:
    space = importlib.import_module(f"search_spaces.{name}").SPACE
    rng = seeds.generator(0, "features")
    networks = sorted({space.canonicalise(space.sample(rng)) for _ in range(20)})
    rows_AF = features(space, networks)
    assert np.isfinite(rows_AF).all() and len(np.unique(rows_AF, axis=0)) == len(networks)
