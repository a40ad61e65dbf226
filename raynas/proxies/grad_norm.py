"""Gradient norm: how strongly the loss of a batch pulls at each layer's weights."""

import torch
from torch import Tensor, nn

from raynas.proxies._network import loss_gradients


def grad_norm(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """The sum over layers of the Euclidean norm of the gradient of the cross-entropy.

    Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. (ZenNAS's code takes one norm over all
    parameters instead, for random images and labels.)
    """
    del rng
    return float(sum(gradient.double().norm() for _, gradient in loss_gradients(network, images_NCHW, labels_N)))
