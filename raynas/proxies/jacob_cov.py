"""Jacobian covariance: how little the network's derivatives at different images resemble each other."""

import torch
from torch import Tensor, nn

from raynas.proxies._network import own_copy

K = 1e-5
"""Mellor et al.'s k, which keeps the logarithm and the reciprocal finite."""


def jacob_cov(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """-sum(log(v + k) + 1 / (v + k)) over the eigenvalues v of the correlations of d(sum of logits) / d(image).

    Mellor et al., "Neural Architecture Search without Training", first version (arXiv:2006.04647v1); called
    jacob_cov by Abdelfattah et al., ICLR 2021. Derivatives that do not vary count as equal.
    """
    del labels_N, rng
    images_NCHW = images_NCHW.detach().clone().requires_grad_()
    logits_NK = own_copy(network)(images_NCHW)
    (jacobians_NCHW,) = torch.autograd.grad(logits_NK.sum(), images_NCHW, allow_unused=True, materialize_grads=True)
    correlations_NN = torch.corrcoef(jacobians_NCHW.flatten(1).double()).nan_to_num(nan=1.0)
    eigenvalues_N = torch.linalg.eigvalsh(correlations_NN).clamp_min(0) + K
    return float(-(eigenvalues_N.log() + 1 / eigenvalues_N).sum())
