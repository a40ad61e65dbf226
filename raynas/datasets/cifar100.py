"""CIFAR-100, 32x32, 100 classes; downloaded once to $RAYNAS_DATA or ~/.cache/raynas."""

from __future__ import annotations

from torchvision.datasets import CIFAR100

from raynas.datasets import stands_alone
from raynas.datasets.cifar10 import download
from raynas.images import Raw


def read(directory: str | None, resolution: int | None) -> Raw:
    """The 50,000 training and 10,000 test images; raises UserError where they cannot be downloaded or read."""
    stands_alone("cifar100", directory)
    return download(CIFAR100, resolution)
