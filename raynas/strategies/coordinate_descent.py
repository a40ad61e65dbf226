"""Multi-layer coordinate descent: the largest network shrinks, by the best of several joint reductions at a time.

Yang et al., "NetAdaptV2", CVPR 2021 (arXiv:2104.00031); with one block a sample it is the descent of NetAdapt (Yang et
al., ECCV 2018). How many samples and blocks, and how much at a time, was not in the sources we reached.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from raynas import seeds
from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked
from raynas.strategy import measured

TRIES = 50  # samples that may be known networks, or fall short of the reduction, before there are none left
PRIOR = 0.01  # weight of the guess that all steps are alike, against what a network one step away tells
TINY = float(np.finfo(float).tiny)
ONE_OBJECTIVE = (
    "coordinate_descent expects a score and a cost, but has one objective; "
    'set objectives = ["score", "cost"] of its member, or name the cost of a table.'
)

Expected: TypeAlias = tuple[float, list[float], list[float]]
"""What a network costs; and for each block's step down to each of its choices, one block after the other, what it
saves, and the score that it loses for a unit of that."""


class CoordinateDescent:
    """Minimises a score and a cost, the first two objectives; a block's later choices are expected to cost more.

    An iteration asks for `samples` networks: the current one with up to `blocks` random blocks shrunk, step by step,
    until its cost is expected to be lower by the share `reduction`. Of those whose cost is that low, the one that loses
    the least score for what it saves is the next current network, and `reduction` is multiplied by `decay`. The
    networks that were current are the trade-off curve. Where nothing is left to shrink, another descent begins, which
    knows what was told. What a step saves is learnt from the costs told, so that the cost may be a measured latency.

    At the start the largest network and ever smaller random ones are asked for. If the largest is rejected, nobody
    scores what lies above the limit, and a descent begins below it: at the best score of networks that are expected to
    cost as much as `limits` allow or, where only another limit was broken, as the costliest told. They are asked for,
    `samples` at a time, as long as the best gets better.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        limits: Sequence[float] = (),
        samples: int = 8,
        blocks: int = 4,
        reduction: float = 0.2,
        decay: float = 0.98,
    ) -> None:
        if min(samples, blocks) < 1 or not (0 < reduction < 1 and 0 < decay <= 1):
            raise UserError(
                "expected samples and blocks of at least 1, a reduction between 0 and 1, and a decay above 0 and not "
                f"above 1, but got {samples=}, {blocks=}, {reduction=} and {decay=}; correct them."
            )
        if len(limits) == 1:
            raise UserError(ONE_OBJECTIVE)
        self.samples = samples
        self.blocks = blocks
        self.reduction = reduction
        self.decay = decay
        self._limit = next(iter(limits[1:]), math.inf)
        self._largest: Architecture = tuple(len(block.choices) - 1 for block in space.blocks)
        self._first = np.cumsum((0, *self._largest)).tolist()  # of each block's steps, among those of all
        self._rng = seeds.generator(seed, "coordinate_descent")
        self._unasked = Unasked(space)
        self._told: dict[Architecture, tuple[float, float]] = {}  # score and cost
        self._awaited: set[Architecture] = set()  # of this iteration, or of the start
        self._answers = 0  # of this iteration, failed ones included
        self._sizes_asked = 0  # at the start
        self._is_new = False  # whether this descent has asked for anything
        self._place: Architecture | None = None  # which this iteration shrinks; None: at the start
        self._target = 0.0  # the cost to come down to
        self._best = math.inf  # score of the descent's samples at the limit's edge, before this iteration
        self._reduction = reduction
        self._expected: Expected | None = None  # of this place; None: to be learnt anew

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures; random ones where an iteration has none left and awaits its answers."""
        return self._unasked.ask(count, self._rng, self._propose)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn the costs, and at the end of an iteration move on; raises UserError where no cost is told."""
        self._unasked.note(evaluations)
        for one in evaluations:
            self._answers += one.architecture in self._awaited
            self._awaited.discard(one.architecture)
        for one in measured(evaluations):
            if len(one.objectives) < 2:
                raise UserError(ONE_OBJECTIVE)
            score, cost = one.objectives[:2]
            self._told.setdefault(one.architecture, (score, cost))
        self._expected = None
        if self._place is not None:
            if self._answers >= self.samples:
                self._move_on()
        elif self._told and (self._largest in self._told or (self._sizes_asked == self.samples and not self._awaited)):
            self._begin()

    def _propose(self) -> Architecture | None:
        """The next sample, claimed; None if there is none, or none before others are answered."""
        found = self._next_size() if self._place is None else self._next_sample()
        if found is not None:
            self._awaited.add(found)
        return found

    # --- the start ---

    def _next_size(self) -> Architecture | None:
        while self._sizes_asked < self.samples:
            found = self._unasked.first(self._smaller, TRIES)
            self._sizes_asked += 1
            if found is not None:
                return found
        return None

    def _smaller(self) -> Architecture:
        """The largest network; later without a share of its steps, drawn from all blocks' alike, up to all of them."""
        taken = round(sum(self._largest) * self._sizes_asked / max(1, self.samples - 1))
        lost = self._rng.multivariate_hypergeometric(self._largest, taken).tolist()
        return tuple(choice - steps for choice, steps in zip(self._largest, lost, strict=True))

    def _begin(self) -> None:
        """Begin a descent: at the largest network, or at the limit's edge."""
        self._reduction, self._best, self._is_new = self.reduction, math.inf, False
        if self._largest in self._told:
            self._descend(self._largest)
        else:
            self._sample_edge()

    # --- an iteration ---

    def _descend(self, place: Architecture) -> None:
        self._iterate(place, (1 - self._reduction) * self._told[place][1])
        self._reduction *= self.decay

    def _sample_edge(self) -> None:
        costliest = max(cost for _, cost in self._told.values())
        self._iterate(self._largest, costliest if math.isinf(self._limit) else self._limit)

    def _iterate(self, place: Architecture, target: float) -> None:
        self._place, self._target, self._expected = place, target, None
        self._answers = 0
        self._awaited.clear()

    @property
    def _at_edge(self) -> bool:
        return self._place not in self._told

    def _next_sample(self) -> Architecture | None:
        while True:
            if (found := self._unasked.first(self._shrunk, TRIES)) is not None:
                self._is_new = True
                return found
            if self._awaited or not self._move_on():
                return None

    def _move_on(self) -> bool:
        """End the iteration, if it found anything; False if there is nothing left to ask for."""
        reached = self._reached()
        if self._at_edge:
            best = min(reached, key=lambda one: (self._told[one], one))
            if self._told[best][0] < self._best:
                self._best = self._told[best][0]
                self._sample_edge()
            else:
                self._descend(best)
        elif reached:
            self._descend(min(reached, key=self._loss_rate))
        elif self._answers:
            self._answers = 0  # none came down as far as was expected of it: more samples, now that this is known
        elif self._is_new:
            self._begin()
        else:
            return False
        return True

    def _reached(self) -> list[Architecture]:
        """The networks that the iteration may ask for, whoever did, and that are as cheap as they should be."""
        known, place = list(self._told), np.array(self._place)
        known_AB = np.array(known)
        costs_A = np.array([cost for _, cost in self._told.values()])
        changed_A = (known_AB != place).sum(1)
        is_below_A = (known_AB <= place).all(1) & (changed_A > 0) & (self._at_edge | (changed_A <= self.blocks))
        return [known[row] for row in np.flatnonzero(is_below_A & (costs_A <= self._target)).tolist()]

    def _loss_rate(self, one: Architecture) -> tuple[float, Architecture]:
        """The score that it loses for each unit of cost that it saves; of equals the first by encoding."""
        assert self._place is not None
        (before, full), (score, cost) = self._told[self._place], self._told[one]
        return (score - before) / max(full - cost, TINY), one

    def _shrunk(self) -> Architecture:
        """The place with random blocks shrunk to the target; the place as it is where these do not come down to it.

        At a limit's edge all blocks may shrink, and each step is the one of `blocks` random ones that is expected to
        lose the least score for what it saves.
        """
        assert self._place is not None
        if self._expected is None:
            self._expected = expected(self._largest, self._told, self._place)
        cost, saved, loss_rate = self._expected
        first, result = self._first, list(self._place)
        shrinking = self._rng.permutation([block for block, choice in enumerate(result) if choice]).tolist()
        if not self._at_edge:
            shrinking = shrinking[: self.blocks]
        for drawn in self._rng.random((sum(result), self.blocks if self._at_edge else 1)).tolist():
            if cost <= self._target or not shrinking:
                break
            options = [shrinking[int(one * len(shrinking))] for one in drawn]
            block = min(options, key=lambda one: loss_rate[first[one] + result[one] - 1])
            result[block] -= 1
            cost -= saved[first[block] + result[block]]
            if not result[block]:
                shrinking.remove(block)
        return tuple(result) if cost <= self._target else self._place


