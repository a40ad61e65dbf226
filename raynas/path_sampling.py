"""Path sampling: whether the paths of a training step are keys, canonical forms or distinct networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np

from raynas import seeds
from raynas.architecture import Architecture
from raynas.partition import ELSEWHERE
from raynas.space import SearchSpace

Paths: TypeAlias = tuple[Architecture, ...]
Proposals: TypeAlias = Callable[[SearchSpace, np.random.Generator], Iterator[Paths]]
"""Draws without end what a step may train."""

Sampling: TypeAlias = Literal["keys", "canonical", "distinct"]
"""keys: paths as they are drawn, which favours networks of many keys, in NAS-Bench-201 the poor ones.
canonical: drawn as keys, but trained as the canonical forms that are scored.
distinct: drawn anew until all paths of the step are canonical forms. A single path is then any distinct network with
    equal probability (Ning et al., "Evaluating Efficient Performance Estimators of Neural Architectures", NeurIPS 2021,
    recommend it); of several paths that hang together, as in a fair set, every set that is left has equal probability.
"""

TRIES = 20_000  # draws by which a space is judged before the training
ACCEPTED = 10  # of them that must do; at 1 in 2,000 drawing costs about as much as a small training step
MEMORY = 2**17  # keys of which is remembered whether they are canonical


class PathSampling:
    """Draws the paths of a step; raises ValueError for a space of which `distinct` accepts next to nothing."""

    def __init__(self, space: SearchSpace, propose: Proposals, sampling: Sampling) -> None:
        self.space = space
        self.propose = propose
        self.sampling = sampling
        self.is_canonical = lru_cache(MEMORY)(space.is_canonical)
        if sampling == "distinct" and space.canonical is not None:
            self._check()

    def draw(self, rng: np.random.Generator) -> Paths:
        """The paths of one step, which depend on the generator alone."""
        return self.trained(next(paths for paths in self.propose(self.space, rng) if self._accepts(paths)))

    def trained(self, paths: Paths) -> Paths:
        """What is trained for these keys; a partition's key whose canonical form another one holds stays as it is."""
        if self.sampling != "canonical":
            return paths
        forms = zip(paths, map(self.space.canonicalise, paths), strict=True)
        return tuple(path if form == ELSEWHERE else form for path, form in forms)

    def _accepts(self, paths: Paths) -> bool:
        return self.sampling != "distinct" or all(map(self.is_canonical, paths))

    def _check(self) -> None:
        """The same draws whatever the seed, so that a space that passes always does, and no step draws for ever."""
        proposals = self.propose(self.space, seeds.generator(0, "acceptance"))
        accepted = 0
        for _ in range(TRIES):
            accepted += self._accepts(next(proposals))
            if accepted == ACCEPTED:
                return
        raise ValueError(
            f'sampling = "distinct" expects that at least {ACCEPTED} in {TRIES:,} draws hold nothing but canonical '
            f'forms, but got {accepted} with {self.space.name}; take "canonical" or "keys"'
        )
