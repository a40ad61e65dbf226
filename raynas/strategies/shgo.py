"""Simplicial homology global optimisation of models of accuracy and costs, fitted to a few networks (FLASH).

Li et al., "FLASH", ACM TECS 2021 (arXiv:2108.00568); Endres et al., "A simplicial homology algorithm for Lipschitz
optimisation", Journal of Global Optimization, 2018. How the paper cuts its hierarchy was not in the sources we reached:
ours is in the docstring of `search`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import shgo

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.nn_degree import AccuracyModel, cost_features, degree, fit_accuracy, fit_cost
from raynas.space import Cell, SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategy import measured

GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, are spread evenly, however many there are
UNEVEN = 0.5  # standard deviation of a block's size in a network of the start, as a share of the network's
TRIES = 50  # networks of the start that may be known ones
SMALLER, LARGER = 0.9, 1.05  # times what is aimed at, for a network that is rejected, and for one that is not
DIMENSIONS = 4  # of one optimisation: its triangulation grows too fast with them
POINTS = 32  # that it samples; a power of two, for Sobol's sequence
SPAN = 0.25  # half the side of the finer level's boxes
EXPANDED = 20  # architectures whose neighbours are looked at, in search of what is new
LEAST = 1e-3  # accuracy, where an error is above 1, and cost, where it is 0
ROUNDING = 1e-6  # by which an optimum may break a limit

Cells = Callable[[Sequence[float]], tuple[Cell, ...]]


class Shgo:
    """Asks for `startup` networks from small to large, and then for what the models of all that was told say is best.

    The first objective is taken for an error, all others for costs. Without `limits` on the costs, the best has the
    most accuracy for the product of its costs; under limits, the most accuracy. As the model's accuracy only ever rises
    with NN-Degree, that is the largest NN-Degree within the limits. As what breaks them has no costs to learn from, the
    start comes down in size, and later the limits are aimed below, as long as a third is rejected. The space has to say
    its `cells`.
    """

    def __init__(self, space: SearchSpace, *, seed: int, limits: Sequence[float] = (), startup: int = 25) -> None:
        if space.cells is None:
            raise UserError(
                f"shgo expects a space with `cells`, of which NN-Degree is computed, but {space.name} has none; "
                "choose width_depth, or give yours a function `cells`."
            )
        if startup < 4:
            raise UserError(f"startup must be at least 4, for a model of three numbers, but got {startup}; raise it.")
        self.startup = startup
        self._space = space
        self._cells: Cells = space.cells
        self._limits = tuple(limits[1:])
        self._rng = seeds.generator(seed, "shgo")
        self._unasked = Unasked(space)
        self._told: dict[Architecture, tuple[float, ...]] = {}
        self._sizes = 0  # that were asked for at the start
        self._largest = 1.0  # of these sizes
        self._aim = 1.0  # share of the limits that the models aim at
        self._queue: list[Architecture] = []  # best last

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures; random ones where neither the start nor the models have any left."""
        return self._unasked.ask(count, self._rng, self._spread if self._is_start else self._promising)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Add what was measured to what the models are fitted to, and heed how much was rejected."""
        self._unasked.note(evaluations)
        found = measured(evaluations)
        steps = SMALLER ** (len(evaluations) - len(found)) * LARGER ** len(found)
        if self._is_start:
            self._largest = min(1.0, self._largest * steps)
        else:
            self._aim = min(1.0, self._aim * steps)
        self._told |= {one.architecture: one.objectives for one in found}
        self._queue = []

    @property
    def _is_start(self) -> bool:
        return len(self._told) < self.startup

    def _spread(self) -> Architecture | None:
        """The next network of the start, claimed."""
        return self._unasked.first(self._of_next_size, TRIES)

    def _of_next_size(self) -> Architecture:
        """A network whose choices are all about as far along, 0 to `_largest` of the way."""
        size = self._largest * (self._sizes * GOLDEN % 1)
        self._sizes += 1
        last_B = np.array([len(block.choices) - 1 for block in self._space.blocks])
        shares_B = size * (1 + UNEVEN * self._rng.standard_normal(len(last_B)))
        return tuple(np.round(last_B * shares_B.clip(0, 1)).astype(int).tolist())

    def _promising(self) -> Architecture | None:
        """The best by the models, claimed; None if there is nothing new near their optima."""
        if not self._queue:
            model = fit(self._cells, self._told, [self._aim * limit for limit in self._limits])
            self._queue = rounded(model, search(model, self._space), self._space, self._unasked)[::-1]
        while self._queue:
            if self._unasked.claim(architecture := self._queue.pop()):
                return architecture
        return None


@dataclass(frozen=True, slots=True)
class Model:
    """What is expected of a network of the space, also of choices in between.

    weights_MF: of each cost's features. limits_M: of the costs, infinite where there is none.
    """

    cells: Cells
    accuracy: AccuracyModel
    weights_MF: NDArray[np.float64]
    limits_M: NDArray[np.float64]

    def loss(self, choices: Sequence[float]) -> float:
        """What is minimised: the logarithm of the product of costs for accuracy; under limits, of 1 / NN-Degree."""
        cells = self.cells(choices)
        if np.isfinite(self.limits_M).any():
            return -math.log(degree(cells))
        costs_M = np.maximum(self.weights_MF @ cost_features(cells), np.finfo(float).tiny)
        return float(np.log(costs_M).sum()) - math.log(self.accuracy.predict(degree(cells)))

    def slack(self, choices: Sequence[float]) -> NDArray[np.float64]:
        """The share that is left of each limit, below zero where it is broken."""
        limited_M = np.isfinite(self.limits_M)
        costs_M = self.weights_MF[limited_M] @ cost_features(self.cells(choices))
        return 1 - costs_M / self.limits_M[limited_M]

    def rank(self, choices: Sequence[float]) -> tuple[float, float]:
        """By how much the limits are broken, and the loss: what is lower is better."""
        broken = float(-np.minimum(0, self.slack(choices)).sum())
        return broken if broken > ROUNDING else 0.0, self.loss(choices)


def fit(cells: Cells, told: dict[Architecture, tuple[float, ...]], limits: Sequence[float]) -> Model:
    """The models of an error and of costs, by what was told of each architecture."""
    found = [cells(one) for one in told]
    errors_A, *costs_MA = np.array(list(told.values())).T
    features_AF = np.array([cost_features(one) for one in found])
    weights_MF = [fit_cost(features_AF, np.maximum(LEAST, costs_A)) for costs_A in costs_MA]
    return Model(
        cells,
        fit_accuracy(np.array([degree(one) for one in found]), np.maximum(LEAST, 1 - errors_A)),
        np.reshape(weights_MF, (len(weights_MF), -1 if weights_MF else features_AF.shape[1])),
        np.array([*limits, *[math.inf] * len(weights_MF)][: len(weights_MF)]),
    )


def search(model: Model, space: SearchSpace) -> list[list[float]]:
    """The minima of a model between the choices of a space, hierarchically and best first: B numbers each.

    At first blocks of equal choices (all widths) take equal ones, so that there are few dimensions. Then each block is
    on its own, within a box around the best so far, those of equal choices together. What does not fit into
    `DIMENSIONS` is optimised part by part.
    """
    kinds: dict[tuple[str, ...], list[int]] = {}
    for index, block in enumerate(space.blocks):
        if len(block.choices) > 1:
            kinds.setdefault(block.choices, []).append(index)
    tied = list(kinds.values())
    alone = [[[block] for block in kind] for kind in tied]
    found = [[0.0] * len(space.blocks)]
    for span, groups in ((1.0, [tied]), (SPAN, alone)):
        for part in (group[at : at + DIMENSIONS] for group in groups for at in range(0, len(group), DIMENSIONS)):
            found += minima(model, space, min(found, key=model.rank), part, span)
    return sorted(found, key=model.rank)


def minima(
    model: Model, space: SearchSpace, around: Sequence[float], tied: Sequence[Sequence[int]], span: float
) -> list[list[float]]:
    """The minima within the limits where blocks that are tied go along their choices together: B numbers each.

    around: where all other blocks stay. span: half the side of the box around it, as a share of all choices.
    """
    last = [len(space.blocks[blocks[0]].choices) - 1 for blocks in tied]

    def place(shares: NDArray[np.float64]) -> list[float]:
        choices = list(around)
        for blocks, share in zip(tied, (shares.clip(0, 1) * last).tolist(), strict=True):
            for block in blocks:
                choices[block] = share
        return choices

    middle = np.array([around[blocks[0]] for blocks in tied]) / last
    result = shgo(
        lambda shares: model.loss(place(shares)),
        list(zip((middle - span).clip(min=0), (middle + span).clip(max=1), strict=True)),
        constraints=[{"type": "ineq", "fun": lambda shares: model.slack(place(shares))}],
        n=POINTS,
        sampling_method="sobol",
        minimizer_kwargs={"method": "SLSQP"},  # one of those that heed constraints
    )
    return [place(shares) for shares in result.xl] if result.success else []


def rounded(
    model: Model, minima: Sequence[Sequence[float]], space: SearchSpace, unasked: Unasked
) -> list[Architecture]:
    """New architectures near minima that should keep the limits, the best by the model first.

    From the roundings of the minima on, down and to the nearest, the neighbours of the best are looked at, until none
    is better: the search between the choices knows nothing of rounding.
    """
    ranks: dict[Architecture, tuple[float, float]] = {}

    def look(architectures: Sequence[Architecture]) -> None:
        for one in architectures:
            if (network := space.canonicalise(one)) not in ranks:
                ranks[network] = model.rank(network)

    look([tuple(int(choice + shift) for choice in minimum) for minimum in minima for shift in (ROUNDING, 0.5)])
    expanded: set[Architecture] = set()
    while len(expanded) < min(EXPANDED, len(ranks)):
        best = min(ranks.keys() - expanded, key=lambda one: (ranks[one], one))
        fresh = [one for one in ranks if ranks[one][0] == 0 and one not in unasked.known]
        if fresh and expanded and ranks[best] >= min(ranks[one] for one in expanded):
            break
        expanded.add(best)
        look(_neighbours(best, space))
    fresh = [one for one in ranks if ranks[one][0] == 0 and one not in unasked.known]
    return sorted(fresh, key=lambda one: (ranks[one], one))


def _neighbours(architecture: Architecture, space: SearchSpace) -> list[Architecture]:
    """All that are a step away in one block, or a step up in one and down in another."""
    blocks = range(len(architecture))
    moves = [{block: step} for block in blocks for step in (-1, 1)]
    moves += [{up: 1, down: -1} for up, down in permutations(blocks, 2)]
    return [
        tuple(choice + move.get(block, 0) for block, choice in enumerate(architecture))
        for move in moves
        if all(0 <= architecture[block] + step < len(space.blocks[block].choices) for block, step in move.items())
    ]
