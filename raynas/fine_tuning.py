"""Child-specific fine-tuning before scoring: a few steps of SGD on a path's own copy of its shared weights.

Zhang et al., "Deeper Insights into Weight Sharing in Neural Architecture Search", 2020 (arXiv:2001.01431), section 4:
about five mini-batches repair most of what other paths did to a child's weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from raynas import device as devices
from raynas.architecture import Architecture
from raynas.config import Precision
from raynas.supernet import Supernet, touched

GRADIENT_CLIP = 5.0
"""As in training: a path that other paths have left badly off may have huge gradients."""


def fine_tuned(
    supernet: Supernet,
    architecture: Architecture,
    batches: Sequence[tuple[Tensor, Tensor]],
    learning_rate: float,
    precision: Precision = "auto",
) -> dict[str, Tensor]:
    """The path's weights, by their names in the supernet, after a step on each of these images and labels.

    The supernet is left as it is: `functional_call(supernet, weights, (images_NCHW, architecture))` runs the path with
    them. The steps are plain SGD, as momentum has no time to build up, on the cross-entropy without smoothing; what the
    paper's own steps were is not in the sources we reached.
    """
    on_path = set(touched(supernet.owners(), [architecture]))
    weights = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in supernet.named_parameters()
        if parameter in on_path
    }
    leaves = list(weights.values())
    optimizer = torch.optim.SGD(leaves, lr=learning_rate)
    with torch.enable_grad():
        for images_NCHW, labels_N in batches:
            optimizer.zero_grad(set_to_none=True)
            with devices.autocast(images_NCHW.device, precision):
                logits_NK = functional_call(supernet, weights, (images_NCHW, architecture))
            loss = functional.cross_entropy(logits_NK.float(), labels_N)
            loss.backward(inputs=leaves)  # type: ignore[no-untyped-call]  # nothing reaches the supernet's own
            torch.nn.utils.clip_grad_norm_(leaves, GRADIENT_CLIP)
            optimizer.step()
    return {name: weight.detach() for name, weight in weights.items()}
