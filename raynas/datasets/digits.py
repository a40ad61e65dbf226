"""scikit-learn's 1,797 handwritten digits, 8x8 grey, 10 classes; comes with the installation."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from raynas import seeds
from raynas.data import stratified
from raynas.datasets import stands_alone
from raynas.images import Raw, from_arrays

TEST_FRACTION = 0.2


def read(directory: str | None, resolution: int | None) -> Raw:
    """The digits with a test part of a fifth, stratified, the same in every run: the source has no split of its own."""
    stands_alone("digits", directory)
    values_NP, labels_N = load_digits(return_X_y=True)
    images_NHW = np.rint(values_NP.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # the source counts 0..16
    train_N, test_N = stratified(labels_N, TEST_FRACTION, seeds.generator(0, "digits"))
    train, test = (from_arrays(images_NHW[rows_N], "digits", resolution) for rows_N in (train_N, test_N))
    return train, labels_N[train_N], test, labels_N[test_N]
