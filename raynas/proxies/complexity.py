"""AZ-NAS's complexity: the MACs of an image; one of the four parts that its authors combine."""

import torch
from torch import Tensor, nn

from raynas.proxies.macs import macs


def complexity(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024."""
    return macs(network, images_NCHW, labels_N, rng=rng)
