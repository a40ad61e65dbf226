"""A fitted classifier is the logistic regression that others compute too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from raynas.errors import UserError
from raynas.fitted_head import features, fit_head
from raynas.supernet import Choices, Supernet

L2 = 1e-2
RNG = np.random.default_rng(0)
LABELS = RNG.integers(3, size=120)
FEATURES = RNG.normal(size=(120, 6)) * [1, 3, 0.1, 1, 10, 0] + LABELS[:, None] + 5


def test_it_is_the_logistic_regression_of_scikit_learn() -> None:
    head = fit_head(torch.from_numpy(FEATURES), torch.from_numpy(LABELS), 3, L2)
    scale = FEATURES.std(0)
    inputs = (FEATURES - FEATURES.mean(0)) / np.where(scale > 0, scale, 1)
    reference = LogisticRegression(C=1 / (L2 * len(LABELS)), tol=1e-10, max_iter=10_000).fit(inputs, LABELS)
    found = functional.softmax(head(torch.from_numpy(FEATURES)), 1).numpy()
    np.testing.assert_allclose(found, reference.predict_proba(inputs), atol=1e-3)


def test_neither_shift_nor_scale_of_a_feature_matters() -> None:
    features, labels = torch.from_numpy(FEATURES), torch.from_numpy(LABELS)
    moved = features * torch.tensor([2, 0.1, 5, 1, 1, 1]) - 7
    torch.testing.assert_close(
        fit_head(moved, labels, 3, L2)(moved), fit_head(features, labels, 3, L2)(features), rtol=1e-4, atol=1e-4
    )


def test_a_class_without_images_has_a_logit_too() -> None:
    head = fit_head(torch.from_numpy(FEATURES), torch.from_numpy(LABELS), 5, L2)
    logits = head(torch.from_numpy(FEATURES))
    assert logits.shape == (120, 5) and logits.isfinite().all() and (logits.argmax(1) < 3).all()


def test_features_are_what_classifiers_are_called_with_side_by_side() -> None:
    layers = [nn.Linear(2, 3), nn.Linear(5, 3), nn.Linear(2, 3)]
    images_N2 = torch.randn(4, 2)
    found = features(lambda images: layers[0](images) + layers[1](images.repeat(1, 3)[:, :5]), images_N2, layers)
    assert torch.equal(found, torch.cat([images_N2, images_N2.repeat(1, 3)[:, :5]], 1))


@pytest.mark.parametrize("shape", [(4, 7, 2), (28, 2)])
def test_what_are_no_vectors_of_the_images_is_refused_in_one_line(shape: tuple[int, ...]) -> None:
    layer = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"called with features .* evaluation.head") as refusal:
        features(lambda _: layer(torch.zeros(shape)), torch.zeros(4, 2, 3, 3), [layer])
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"got shapes \[\]"):
        features(lambda images: images, torch.zeros(4, 2, 3, 3), [layer])


def test_nobody_listens_after_a_fault() -> None:
    layer = nn.Linear(2, 3)
    with pytest.raises(RuntimeError, match="shapes"):
        features(layer, torch.ones(4, 3), [layer])
    assert not layer._forward_pre_hooks


def test_a_network_without_a_classifier_is_refused_in_one_line() -> None:
    class Bare(Supernet):
        def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
            del architecture
            return images_NCHW.mean((2, 3))

    with pytest.raises(UserError, match="classifier of Bare, but it has none"):
        Bare().classifiers  # noqa: B018
