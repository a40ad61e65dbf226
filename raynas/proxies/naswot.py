"""NASWOT: how differently the images of a batch switch the network's ReLUs on and off."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from raynas.proxies._network import ACTIVATIONS, Intercepted, own_copy

LEAST = 1e-6
"""What an eigenvalue counts for at least: those of images with one code between them are zero, but for rounding."""


def naswot(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """The log-determinant of the kernel of how many units two images have in the same state.

    Mellor et al., "Neural Architecture Search without Training", ICML 2021. A unit is an entry of what goes into an
    activation, on if it is above zero; smooth activations are taken alike.
    """
    del labels_N, rng
    kernel_NN = torch.zeros(len(images_NCHW), len(images_NCHW), dtype=torch.float64)

    def count(name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        if name in ACTIVATIONS:
            signs_NU = (arguments[0].flatten(1) > 0).float() * 2 - 1
            kernel_NN.add_(((signs_NU @ signs_NU.T).double() + signs_NU.shape[1]).cpu() / 2)
        return call()

    with torch.no_grad(), Intercepted(count):
        own_copy(network)(images_NCHW)
    return float(torch.linalg.eigvalsh(kernel_NN).clamp_min(LEAST).log().sum())
