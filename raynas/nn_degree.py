"""NN-Degree, the accuracy that it predicts, and what costs are a sum of: analytic models of networks made of cells.

Li et al., "FLASH: Fast Neural Architecture Search with Hardware Optimization", ACM TECS 2021 (arXiv:2108.00568). Its
text was not in the sources we reached: the formulas are recalled consistently by others, the costs' features are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from raynas.space import Cell

STEEPEST = 20.0
"""The largest exponent that is fitted."""


def degree(cells: Sequence[Cell]) -> float:
    """NN-Degree g: of each cell its width and the skip links of a unit on average, summed over cells."""
    return sum(cell.width + cell.links / (cell.width * cell.layers) for cell in cells)


class AccuracyModel(NamedTuple):
    """Accuracy as 1 / (a (1 / g)^b + c), with none of a, b and c below zero: it never falls with g."""

    a: float
    b: float
    c: float

    def predict(self, degree: float) -> float:
        """The accuracy of a network of this NN-Degree."""
        return float(1 / (self.a * degree**-self.b + self.c))


def fit_accuracy(degrees_A: NDArray[np.float64], accuracies_A: NDArray[np.float64]) -> AccuracyModel:
    """The model of least squared errors in accuracy; accuracies above 0."""
    middle = float(np.exp(np.log(degrees_A).mean()))  # in units of it, a is of the size of c
    logs_A = np.log(degrees_A / middle)

    def errors(at: NDArray[np.float64]) -> NDArray[np.float64]:
        a, b, c = at
        return 1 / (a * np.exp(-b * logs_A) + c) - accuracies_A  # type: ignore[no-any-return]

    half = 0.5 / accuracies_A.mean()  # of the inverse of the accuracy in the middle, for a and for c
    a, b, c = least_squares(errors, (half, 1.0, half), bounds=(0, (np.inf, STEEPEST, np.inf)), ftol=1e-12).x
    return AccuracyModel(float(a * middle**b), float(b), float(c))


def cost_features(cells: Sequence[Cell]) -> NDArray[np.float64]:
    """What the costs of a network of cells are sums of: shape (F,).

    The products of widths that a cell's entry, layers and links have, and its widths themselves, each once for weights
    and once, times the pixels, for multiplications and activations; the number of layers and of links; and 1 for the
    rest.
    """
    sums_F = np.zeros(11)
    before = 0.0
    for cell in cells:
        layers = 1 + cell.layers
        parts = (before * cell.width, cell.layers * cell.width**2, cell.links * cell.width, layers * cell.width)
        sums_F += (*parts, *(part * cell.pixels for part in parts), layers, cell.links / cell.width, 0)
        before = cell.width
    sums_F[-1] = 1
    return sums_F


def fit_cost(features_AF: NDArray[np.float64], costs_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much each feature adds to a cost, shape (F,), none of it below 0: least squares of the relative error."""
    scaled_AF = features_AF / costs_A[:, None]
    unit_F = np.maximum(scaled_AF.max(0), np.finfo(float).tiny)
    weights_F, _ = nnls(scaled_AF / unit_F, np.ones(len(costs_A)))
    return weights_F / unit_F  # type: ignore[no-any-return]
