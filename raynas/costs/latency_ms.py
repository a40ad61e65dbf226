"""Measured latency of the stand-alone network on the device that the supernet lies on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache

import torch

from raynas.architecture import Architecture
from raynas.supernet import Supernet


def latency_ms(
    supernet: Supernet,
    image_shape_CHW: tuple[int, int, int],
    *,
    batch_size: int = 1,
    warm_up: int = 3,
    repeats: int = 15,
) -> Callable[[Architecture], float]:
    """A function that measures, once per architecture, the median time in ms of a subnet's forward pass.

    batch_size: images a pass. warm_up, repeats: passes before the clock starts, and timed passes. A measurement, not a
    prediction: it differs between machines, and a little between runs.
    """

    def wait(device: torch.device) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a GPU returns before it has finished

    @cache
    def measure(architecture: Architecture) -> float:
        device = next(supernet.parameters()).device  # where it lies now, not where it lay before the first question
        noise = torch.Generator().manual_seed(0)
        images_NCHW = torch.randn(batch_size, *image_shape_CHW, generator=noise).to(device)
        subnet = supernet.subnet(architecture).eval()
        taken_ms = []
        with torch.inference_mode():
            for _ in range(warm_up + repeats):
                wait(device)
                start = time.perf_counter()
                subnet(images_NCHW)
                wait(device)
                taken_ms.append((time.perf_counter() - start) * 1e3)
        return statistics.median(taken_ms[warm_up:])

    return measure
