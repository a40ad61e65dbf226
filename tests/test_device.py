"""A process is set up for its share of the machine."""

from __future__ import annotations

import pytest
import torch

from raynas.device import full_precision, prepare
from raynas.errors import UserError


@pytest.fixture(autouse=True)
def own_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags as torch has them, set back afterwards."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)


def test_cudnn_is_deterministic_on_a_gpu_that_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert prepare(1, 0.5) == torch.device("cuda")
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark


def test_a_gpu_that_torch_does_not_see_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="1 GPUs were granted, but torch sees none"):
        prepare(1, 1)


def test_full_precision_is_given_back_also_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pytest.raises(KeyError), full_precision(torch.device("cpu")):
        assert not torch.backends.cudnn.allow_tf32
        raise KeyError
    assert torch.backends.cudnn.allow_tf32