def expected(largest: Architecture, told: Mapping[Architecture, tuple[float, float]], place: Architecture) -> Expected:
    """What is expected around a place, by scores and costs told; the largest network can take every step.

    Expectations start from the place, or from the costliest network told where the place was not.
    """
    block_S = np.repeat(np.arange(len(largest)), largest)
    step_S = np.concatenate([np.arange(steps) for steps in largest])

    def steps(architectures_AB: NDArray[np.int64]) -> NDArray[np.float64]:
        return (architectures_AB[..., block_S] > step_S).astype(np.float64)

    known = list(told)
    scores_A, costs_A = np.array(list(told.values())).T
    near = known.index(place) if place in told else int(costs_A.argmax())
    gaps_AS = steps(np.array(known[near])) - steps(np.array(known))
    saved_S = by_step(gaps_AS, costs_A[near] - costs_A, costs_A[near] / max(1, sum(known[near])))
    saved_S = np.maximum(0, saved_S)
    lost_S = by_step(gaps_AS, scores_A - scores_A[near], 0)
    cost = costs_A[near] + (steps(np.array(place)) - steps(np.array(known[near]))) @ saved_S
    return float(cost), saved_S.tolist(), (lost_S / np.maximum(saved_S, TINY)).tolist()


def by_step(gaps_AS: NDArray[np.float64], changes_A: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """How much each step changes a number: shape (S,), by the changes over sets of steps, 1 down and -1 up.

    Ridge regression, towards the same prior for all steps, on the mean change of the steps of each set: so those far
    away count little, and what does not add up, as the costs of two neighbouring layers, is described as it is nearby.
    """
    distance_A = np.maximum(1, np.abs(gaps_AS).sum(1))
    means_AS = gaps_AS / distance_A[:, None]
    precision_SS = means_AS.T @ means_AS + PRIOR * np.eye(gaps_AS.shape[1])
    found_S = np.linalg.solve(precision_SS, means_AS.T @ (changes_A / distance_A) + PRIOR * prior)
    unit = float(np.abs(changes_A).max()) or 1.0
    return unit * np.round(found_S / unit, 6)  # what is asked should not hang on a library's last bits
