"""Setting a process up for its share of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

import torch

from raynas.config import Precision
from raynas.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def prepare(cpus: float, gpus: float = 0.0) -> torch.device:
    """Use what the actor was granted: its number of threads, and its GPU if it asked for one.

    Raises UserError if a GPU was granted and torch has none. Ray starts every worker with one OpenMP thread. Denormals
    are flushed, since dead paths of a deep supernet make so many of them that a step takes several times as long.
    Freed memory is kept for the next step. cuDNN takes only kernels whose sums have a fixed order: what is trained
    again is to come out the same.
    """
    torch.set_num_threads(max(1, int(cpus)))
    torch.set_flush_denormal(True)
    _keep_freed_memory()
    if gpus > 0 and not torch.cuda.is_available():
        raise UserError(
            f"{gpus:g} GPUs were granted, but torch sees none on {platform.node()}; install a torch with CUDA there, "
            "or set the gpus_per_... settings to 0."
        )
    if gpus > 0:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return torch.device("cuda" if gpus > 0 else "cpu")


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Neither bfloat16 nor cuDNN's TF32 in it: for differences of passes that are nearly the same."""
    convolutions = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions


def _keep_freed_memory() -> None:
    """Have glibc reuse a step's buffers: to ask the system for them again took 4 to 9 % of a step's CPU time."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)  # bytes from which a buffer gets pages of its own
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)  # free bytes above which pages are returned


def autocast(device: torch.device, precision: Precision = "auto") -> contextlib.AbstractContextManager[object]:
    """What convolutions and matrices are multiplied in; weights and their moments stay in full precision.

    auto: bfloat16 where CUDA multiplies it faster (from Ampere on), elsewhere full precision. CPUs are not asked, lest
    a run come out otherwise on another one: those with AMX gain by bfloat16, those without lose.
    """
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if fast else "float32"
    if precision == "float32":
        return contextlib.nullcontext()
    # older torch gives a cast that was cached without gradients to a pass with them: PARSEC has both in a step
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
