"""How far the choices of a block agree on where the shared weights should go: the cosine of their gradients.

Hu et al., "Generalizing Few-Shot NAS with Gradient Matching", ICLR 2022, section 3.2.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from raynas import device as devices
from raynas import seeds
from raynas.batches import Batches
from raynas.config import Precision
from raynas.depthwise import accelerate
from raynas.space import SearchSpace
from raynas.supernet import Supernet


def gradient_likeness(
    supernet: Supernet,
    space: SearchSpace,
    train: Batches,
    *,
    block: int,
    paths: int,
    batch_size: int,
    seed: int,
    precision: Precision = "auto",
) -> NDArray[np.float64]:
    """Cosine similarity of the choices' mean gradients on all weights that they share, shape (choices, choices).

    A choice's gradient is averaged over `paths` random paths through it, each on its own training batch. Paths and
    batches are the same for all choices: they differ in the choice alone. A choice without any gradient is unlike all.
    """
    accelerate(supernet, train.device)
    choices = len(space.blocks[block].choices)
    shared = [parameter for parameter, places in supernet.owners() if block not in dict(places)]
    mean_CP = torch.zeros(choices, sum(parameter.numel() for parameter in shared), device=shared[0].device)
    rng = seeds.generator(seed, "likeness", block)
    for number in range(paths):
        path = space.sample(rng)
        images_NCHW, labels_N = train.augmented(number, batch_size, seed, "likeness")
        for choice in range(choices):
            supernet.zero_grad(set_to_none=True)
            with devices.autocast(train.device, precision):
                logits_NK = supernet(images_NCHW, (*path[:block], choice, *path[block + 1 :]))
                functional.cross_entropy(logits_NK.float(), labels_N).backward()  # type: ignore[no-untyped-call]
            pieces = mean_CP[choice].split_with_sizes([parameter.numel() for parameter in shared])
            for parameter, piece in zip(shared, pieces, strict=True):
                if parameter.grad is not None:
                    piece += parameter.grad.reshape(-1) / paths
    supernet.zero_grad(set_to_none=True)
    unit_CP = functional.normalize(mean_CP, dim=1)
    likeness_CC: NDArray[np.float64] = (unit_CP @ unit_CP.T).double().cpu().numpy()
    np.fill_diagonal(likeness_CC, 1.0)
    return likeness_CC
