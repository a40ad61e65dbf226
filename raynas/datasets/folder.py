"""folder:DIR, images in DIR/train/CLASS/ and DIR/test/CLASS/ (JPEG, PNG ...); classes in alphabetical order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import ImageFolder

from raynas.datasets import existing
from raynas.errors import UserError
from raynas.images import Raw, decode


def read(directory: str | None, resolution: int | None) -> Raw:
    """Both parts; raises UserError for a missing part, a class without images, or classes that differ."""
    root = existing("folder", directory)
    train, test = (_part(root / name) for name in ("train", "test"))
    if train.classes != test.classes:
        difference = ", ".join(sorted(set(train.classes) ^ set(test.classes)))
        raise UserError(f"{root}: train and test must hold the same classes, but only one of them holds {difference}.")
    chunks = (decode([Path(path) for path, _ in part.samples], _names(part), resolution) for part in (train, test))
    return next(chunks), np.asarray(train.targets), next(chunks), np.asarray(test.targets)


def _part(folder: Path) -> ImageFolder:
    if not folder.is_dir():
        raise UserError(f"expected a folder {folder} with one folder of images per class; make it, or check the path.")
    try:
        return ImageFolder(folder)
    except (FileNotFoundError, PermissionError) as fault:
        reason = str(fault).splitlines()[0]
        raise UserError(f"expected one folder of images per class in {folder}: {reason}") from None


def _names(part: ImageFolder) -> list[str]:
    return [path for path, _ in part.samples]
