"""Whose faults are whose: of a candidate, of the device that it ran on, or of what the user asked for."""

from __future__ import annotations

import pytest
import torch

from raynas.errors import UserError, breaks_process, lacks_memory, raise_mistake_of_user


class AcceleratorError(RuntimeError):
    """As torch's, which cannot be made by hand."""


@pytest.mark.parametrize(
    ("fault", "lacks", "breaks"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True, False),
        (AcceleratorError("CUDA error: out of memory"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True, False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True, False),
        (AcceleratorError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("shapes do not match"), False, False),
        (RuntimeError("Overflow when unpacking long long"), False, False),  # a seed of the user's, beyond 64 bits
        (TypeError("full(): argument 'fill_value': Overflow when unpacking long long"), False, False),
        (ValueError("out of memory"), False, False),
    ],
    ids=str,
)
def test_want_of_memory_is_no_broken_device(fault: Exception, lacks: bool, breaks: bool) -> None:
    assert (lacks_memory(fault), breaks_process(fault)) == (lacks, breaks)


@pytest.mark.parametrize("channels", [10**10, 10**15, 10**20])
def test_a_network_too_large_for_memory_is_told_in_one_line(channels: int) -> None:
    with pytest.raises((RuntimeError, TypeError)) as fault:
        torch.nn.Conv2d(channels, channels, 3)
    with pytest.raises(
        UserError, match=r"^building it: expected what fits into memory, but [^\n]*; make it smaller\.$"
    ):
        raise_mistake_of_user("building it", fault.value)
