"""What the evaluator pool makes of a space that is split, in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raynas.architecture import Architecture
from raynas.common_scale import Scale, common_scale
from raynas.config import PartitionSettings
from raynas.evaluation import Evaluation
from raynas.partition import Partition, find, reference_sample
from raynas.space import SearchSpace
from raynas.supernet_evaluator import SupernetEvaluator


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
