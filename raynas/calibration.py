"""BatchNorm statistics of one path, estimated from training images and kept beside the supernet, not in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

Normalise: TypeAlias = Callable[[nn.Module, Tensor, float], Tensor]
"""How a layer normalises its inputs (N, C, H, W), given its eps."""

normalise: ContextVar[Normalise | None] = ContextVar("normalise", default=None)
"""What a supernet's BatchNorm does inside one of the blocks below; None: it uses the batch at hand."""


class Statistics:
    """Mean and variance of each BatchNorm layer that a path runs through.

    They are the plain average over the calls of a layer, of the batch's mean and unbiased variance, as those of a
    subnet's BatchNorm2d with `momentum=None` (with a momentum of 0.1 they would reflect the last batches only). A layer
    that a path runs through several times averages over all these calls; one that cuts its channels to the path's width
    has statistics for each width.
    """

    def __init__(self) -> None:
        self.layers: dict[tuple[nn.Module, int], tuple[Tensor, Tensor]] = {}
        self.calls: dict[tuple[nn.Module, int], int] = {}

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Inside, a path uses the batch's statistics, and they are averaged here."""
        with _within(self._record):
            yield

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Inside, a path uses these statistics, whatever the batch; it must be the one that was recorded."""
        with _within(self._use):
            yield

    def _record(self, layer: nn.Module, inputs_NCHW: Tensor, eps: float) -> Tensor:
        key = layer, inputs_NCHW.shape[1]
        if key not in self.layers:
            zeros_C = torch.zeros(key[1], device=inputs_NCHW.device)
            self.layers[key] = zeros_C, torch.zeros_like(zeros_C)
        calls = self.calls[key] = self.calls.get(key, 0) + 1
        return functional.batch_norm(inputs_NCHW, *self.layers[key], training=True, momentum=1 / calls, eps=eps)

    def _use(self, layer: nn.Module, inputs_NCHW: Tensor, eps: float) -> Tensor:
        if (known := self.layers.get((layer, inputs_NCHW.shape[1]))) is None:
            raise RuntimeError("expected the path whose statistics were recorded, but got another; record this one.")
        return functional.batch_norm(inputs_NCHW, *known, training=False, eps=eps)


@contextlib.contextmanager
def _within(how: Normalise) -> Iterator[None]:
    token = normalise.set(how)
    try:
        yield
    finally:
        normalise.reset(token)
