"""The search step of PARSEC (Casale et al. 2019, arXiv:1902.05116): the mode of pi, then samples of p(a|pi)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raynas import seeds
from raynas.architecture import Architecture
from raynas.derivations.mode import mode
from raynas.evaluation import Evaluation
from raynas.space import SearchSpace
from raynas.strategies._unasked import Unasked

DRAWS = 200  # samples that may be known networks before the most probable new one is taken
STEPS = 20_000  # keys visited at most in search of it


class DistributionSampling:
    """Samples networks of a factorised distribution without replacement, beginning with its mode.

    probabilities: of each block's choices, shape (choices,) each, summing to 1; None: uniform.
    Where the distribution is so peaked that `DRAWS` samples are all known, the most probable key of a new network is
    taken. Exhausted when every network of positive probability was asked for.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int, probabilities: Sequence[NDArray[np.float64]] | None = None
    ) -> None:
        given = space.probabilities(probabilities)
        self._rng = seeds.generator(seed, "distribution_sampling")
        self._unasked = Unasked(space)
        self._mode: Architecture | None = mode(given)
        self._cumulative = [np.cumsum(block) / np.cumsum(block)[-1] for block in given]  # ends at 1 exactly
        # best-first walk over all keys: the choices of each block by falling probability, from the mode outwards
        self._order = [np.argsort(-block, kind="stable").tolist() for block in given]
        with np.errstate(divide="ignore"):
            self._surprise = [(-np.log(np.sort(block)[::-1])).tolist() for block in given]
        self._frontier = [(0.0, (0,) * len(given))]

    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` new architectures; the mode comes first, unless it was told of before."""
        found: list[Architecture] = []
        if count > 0 and self._mode is not None:
            if self._unasked.claim(self._mode):
                found.append(self._mode)
            self._mode = None
        while len(found) < count:
            architecture = self._unasked.first(self._sample, DRAWS)
            if architecture is None and (architecture := self._most_probable()) is None:
                break
            found.append(architecture)
        return found

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn nothing but what need not be asked any more: the distribution was learnt before."""
        self._unasked.note(evaluations)

    def _sample(self) -> Architecture:
        draws = self._rng.random(len(self._cumulative)).tolist()
        return tuple(
            int(np.searchsorted(cumulative, draw, side="right"))
            for cumulative, draw in zip(self._cumulative, draws, strict=True)
        )

    def _most_probable(self) -> Architecture | None:
        """The most probable key of a new network, claimed; the frontier holds every key next in line once."""
        for _ in range(STEPS):
            if not self._frontier:
                return None
            _, places = heapq.heappop(self._frontier)
            last = max((block for block, place in enumerate(places) if place), default=0)
            for block in range(last, len(places)):  # every key has one predecessor: its last non-zero place less one
                if places[block] + 1 < len(self._order[block]):
                    successor = (*places[:block], places[block] + 1, *places[block + 1 :])
                    surprise = sum(of[place] for of, place in zip(self._surprise, successor, strict=True))
                    if surprise < np.inf:
                        heapq.heappush(self._frontier, (surprise, successor))
            architecture = tuple(order[place] for order, place in zip(self._order, places, strict=True))
            if self._unasked.claim(architecture):
                return architecture
        return None
