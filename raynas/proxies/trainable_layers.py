"""Trainable layers: how many convolutions and linear layers a network has."""

import torch
from torch import Tensor, nn

from raynas.proxies._network import layers


def trainable_layers(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """The baseline of Tybl and Neumann, "Training-free Neural Architecture Search through Variance of Knowledge of Deep
    Network Weights", CVPR 2025.

    Their code counts tensors of parameters, which on NAS-Bench-201 orders networks the same.
    """
    del images_NCHW, labels_N, rng
    return float(len(layers(network)))
