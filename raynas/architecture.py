"""An architecture: one choice index per choice block."""

from typing import TypeAlias

Architecture: TypeAlias = tuple[int, ...]
"""The index of the choice taken at each block, shape (B,): hashable, JSON, a few bytes."""


def encode(architecture: Architecture) -> str:
    """Write an architecture as `0-3-1`, the form that every space understands."""
    return "-".join(map(str, architecture))


def decode(text: str) -> Architecture:
    """Read what `encode` wrote; raises ValueError for anything else."""
    parts = text.strip().split("-")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"expected choice indices such as 0-3-1, but got {text!r}.")
    return tuple(map(int, parts))
