"""A classifier of a candidate's own: multinomial logistic regression on its features, in place of the shared layer.

The supernet's last layer serves all paths, and fits none as that path's own would. Its replacement is the unique
minimum of a convex function, so that it depends on the features alone and not on what other paths did to the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ITERATIONS = 100
TOLERANCE = 1e-4
"""Of the largest gradient entry; what is left moves the loss in its sixth decimal."""


@dataclass(frozen=True, slots=True)
class Head:
    """A linear classifier of standardised features, in float64."""

    mean_F: Tensor
    scale_F: Tensor
    weight_KF: Tensor
    bias_K: Tensor

    def __call__(self, features_NF: Tensor) -> Tensor:
        """(N, F) -> logits (N, K)."""
        return functional.linear((features_NF.double() - self.mean_F) / self.scale_F, self.weight_KF, self.bias_K)


def fit_head(features_NF: Tensor, labels_N: Tensor, classes: int, l2: float) -> Head:
    """The minimum of mean cross-entropy + l2 / 2 * |weight|^2 over these images, their features standardised.

    Features that are no numbers give logits that are none.
    """
    features_NF = features_NF.double()
    mean_F, scale_F = features_NF.mean(0), features_NF.std(0, correction=0)
    scale_F = torch.where(scale_F > 1e-6, scale_F, 1.0)  # a dead feature stays 0
    inputs_NF = (features_NF - mean_F) / scale_F
    parameters_KF1 = inputs_NF.new_zeros(classes, inputs_NF.shape[1] + 1).requires_grad_()
    solver = torch.optim.LBFGS(
        [parameters_KF1], max_iter=ITERATIONS, tolerance_grad=TOLERANCE, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        weight_KF, bias_K = parameters_KF1[:, :-1], parameters_KF1[:, -1]
        value = functional.cross_entropy(functional.linear(inputs_NF, weight_KF, bias_K), labels_N)
        value = value + l2 / 2 * weight_KF.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    fitted_KF1 = parameters_KF1.detach()
    return Head(mean_F, scale_F, fitted_KF1[:, :-1], fitted_KF1[:, -1])


def features(path: Callable[[Tensor], Tensor], images_NCHW: Tensor, classifiers: Sequence[nn.Module]) -> Tensor:
    """What the path's classifiers are called with, side by side: images (N, C, H, W) -> (N, F).

    Raises ValueError if none of them is called, or not with a vector for each image.
    """
    seen: list[Tensor] = []
    handles = [layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for layer in classifiers]
    try:
        path(images_NCHW)
    finally:
        for handle in handles:
            handle.remove()
    if not seen or any(inputs.shape[:-1] != images_NCHW.shape[:1] for inputs in seen):
        raise ValueError(
            "expected the network's `classifiers` to be called with features (images, features), but got shapes "
            f'{[tuple(inputs.shape) for inputs in seen]}; define that property, or set evaluation.head = "shared".'
        )
    return torch.cat(seen, 1)
