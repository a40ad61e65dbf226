"""AZ-NAS's trainability: whether gradients keep their size from block to block."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from raynas.proxies._features import Features, block_features, by_position

EPS = 1e-6
"""Of the code of the authors: what is added to a spectral norm before its reciprocal is taken."""


def trainability(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """The mean over blocks of 2 - s - 1 / s, where s is the spectral norm of a block's Jacobian; 0 at best.

    Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024: the Jacobian is
    estimated, for Gaussian images, from a random sign at each of the block's outputs and what it is at the
    block's inputs. A block that passes on what it gets as it is has nothing to train: it counts, as one through which
    nothing passes, as s = 0 (minus infinity in the code of the authors). 0 where there is a single block.
    """
    del labels_N
    found = block_features(network, torch.randn(images_NCHW.shape, generator=rng).to(images_NCHW))
    scores = [_score(_spectral_norm(before, after, rng)) for before, after in pairwise(found)]
    return sum(scores) / len(scores) if scores else 0.0


def _score(norm: float) -> float:
    return 2 - norm - 1 / (norm + EPS)


def _spectral_norm(inputs: Features, outputs: Features, rng: torch.Generator) -> float:
    signs = [(torch.randint(0, 2, part.shape, generator=rng) * 2 - 1).to(part) for part in outputs]
    hanging = [(part, sign) for part, sign in zip(outputs, signs, strict=True) if part.requires_grad]
    if not hanging or not all(part.requires_grad for part in inputs):
        return 0.0
    gradients = torch.autograd.grad(
        [part for part, _ in hanging],
        inputs,
        [sign for _, sign in hanging],
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    after_PC, before_PC = by_position(tuple(signs)), by_position(_at_positions_of(outputs[0], gradients))
    if torch.equal(after_PC, before_PC):
        return 0.0
    return float(torch.linalg.matrix_norm((before_PC.T @ after_PC).double() / len(after_PC), ord=2))


def _at_positions_of(output: Tensor, gradients: Features) -> Features:
    """Maps of a larger height and width brought to the output's, their further positions as further channels."""
    if output.dim() != 4 or gradients[0].shape[2:] == output.shape[2:]:
        return gradients
    height, width = output.shape[2:]
    stride = max(-(-gradients[0].shape[2] // height), -(-gradients[0].shape[3] // width))
    down, right = (stride * side for side in (height, width))
    return tuple(
        functional.pixel_unshuffle(functional.pad(part, (0, right - part.shape[3], 0, down - part.shape[2])), stride)
        for part in gradients
    )
