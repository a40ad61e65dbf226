"""Scores from a supernet's weights: loss and error of a path on validation or training images, and its costs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from raynas import device as devices
from raynas.architecture import Architecture
from raynas.calibration import Statistics
from raynas.config import EvaluationSettings
from raynas.depthwise import accelerate
from raynas.evaluation import REJECTED, SCORES, Evaluation, failed
from raynas.fine_tuning import fine_tuned
from raynas.fitted_head import features, fit_head
from raynas.members import load_member
from raynas.scoring_images import ScoringImages
from raynas.space import SearchSpace
from raynas.supernet import Supernet


class Costs:
    """The costs of a space's networks by name, and the limits that reject a candidate before it is scored."""

    def __init__(
        self,
        names: Sequence[str],
        limits: Mapping[str, float],
        supernet: Supernet,
        image_shape_CHW: tuple[int, int, int],
    ) -> None:
        self.names = tuple(names)
        self.limits = dict(limits)
        self.known: dict[Architecture, tuple[float, ...]] = {}
        self.predictors: dict[str, Callable[[Architecture], float]] = {
            name: load_member("raynas.costs", name)(supernet, image_shape_CHW) for name in self.names
        }

    def of(self, architecture: Architecture) -> tuple[float, ...]:
        """The costs of one architecture, in the order of `names`."""
        if architecture not in self.known:
            self.known[architecture] = tuple(float(self.predictors[name](architecture)) for name in self.names)
        return self.known[architecture]

    def violation(self, costs: Sequence[float]) -> str | None:
        """Which limit these costs break, in words; None if they keep all."""
        for name, cost in zip(self.names, costs, strict=True):
            if cost > self.limits.get(name, math.inf):
                return f"{REJECTED} {name} {cost:g} > {self.limits[name]:g}"
        return None


class SupernetEvaluator:
    """Evaluates architectures with one supernet's weights; the weights are read, never written.

    A score is a pure function of (weights, canonical architecture, images): isomorphic architectures are scored as
    their one canonical form, or as the best of several keys (`settings.keys`): each has weights of its own, and the
    network is no worse than any of them. What a candidate gets of its own (fine-tuned weights, BatchNorm statistics,
    classifier) lives as long as its scoring.
    """

    def __init__(
        self,
        *,
        supernet: Supernet,
        space: SearchSpace,
        images: ScoringImages,
        settings: EvaluationSettings,
        costs: Costs,
        device: torch.device,
    ) -> None:
        self.device = device
        self.supernet = supernet.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.canonicalise = space.canonicalise
        self.synonyms = space.synonyms if settings.keys > 1 else None
        self.images = images
        self.classifiers = self.supernet.classifiers if images.head else []
        self.settings = settings
        self.costs = costs
        self.objectives = (*SCORES, *costs.names)
        if images.fine_tuning:
            accelerate(self.supernet, device)

    def evaluate(self, architectures: Sequence[Architecture]) -> Iterator[Evaluation]:
        """One evaluation per architecture: loss, error in 0..1, and the costs; or why there is none."""
        for architecture in architectures:
            yield self.evaluate_one(architecture)

    def evaluate_one(self, architecture: Architecture) -> Evaluation:
        """Score one architecture; whatever goes wrong with it becomes the evaluation's failure."""
        try:
            costs = self.costs.of(self.canonicalise(architecture))
            if (violation := self.costs.violation(costs)) is not None:
                return Evaluation(architecture, (), violation)
        except Exception as fault:  # a user's own cost may raise anything; the search goes on without this candidate
            return failed(architecture, fault)
        measured = self.measure(architecture)
        return replace(measured, objectives=(*measured.objectives, *costs)) if measured.objectives else measured

    def measure(self, architecture: Architecture) -> Evaluation:
        """Loss and error alone, whatever the limits: also of what is no candidate, such as reference architectures."""
        try:
            scores = [self.score(key) for key in self._keys(architecture)]
            by = SCORES.index(self.settings.score)
            loss, error = min(scores, key=lambda found: (math.isnan(found[0]), found[by], found))
        except Exception as fault:  # and so may a user's own network
            return failed(architecture, fault)
        if not math.isfinite(loss):
            return Evaluation(architecture, (), f"the loss is {loss}")
        return Evaluation(architecture, (loss, error))

    def _keys(self, architecture: Architecture) -> Sequence[Architecture]:
        canonical = self.canonicalise(architecture)
        return self.synonyms(canonical)[: self.settings.keys] if self.synonyms else [canonical]

    @torch.no_grad()
    def score(self, architecture: Architecture) -> tuple[float, float]:
        """Mean cross-entropy and error rate over the images that are scored on."""
        path, statistics = self._path(architecture), Statistics()
        with devices.autocast(self.device, self.settings.precision):
            with statistics.recorded():
                for images_NCHW in self.images.calibration:
                    path(images_NCHW)
            with statistics.used() if self.images.calibration else contextlib.nullcontext():
                logits = self._logits(path)
        loss = torch.zeros((), dtype=torch.float64)
        wrong, images = 0, 0
        for logits_NK, (_, labels_N) in zip(logits, self.images.scored, strict=True):
            loss += functional.cross_entropy(logits_NK, labels_N, reduction="sum").double().cpu()
            wrong += int((logits_NK.argmax(1) != labels_N).sum())
            images += len(labels_N)
        return float(loss) / images, wrong / images

    def _path(self, architecture: Architecture) -> Callable[[Tensor], Tensor]:
        """The path with the shared weights, or with its own after fine-tuning: images (N, C, H, W) -> logits (N, K)."""
        if not self.images.fine_tuning:
            return lambda images_NCHW: self.supernet(images_NCHW, architecture)
        weights = fine_tuned(
            self.supernet,
            architecture,
            self.images.fine_tuning,
            self.settings.fine_tune_learning_rate,
            self.settings.precision,
        )
        return lambda images_NCHW: functional_call(self.supernet, weights, (images_NCHW, architecture))

    def _logits(self, path: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """The path's logits (N, K) of each batch that is scored, by the shared classifier or one fitted to the path."""
        images = self.images
        if not self.classifiers:
            return [path(images_NCHW).float() for images_NCHW, _ in images.scored]
        known_NF = torch.cat([features(path, images_NCHW, self.classifiers) for images_NCHW, _ in images.head])
        labels_N = torch.cat([labels_N for _, labels_N in images.head])
        head = fit_head(known_NF, labels_N, images.classes, self.settings.head_l2)
        return [head(features(path, images_NCHW, self.classifiers)) for images_NCHW, _ in images.scored]
