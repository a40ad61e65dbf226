"""NN-Degree by hand, and the models of accuracy and costs: methods.md 4.9."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from raynas import seeds
from raynas.costs.macs import macs
from raynas.costs.parameters import parameters
from raynas.nn_degree import AccuracyModel, cost_features, degree, fit_accuracy, fit_cost
from raynas.space import Cell
from raynas.supernet import seeded
from search_spaces.width_depth import Variant, space, supernet

CELLS = (Cell(4, 3, 12), Cell(8, 2, 8, pixels=0.25))
DEGREES = np.geomspace(20, 400, 25)


def test_nn_degree_of_cells_made_by_hand() -> None:
    """A unit of the first cell is connected to 4 of its chain and to 12 / (3 layers of 4) by links."""
    assert degree(CELLS) == (4 + 12 / 12) + (8 + 8 / 16)
    assert degree(()) == 0


def test_cost_features_of_cells_made_by_hand() -> None:
    weights = [4 * 8, 3 * 16 + 2 * 64, 12 * 4 + 8 * 8, 4 * 4 + 3 * 8]
    times_pixels = [4 * 8 / 4, 3 * 16 + 2 * 64 / 4, 12 * 4 + 8 * 8 / 4, 4 * 4 + 3 * 8 / 4]
    assert cost_features(CELLS).tolist() == [*weights, *times_pixels, 4 + 3, 3 + 1, 1]


@pytest.mark.parametrize("model", [AccuracyModel(0.6, 0.5, 1.05), AccuracyModel(40.0, 1.2, 1.0)], ids=str)
def test_25_accuracies_of_a_model_give_the_model_back(model: AccuracyModel) -> None:
    found = fit_accuracy(DEGREES, np.array([model.predict(g) for g in DEGREES]))
    assert found == pytest.approx(model, rel=1e-3)


def test_accuracy_never_falls_with_nn_degree_even_where_it_was_seen_to() -> None:
    found = fit_accuracy(DEGREES, np.linspace(0.9, 0.5, 25))
    assert min(found) >= 0
    assert found.predict(20) <= found.predict(400) == pytest.approx(0.7, abs=0.01)


def test_a_cost_that_is_a_sum_of_the_features_is_found() -> None:
    rng = seeds.generator(0, "cells")
    features_AF = np.array(
        [cost_features([Cell(*rng.uniform(1, 9, 3), pixels=p) for p in (1, 0.25)]) for _ in range(25)]
    )
    weights_F = np.array([0, 2e-3, 0, 0, 1e-2, 0, 0, 3e-3, 0.5, 0, 2])
    np.testing.assert_allclose(features_AF @ fit_cost(features_AF, features_AF @ weights_F), features_AF @ weights_F)


@pytest.mark.parametrize("variant", get_args(Variant))
def test_parameters_and_macs_of_other_networks_are_near_what_those_of_25_say(variant: Variant) -> None:
    settings = {"variant": variant, "channels": 4, "counts": (2,), "depths": (1, 2), "links": (0, 1)}
    few = space(**settings)
    assert few.cells is not None
    network = seeded(supernet, 0, in_channels=3, classes=5, resolution=8, **settings)
    rng = seeds.generator(0, "networks")
    networks = [few.sample(rng) for _ in range(50)]
    features_AF = np.array([cost_features(few.cells(one)) for one in networks])
    for cost in (parameters, macs):
        predict = cost(network, (3, 8, 8))
        costs_A = np.array([predict(few.canonicalise(one)) for one in networks])
        found_A = features_AF @ fit_cost(features_AF[:25], costs_A[:25])
        assert np.median(np.abs(found_A[25:] / costs_A[25:] - 1)) < 0.05
