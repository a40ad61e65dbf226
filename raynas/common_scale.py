"""The one scale of a space that is split, whose architectures are scored each by its partition's supernet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raynas.evaluation import SCORES, Evaluation


@dataclass(frozen=True, slots=True)
class Scale:
    """What a partition's loss and error are multiplied by, and what is then added."""

    factor: tuple[float, ...] = (1.0,) * len(SCORES)
    shift: tuple[float, ...] = (0.0,) * len(SCORES)

    def __call__(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation on the scale that all partitions share; its costs are what they were."""
        scores = zip(evaluation.objectives[: len(SCORES)], self.factor, self.shift, strict=False)
        moved = tuple(score * factor + shift for score, factor, shift in scores)
        return Evaluation(evaluation.architecture, (*moved, *evaluation.objectives[len(SCORES) :]), evaluation.failure)


def common_scale(how: str, own: Sequence[Evaluation], reference: Sequence[Evaluation]) -> Scale:
    """The scale on which a partition's scores of some architectures agree with the warm-up supernet's.

    Supernets of different weights differ in their scores' level: an architecture must not win because its partition
    was easier to train. The warm-up supernet scores all partitions with the same weights; "shift" takes each
    partition's mean from it and leaves the order inside to the partition, "shift_and_scale" the spread as well.
    Architectures that either could not score are left out.
    """
    pairs = [(a.objectives[: len(SCORES)], b.objectives[: len(SCORES)]) for a, b in zip(own, reference, strict=True)]
    known = [pair for pair in pairs if all(pair)]
    if how == "none" or not known:
        return Scale()
    own_AM, reference_AM = np.array(known).swapaxes(0, 1)
    factor_M = np.ones(len(SCORES))
    if how == "shift_and_scale":
        spread_M = own_AM.std(axis=0)
        factor_M = np.divide(reference_AM.std(axis=0), spread_M, out=factor_M, where=spread_M > 0)
    shift_M = reference_AM.mean(axis=0) - factor_M * own_AM.mean(axis=0)
    return Scale(tuple(factor_M.tolist()), tuple(shift_M.tolist()))
