"""Zen-Score: how strongly the features of random images move when the images do, without BatchNorm's levelling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from raynas.proxies._network import Intercepted, layers, own_copy

PERTURBATION = 0.01
"""The paper's alpha."""
LEAST = torch.finfo(torch.float32).tiny
"""Of the difference: what no image moves has a score all the same."""


def zen(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """log of the mean |f(x + alpha x') - f(x)| + the sum over BatchNorm layers of log of their inputs' deviation.

    Lin et al., "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition", ICCV 2021, algorithm 1, one repeat: x
    and x' of the images' shape and all weights are drawn from N(0, 1); f are the features before the global pooling,
    or the logits where there is none. A deviation is the root of the mean variance over channels; layers that see
    nothing vary are left out.
    """
    del labels_N
    network = own_copy(network)
    for layer in layers(network):
        _draw(layer, rng)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0  # running_var is that of the pass
    first_NCHW, second_NCHW = (torch.randn(images_NCHW.shape, generator=rng).to(images_NCHW) for _ in range(2))
    with torch.no_grad():
        features = _before_pooling(network, first_NCHW)
        variances = [norm.running_var.mean() for norm in norms if norm.running_var is not None]
        moved = _before_pooling(network, first_NCHW + PERTURBATION * second_NCHW)
        difference = (features - moved).abs().flatten(1).sum(1).mean().double().clamp_min(LEAST).log()
        return float(difference + sum(variance.double().log() / 2 for variance in variances if variance > 0))


def _draw(layer: nn.Conv2d | nn.Linear, rng: torch.Generator) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=rng))
        if layer.bias is not None:
            layer.bias.zero_()


def _before_pooling(network: nn.Module, images_NCHW: Tensor) -> Tensor:
    """What the last global pooling is given; the logits where there is none."""
    pooled: list[Tensor] = []

    def note(name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        result = call()
        if name in ("mean", "adaptive_avg_pool2d") and arguments[0].dim() >= 3:
            pooled.append(arguments[0])
        return result

    with Intercepted(note):
        logits_NK: Tensor = network(images_NCHW)
    return pooled[-1] if pooled else logits_NK
