"""Datasets, one per file: `read(directory, resolution)` gives train and test chunks of images, and their labels.

Nothing heavy is imported before a dataset is read, so that listing them is immediate.
"""

from __future__ import annotations

from pathlib import Path

from raynas.errors import UserError
from raynas.members import family


def listing() -> dict[str, str]:
    """What may stand in `data.name`, and what it is, for `raynas list datasets`; imports no dataset."""
    own = "your function of no arguments: train images, train labels, test images, test labels; or a raynas Dataset"
    return {**family(__name__), "package.module:function": own}


def existing(kind: str, directory: str | None) -> Path:
    """The DIR of `kind:DIR`; raises UserError if none was given or it is no directory."""
    if not directory:
        raise UserError(f"the dataset {kind!r} needs a directory; write {kind}:DIR.")
    path = Path(directory).expanduser()
    if not path.is_dir():
        raise UserError(f"{kind}:{directory} needs a directory, but {path.absolute()} is none; check the path.")
    return path


def stands_alone(kind: str, directory: str | None) -> None:
    """Raises UserError if something follows the name of a dataset that takes nothing."""
    if directory is not None:
        raise UserError(f"the dataset {kind!r} takes no directory, but got {directory!r}; write {kind} alone.")
