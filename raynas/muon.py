"""Muon: every weight matrix is turned by the same share of its norm, in the orthogonalised direction of its momentum.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, whose Newton-Schulz coefficients these
are; a step that is a share of the weights' own norm is that of LARS (You et al., 2017), and suits layers that
normalisation follows. In a supernet it trains the layers of rare and of deep paths as fast as the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 3
"""So that singular values of 0.1 and up come near 1."""
SMALLEST = 1e-7


class Muon(torch.optim.Optimizer):
    """Kernels of convolutions by Muon with Nesterov's momentum; all other parameters by SGD with momentum.

    lr, weight_decay: of SGD. turn: the norm of a kernel's step, as a share of the kernel's own norm, while `lr` is what
    it is here; it rises and falls with it. A kernel is a matrix of a row for each output channel; of a depthwise
    convolution, each row is a matrix of its own.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, turn: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.turn = turn

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move the parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            share = self.turn * group["lr"] / self.defaults["lr"]
            kernels: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                moment = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                if parameter.ndim == 4:
                    moment.mul_(group["momentum"]).add_(parameter.grad)
                    kernels.setdefault(parameter.shape, []).append(parameter)
                else:
                    moment.mul_(group["momentum"]).add_(parameter.grad + group["weight_decay"] * parameter)
                    parameter.sub_(group["lr"] * moment)
            for alike in kernels.values():
                self._turn(alike, share, group["momentum"])

    def _turn(self, kernels: list[nn.Parameter], share: float, momentum: float) -> None:
        """Move kernels of one shape, all at once."""
        moments = torch.stack([k.grad + momentum * self.state[k]["momentum_buffer"] for k in kernels])
        values = torch.stack(list(kernels))
        depthwise = values.shape[2] == 1
        rows = moments.flatten(0, 1).flatten(1).unsqueeze(1) if depthwise else moments.flatten(2)
        directions = orthogonalised(rows).reshape(moments.shape)
        dims = (2, 3, 4) if depthwise else (1, 2, 3, 4)
        length = torch.linalg.vector_norm(values, dim=dims, keepdim=True)
        steps = (
            share * length * directions / torch.linalg.vector_norm(directions, dim=dims, keepdim=True).clamp(SMALLEST)
        )
        for kernel, step in zip(kernels, steps, strict=True):
            kernel.sub_(step)


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest matrices with orthonormal rows or columns, roughly: (..., R, C) -> the same."""
    a, b, c = COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(SMALLEST)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x if wide else x.mT
    return result
