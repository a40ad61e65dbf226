"""The images that supernets are scored on: drawn once from the seed, the same for every architecture and supernet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raynas import seeds
from raynas.augmentation import Augmenter
from raynas.batches import SparseBatches
from raynas.config import Config
from raynas.data import Split

Labelled: TypeAlias = tuple[Tensor, Tensor]
"""Images (N, C, H, W), normalised, and labels (N,)."""


@dataclass(frozen=True, slots=True)
class ScoringImages:
    """Batches on their device, which evaluators of many supernets share; empty where the settings ask for none.

    scored: what loss and error are measured on. fine_tuning: a batch for each step, augmented. head: what a candidate's
    own classifier is fitted to. calibration: images without labels, of which BatchNorm statistics are taken.
    """

    scored: Sequence[Labelled]
    fine_tuning: Sequence[Labelled]
    head: Sequence[Labelled]
    calibration: Sequence[Tensor]
    classes: int


def draw_images(split: Split, config: Config, device: torch.device) -> ScoringImages:
    """The images that the settings ask for; a pure function of the split, the settings and the run's seed."""
    settings, seed = config.evaluation, config.seed
    augmenter = Augmenter(split, config.data, device)
    train = SparseBatches(split.dataset, split.train_rows_N, augmenter, device)
    validation = SparseBatches(split.dataset, split.validation_rows_N, augmenter, device)

    def drawn(source: SparseBatches, images: int, stream: str) -> list[Labelled]:
        rows = _batches(len(source), images, settings.batch_size, seeds.generator(seed, stream))
        return [source.plain(positions_N) for positions_N in rows]

    return ScoringImages(
        scored=drawn(train if settings.scored_on == "train" else validation, settings.images, "score"),
        fine_tuning=[
            train.augmented(step, settings.fine_tune_batch_size, seed, "fine_tuning")
            for step in range(settings.fine_tune_steps)
        ],
        head=drawn(train, settings.head_images, "head") if settings.head == "fitted" else [],
        calibration=[images_NCHW for images_NCHW, _ in drawn(train, settings.calibration_images, "calibration")]
        if settings.batch_norm == "recalibrated"
        else [],
        classes=split.dataset.classes,
    )


def _batches(count: int, images: int, batch_size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Positions of `images` (at most `count`) drawn images, in batches of nearly equal size."""
    positions_N = rng.permutation(count)[:images]
    return np.array_split(positions_N, math.ceil(len(positions_N) / batch_size))
