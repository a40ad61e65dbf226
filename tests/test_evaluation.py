"""Which faults are of a candidate, and which of the device that it ran on."""

from __future__ import annotations

import pytest
import torch

from raynas.evaluation import breaks_process, lacks_memory


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
        (ValueError("out of memory"), False, False),
    ],
    ids=str,
)
def test_want_of_memory_is_no_broken_device(fault: Exception, lacks: bool, breaks: bool) -> None:
    assert (lacks_memory(fault), breaks_process(fault)) == (lacks, breaks)
