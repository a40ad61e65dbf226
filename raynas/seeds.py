"""Every random draw of a run comes from a generator made here, out of the run's one seed and the draw's own name."""

import zlib

import numpy as np


def entropy(seed: int, *names: str | int) -> list[int]:
    """The words that seed one stream: equal names give equal draws, in any process and in any order."""
    return [seed, *(zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names)]


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A generator of its own for the draws called `names`, e.g. `generator(seed, "paths", step)`.

    Counting instead of saving: the draws of step 1,000 need no state of the 999 before it, so a resumed run draws
    what an undisturbed one would have drawn.
    """
    return np.random.default_rng(entropy(seed, *names))


def integer(seed: int, *names: str | int) -> int:
    """A seed below 2**63 for libraries that take a number (torch, Optuna's samplers take it modulo 2**32)."""
    return int(np.random.SeedSequence(entropy(seed, *names)).generate_state(1, np.uint64)[0] >> np.uint64(1))
