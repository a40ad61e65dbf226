"""CIFAR-10, 32x32, 10 classes; downloaded once to $RAYNAS_DATA or ~/.cache/raynas."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10

from raynas.datasets import stands_alone
from raynas.errors import UserError
from raynas.images import Raw, from_arrays


def read(directory: str | None, resolution: int | None) -> Raw:
    """The 50,000 training and 10,000 test images; raises UserError where they cannot be downloaded or read."""
    stands_alone("cifar10", directory)
    return download(CIFAR10, resolution)


def download(source: Any, resolution: int | None) -> Raw:
    """Both parts of a torchvision dataset that has `data` (N, H, W, C) and `targets`."""
    root = Path(os.environ.get("RAYNAS_DATA") or Path.home() / ".cache" / "raynas")
    try:
        root.mkdir(parents=True, exist_ok=True)
        train, test = (source(root, train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError, EOFError) as fault:  # no network, full disk; a download that fails its checksum
        reason = f"{type(fault).__name__}: {fault}".splitlines()[0]
        raise UserError(
            f"cannot get {source.__name__} from {source.url} into {root}: {reason}; connect, put {source.filename} "
            f"there, set RAYNAS_DATA to a folder that has it, or give --data parquet:DIR."
        ) from None
    images = (from_arrays(part.data, source.__name__, resolution) for part in (train, test))
    return next(images), np.asarray(train.targets), next(images), np.asarray(test.targets)
