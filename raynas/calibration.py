"""BatchNorm statistics of one subnet, estimated from cached training images before it is scored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def recalibrate(network: nn.Module, batches_NCHW: Sequence[Tensor]) -> None:
    """Replace the running mean and variance of every BatchNorm2d by the plain average over these batches.

    `momentum=None` makes the average cumulative; with a momentum of 0.1 it would reflect the last batches only. The
    network must be the caller's own copy (a subnet): a supernet has no such statistics, so none leak to the next path.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    network.train()
    for images_NCHW in batches_NCHW:
        network(images_NCHW)
    network.eval()
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
