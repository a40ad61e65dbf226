"""AZ-NAS's expressivity: in how many directions the features behind each block vary."""

import torch
from torch import Tensor, nn

from raynas.proxies._features import entropies


def expressivity(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """The sum over blocks of the entropy of their features' principal components, for Gaussian images.

    Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024.
    """
    del labels_N
    return float(sum(entropies(network, torch.randn(images_NCHW.shape, generator=rng).to(images_NCHW))))
