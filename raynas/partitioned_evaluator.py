"""Scores of a space that is split: each architecture by its partition's supernet, all on one scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raynas.architecture import Architecture
from raynas.config import PartitionSettings
from raynas.evaluation import SCORES, Evaluation
from raynas.partition import Partition, find, reference_sample
from raynas.space import SearchSpace

if TYPE_CHECKING:
    from raynas.supernet_evaluator import SupernetEvaluator


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


class PartitionedEvaluator:
    """The supernets of all partitions as the one evaluator of the whole space.

    parts: an evaluator for each partition, with equal images; reference: one with the weights of the joint warm-up.
    A score stays a pure function: the reference architectures and their images are drawn from the seed.
    """

    def __init__(
        self,
        *,
        space: SearchSpace,
        partitions: Sequence[Partition],
        parts: Sequence[SupernetEvaluator],
        reference: SupernetEvaluator,
        settings: PartitionSettings,
        seed: int,
    ) -> None:
        self.space = space
        self.partitions = partitions
        self.parts = parts
        self.reference = reference
        self.settings = settings
        self.seed = seed
        self.scales: dict[int, Scale] = {}
        self.objectives = reference.objectives

    def evaluate(self, architectures: Sequence[Architecture]) -> Iterator[Evaluation]:
        """One evaluation per architecture, in the order asked."""
        for architecture in architectures:
            index = find(self.partitions, self.space.canonicalise(architecture))
            yield self.scale(index)(self.parts[index].evaluate_one(architecture))

    def scale(self, index: int) -> Scale:
        """What makes the scores of a partition comparable with the others'."""
        if index not in self.scales:
            sample = reference_sample(self.space, self.partitions[index], self.settings, self.seed)
            own, reference = ([one.measure(a) for a in sample] for one in (self.parts[index], self.reference))
            self.scales[index] = common_scale(self.settings.comparable, own, reference)
        return self.scales[index]
