"""Batches of some labelled images as a network takes them: on its device, augmented, normalised, channels-last."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raynas import seeds
from raynas.augmentation import Augmenter
from raynas.data import Dataset, batch_indices

EVERY_ROW = slice(None)


class Batches:
    """uint8 images (N, C, H, W) and labels (N,) on a device; a training batch is a function of (seed, stream, step)."""

    def __init__(self, images_NCHW: Tensor, labels_N: Tensor, augmenter: Augmenter, device: torch.device) -> None:
        self.images_NCHW = images_NCHW.to(device)
        self.labels_N = labels_N.to(device)
        self.augmenter = augmenter
        self.device = device

    def __len__(self) -> int:
        return len(self.labels_N)

    def augmented(
        self, step: int, batch_size: int, seed: int, stream: str, rows: slice = EVERY_ROW
    ) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) and labels (N,) of a training step, or those `rows` of the step's batch.

        Which images, and how each is augmented, does not depend on `rows`: replicas take theirs of one joined batch.
        """
        positions_N = batch_indices(len(self), batch_size, step, seed, stream)[rows]
        draws = self.augmenter.draw(seeds.generator(seed, "augmentation", stream, step), batch_size)[rows]
        images_NCHW, labels_N = self._take(positions_N)
        return self.augmenter(images_NCHW, draws), labels_N

    def plain(self, positions_N: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W), normalised only, and labels (N,) at these positions."""
        images_NCHW, labels_N = self._take(positions_N)
        return self.augmenter(images_NCHW), labels_N

    def _take(self, positions_N: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        rows_N = torch.from_numpy(positions_N).to(self.device)
        return self.images_NCHW.index_select(0, rows_N), self.labels_N.index_select(0, rows_N)


class SparseBatches(Batches):
    """The same of a dataset's training images at these rows, for who looks at few: only those go to the device."""

    def __init__(self, dataset: Dataset, rows_N: NDArray[np.int64], augmenter: Augmenter, device: torch.device) -> None:
        self.dataset = dataset
        self.rows_N = rows_N
        self.augmenter = augmenter
        self.device = device

    def __len__(self) -> int:
        return len(self.rows_N)

    def _take(self, positions_N: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        rows_N = torch.from_numpy(self.rows_N[positions_N])
        images_NCHW = self.dataset.train_images_NCHW.index_select(0, rows_N)
        return images_NCHW.to(self.device), self.dataset.train_labels_N.index_select(0, rows_N).to(self.device)
