"""package.module:function, the user's own data."""

from __future__ import annotations

import traceback
from typing import Any

from raynas.data import Dataset
from raynas.datasets import listing
from raynas.errors import UserError, closest
from raynas.images import Raw, from_arrays
from raynas.members import load_module


def read(path: str, function: str, resolution: int | None) -> Raw | Dataset:
    """Call the function; raises UserError if it is not there, fails, or returns something else."""
    name = f"{path}:{function}"
    made = _call(name, path, function)
    if isinstance(made, Dataset):
        return made
    if not isinstance(made, list | tuple) or len(made) != 4:
        came = f"{len(made)} values" if isinstance(made, list | tuple) else type(made).__name__
        raise UserError(
            f"{name} must return train images, train labels, test images and test labels, or a raynas Dataset, but "
            f"returned {came}; see raynas.data.load."
        )
    train, train_labels_N, test, test_labels_N = made
    train, test = from_arrays(train, f"{name} train", resolution), from_arrays(test, f"{name} test", resolution)
    return train, train_labels_N, test, test_labels_N


def _call(name: str, path: str, function: str) -> Any:
    try:
        module = load_module(path, "dataset", "raynas.datasets")
    except UserError as mistake:
        if mistake.__cause__ is not None:  # it is there, and has a fault
            raise
        raise UserError(f"unknown dataset {name!r}: no module {path!r} here; {closest(path, listing())}") from None
    if not callable(make := getattr(module, function, None)):
        names = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == path]
        raise UserError(f"{path} holds no function {function!r}; {closest(function, names)}")
    try:
        return make()
    except UserError:
        raise
    except Exception as fault:
        where = traceback.extract_tb(fault.__traceback__)[-1]
        reason = f"{type(fault).__name__}: {fault}".splitlines()[0]
        raise UserError(f"{name} failed at {where.filename}:{where.lineno} with {reason}; mend it.") from fault
