"""SNIP: how much the loss of a batch would change without each single weight."""

import torch
from torch import Tensor, nn

from raynas.proxies._network import loss_gradients


def snip(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """The sum of |weight * gradient of the cross-entropy| over all layers.

    Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019; as a proxy:
    Abdelfattah et al., ICLR 2021.
    """
    del rng
    gradients = loss_gradients(network, images_NCHW, labels_N)
    return float(sum((weight * gradient).abs().double().sum() for weight, gradient in gradients))
