"""PNAS's surrogate: an ensemble of small networks on the mean of the embeddings of an architecture's parts.

Liu et al., "Progressive Neural Architecture Search", ECCV 2018, section 4 and appendix A. The numbers are recalled, not
read: embeddings and hidden layer of 100, five networks each fitted to four fifths of the data, L1 loss, Adam at 0.01.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MEMBERS = 5
WIDTH = 100
STEPS = 100
RATE = 0.01

Parts = Sequence[Sequence[int]]
"""An architecture's parts, each with the same number of choices."""


class MeanEmbedding:
    """Predicts values in 0..1 of architectures, of however many parts; its mean does not hang on their number.

    choices: the largest number of choices of each place in a part.
    """

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = tuple(choices)
        self.layers: list[Tensor] = []
        """Embeddings, hidden layer and output of all networks: (M, E, W), (M, W, W), (M, W, 1)."""

    def fit(self, architectures: Sequence[Parts], values_A: NDArray[np.float64], rng: np.random.Generator) -> None:
        """Fit every network anew, each without another fifth of the architectures."""
        codes_AE, values = self._codes(architectures), torch.from_numpy(values_A).float()
        folds_A = rng.permutation(len(architectures)) % MEMBERS
        seen_MA = torch.from_numpy((folds_A != np.arange(MEMBERS)[:, None]) | (len(folds_A) < MEMBERS)).float()
        self.layers = [
            torch.from_numpy(rng.standard_normal((MEMBERS, *shape)) / shape[0] ** 0.5).float().requires_grad_()
            for shape in ((sum(self.choices), WIDTH), (WIDTH, WIDTH), (WIDTH, 1))
        ]
        optimizer = torch.optim.Adam(self.layers, lr=RATE)
        for _ in range(STEPS):
            optimizer.zero_grad()
            off_MA = (_predicted(self.layers, codes_AE) - values).abs() * seen_MA
            (off_MA.sum(1) / seen_MA.sum(1)).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @torch.no_grad()
    def predict(self, architectures: Sequence[Parts]) -> NDArray[np.float64]:
        """The mean of what the networks say: (A,)."""
        said_MA = _predicted(self.layers, self._codes(architectures))
        return said_MA.mean(0).double().numpy().round(5)  # not to hang on the last bits

    def _codes(self, architectures: Sequence[Parts]) -> Tensor:
        """The mean over the parts of the one-hot codes of their choices, by place: (A, E)."""
        offsets = np.cumsum([0, *self.choices])
        codes_AE = np.zeros((len(architectures), offsets[-1]), dtype=np.float32)
        for code_E, parts in zip(codes_AE, architectures, strict=True):
            for part in parts:
                code_E[offsets[:-1] + np.asarray(part)] += 1 / len(parts)
        return torch.from_numpy(codes_AE)


def _predicted(layers: Sequence[Tensor], codes_AE: Tensor) -> Tensor:
    """The first layer's rows are the embeddings, whose mean is that of the mean code: (M, A)."""
    embed, hidden, out = layers
    return torch.sigmoid((codes_AE @ embed @ hidden).relu() @ out).squeeze(-1)
