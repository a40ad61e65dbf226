"""SynFlow: the sum of the products of weights along all paths through the network; no image is looked at."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from raynas.proxies._network import ACTIVATIONS, Intercepted, own_copy, weight_gradients


def synflow(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """The sum over layers of |weight| * dR / d|weight|, where R is what comes out for an image of ones.

    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", NeurIPS 2020;
    as a proxy: Abdelfattah et al., ICLR 2021. R is of the network made linear: all parameters positive,
    activations left out (ReLU does nothing to what is positive; ReLU6 would hold back nearly all), and BatchNorm with
    the statistics 0 and 1 that it starts with. In float64: R grows with the depth by powers of ten.
    """
    del labels_N, rng
    network = own_copy(network).eval().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()

    def linear(name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        return arguments[0] if name in ACTIVATIONS else call()

    with Intercepted(linear):
        flow = network(torch.ones_like(images_NCHW[:1], dtype=torch.float64)).sum()
    return float(sum((weight * gradient).abs().sum() for weight, gradient in weight_gradients(network, flow)))
