"""What proxies need of a network: a copy that is theirs, its layers, and what it calls while it runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

ACTIVATIONS = frozenset(
    ("relu", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "celu", "silu", "mish", "gelu", "hardswish")
)
"""Functions that let through, more or less, what is above zero, and hold back what is below."""


def own_copy(network: nn.Module) -> nn.Module:
    """A copy to do with as one likes: BatchNorm normalises by the batch at hand, and nothing is dropped at random."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    return network.requires_grad_(True)


def layers(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """The layers with a matrix of weights: convolutions and linear ones."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def weight_gradients(network: nn.Module, value: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each layer's weight, and the gradient of a value that the network gave: zeros where it does not hang on it."""
    weights = [layer.weight for layer in layers(network)]
    gradients = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
    return [(weight.detach(), gradient) for weight, gradient in zip(weights, gradients, strict=True)]


def loss_gradients(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each layer's weight, and the gradient of the batch's mean cross-entropy."""
    network = own_copy(network)
    return weight_gradients(network, functional.cross_entropy(network(images_NCHW), labels_N))


class Intercepted(TorchFunctionMode):
    """Inside, every function of torch goes through `run(name, call, arguments)`, which returns what it returns.

    name: as torch calls it, without the underscore of in-place functions. call: does what was to be done.
    """

    def __init__(self, run: Callable[[str, Callable[[], Any], tuple[Any, ...]], Any]) -> None:
        super().__init__()
        self.run = run

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "").strip("_")
        return self.run(name, lambda: func(*args, **kwargs or {}), args)
