"""AZ-NAS's progressivity: whether every block adds directions in which its features vary."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from raynas.proxies._features import entropies


def progressivity(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """The least rise of expressivity's entropy from one block to the next, for Gaussian images; 0 with a single block.

    Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024.
    """
    del labels_N
    found = entropies(network, torch.randn(images_NCHW.shape, generator=rng).to(images_NCHW))
    return min((after - before for before, after in pairwise(found)), default=0.0)
