"""A classifier of a candidate's own: multinomial logistic regression on its features, in place of the shared layer.

The supernet's last layer serves all paths, and fits none as that path's own would. Its replacement is the unique
minimum of a convex function, so that it depends on the features alone and not on what other paths did to the layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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

    Features that are no numbers give logits that are none. Raises ValueError for features that are no vectors.
    """
    if features_NF.ndim != 2:
        raise ValueError(
            f"expected features (images, features) before the classifier, but got shape {tuple(features_NF.shape)}; "
            'set evaluation.head = "shared".'
        )
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


@contextlib.contextmanager
def inputs_of(classifier: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the list receives what the classifier is called with: the features (N, F) of each batch of images."""
    seen: list[Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
