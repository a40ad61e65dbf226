"""Scores from a supernet's weights: loss and error of a path on validation or training images, and its costs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from raynas import device as devices
from raynas import seeds
from raynas.architecture import Architecture
from raynas.augmentation import Augmenter
from raynas.batches import SparseBatches
from raynas.calibration import Statistics
from raynas.config import DataSettings, EvaluationSettings
from raynas.data import Split
from raynas.depthwise import accelerate
from raynas.evaluation import REJECTED, SCORES, Evaluation, failed
from raynas.fine_tuning import fine_tuned
from raynas.fitted_head import features, fit_head
from raynas.members import load_member
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

    A score is a pure function of (weights, canonical architecture, images, seed): the images and their batches are
    drawn once from the seed, and isomorphic architectures are scored as their one canonical form. What a candidate
    gets of its own (fine-tuned weights, BatchNorm statistics, classifier) lives as long as its scoring.
    """

    def __init__(
        self,
        *,
        supernet: Supernet,
        canonicalise: Callable[[Architecture], Architecture],
        split: Split,
        data: DataSettings,
        settings: EvaluationSettings,
        costs: Costs,
        seed: int,
        device: torch.device,
    ) -> None:
        self.device = device
        self.supernet = supernet.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.canonicalise = canonicalise
        self.settings = settings
        self.costs = costs
        self.objectives = (*SCORES, *costs.names)
        augmenter = Augmenter(split, data, device)
        train = SparseBatches(split.dataset, split.train_rows_N, augmenter, device)
        validation = SparseBatches(split.dataset, split.validation_rows_N, augmenter, device)
        scored = train if settings.scored_on == "train" else validation
        self.batches = [
            scored.plain(rows)
            for rows in _batches(len(scored), settings.images, settings.batch_size, seeds.generator(seed, "score"))
        ]
        self.fine_tuning = [
            train.augmented(step, settings.fine_tune_batch_size, seed, "fine_tuning")
            for step in range(settings.fine_tune_steps)
        ]
        if self.fine_tuning:
            accelerate(self.supernet, device)
        self.classes = split.dataset.classes
        self.classifiers: list[nn.Module] = []
        if settings.head == "fitted":
            self.classifiers = self.supernet.classifiers
            rng = seeds.generator(seed, "head")
            rows_of = _batches(len(train), settings.head_images, settings.batch_size, rng)
            self.head_batches = [train.plain(rows) for rows in rows_of]
        self.calibration: list[Tensor] = []
        if settings.batch_norm == "recalibrated":
            rng = seeds.generator(seed, "calibration")
            rows_of = _batches(len(train), settings.calibration_images, settings.batch_size, rng)
            self.calibration = [train.plain(rows)[0] for rows in rows_of]

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
            loss, error = self.score(self.canonicalise(architecture))
        except Exception as fault:  # and so may a user's own network
            return failed(architecture, fault)
        if not math.isfinite(loss):
            return Evaluation(architecture, (), f"the loss is {loss}")
        return Evaluation(architecture, (loss, error))

    @torch.no_grad()
    def score(self, architecture: Architecture) -> tuple[float, float]:
        """Mean cross-entropy and error rate over the images that are scored on."""
        path, statistics = self._path(architecture), Statistics()
        with devices.autocast(self.device):
            with statistics.recorded():
                for images_NCHW in self.calibration:
                    path(images_NCHW)
            with statistics.used() if self.calibration else contextlib.nullcontext():
                logits = self._logits(path)
        loss = torch.zeros((), dtype=torch.float64)
        wrong, images = 0, 0
        for logits_NK, (_, labels_N) in zip(logits, self.batches, strict=True):
            loss += functional.cross_entropy(logits_NK, labels_N, reduction="sum").double().cpu()
            wrong += int((logits_NK.argmax(1) != labels_N).sum())
            images += len(labels_N)
        return float(loss) / images, wrong / images

    def _path(self, architecture: Architecture) -> Callable[[Tensor], Tensor]:
        """The path with the shared weights, or with its own after fine-tuning: images (N, C, H, W) -> logits (N, K)."""
        if not self.fine_tuning:
            return lambda images_NCHW: self.supernet(images_NCHW, architecture)
        weights = fine_tuned(self.supernet, architecture, self.fine_tuning, self.settings.fine_tune_learning_rate)
        return lambda images_NCHW: functional_call(self.supernet, weights, (images_NCHW, architecture))

    def _logits(self, path: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """The path's logits (N, K) of each batch that is scored, by the shared classifier or one fitted to the path."""
        if not self.classifiers:
            return [path(images_NCHW).float() for images_NCHW, _ in self.batches]
        known_NF = torch.cat([features(path, images_NCHW, self.classifiers) for images_NCHW, _ in self.head_batches])
        labels_N = torch.cat([labels_N for _, labels_N in self.head_batches])
        head = fit_head(known_NF, labels_N, self.classes, self.settings.head_l2)
        return [head(features(path, images_NCHW, self.classifiers)) for images_NCHW, _ in self.batches]


def _batches(count: int, images: int, batch_size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Positions of `images` (at most `count`) drawn images, in batches of nearly equal size."""
    positions_N = rng.permutation(count)[:images]
    return np.array_split(positions_N, math.ceil(len(positions_N) / batch_size))
