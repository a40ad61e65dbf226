"""Batches that keep all images on their device, and those that take few there, are the same."""

from __future__ import annotations

import numpy as np
import torch

from raynas.augmentation import Augmenter
from raynas.batches import Batches, SparseBatches
from raynas.data import load, split
from tests.helpers import small_config


def test_sparse_batches_are_the_batches_of_their_part_of_the_dataset() -> None:
    digits, device = split(load("digits"), 0.25, seed=0), torch.device("cpu")
    augmenter = Augmenter(digits, small_config(data={"crop_padding": 1, "flip": True}).data, device)
    for images_NCHW, labels_N, rows_N in (
        (digits.train_images_NCHW, digits.train_labels_N, digits.train_rows_N),
        (digits.validation_images_NCHW, digits.validation_labels_N, digits.validation_rows_N),
    ):
        whole = Batches(images_NCHW, labels_N, augmenter, device)
        sparse = SparseBatches(digits.dataset, rows_N, augmenter, device)
        assert len(sparse) == len(whole)
        positions_N = np.array([3, 0, len(whole) - 1, 7])
        pairs = [*zip(sparse.plain(positions_N), whole.plain(positions_N), strict=True)]
        pairs += zip(sparse.augmented(2, 16, 0, "some"), whole.augmented(2, 16, 0, "some"), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
