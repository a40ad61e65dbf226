"""ZiCo: gradients that are large and alike from batch to batch, in every layer."""

import torch
from torch import Tensor, nn

from raynas.proxies._network import loss_gradients

BATCHES = 2
"""Into which the images are divided; the paper's own number."""


def zico(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """The sum over layers of log(sum over weights of mean |gradient| / standard deviation of the gradient).

    Li et al., "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients", ICLR 2023; both over batches,
    which are the two halves of the images. Weights whose gradient does not vary, and layers of such weights, are left
    out, as in the authors' code. Raises ValueError for fewer than four images: BatchNorm takes two.
    """
    del rng
    if len(images_NCHW) < 2 * BATCHES:
        raise ValueError(f"expected at least {2 * BATCHES} images, but got {len(images_NCHW)}; raise their number.")
    batches = [
        loss_gradients(network, *batch)
        for batch in zip(images_NCHW.chunk(BATCHES), labels_N.chunk(BATCHES), strict=True)
    ]
    score = 0.0
    for of_layer in zip(*batches, strict=True):
        gradients_BW = torch.stack([gradient.flatten() for _, gradient in of_layer]).double()
        deviation_W = gradients_BW.std(0, correction=0)
        ratios_W = (gradients_BW.abs().mean(0) / deviation_W)[deviation_W > 0]
        score += float(ratios_W.sum().log()) if len(ratios_W) else 0.0
    return score
