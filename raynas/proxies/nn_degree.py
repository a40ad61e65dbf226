"""NN-Degree: how many others a channel is connected to on average, by its layer's width and by skip links."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from raynas.nn_degree import degree
from raynas.proxies._network import Intercepted, own_copy
from raynas.space import Cell


def nn_degree(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
    """The NN-Degree of the cells, which are read off the network while it runs.

    Li et al., "FLASH: Fast Neural Architecture Search with Hardware Optimization", ACM TECS 2021 (arXiv:2108.00568).
    The formula is recalled, not read. The paper's networks say themselves what their cells are; to have it of any
    network, a cell here is all that works on maps of one height and width, its layers are the convolutions and linear
    layers whose outputs are such maps, and its skip links carry each channel that is added to another or concatenated
    to others. Maps of a single position are left out: gates and classifiers. Kernels and operations do not count.
    """
    del labels_N, rng
    widths: dict[tuple[int, ...], list[int]] = {}
    links: dict[tuple[int, ...], int] = {}

    def read(name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        result = call()
        if isinstance(result, Tensor) and result.dim() >= 3:
            if name in ("conv2d", "linear"):
                widths.setdefault(_positions(result), []).append(_channels(result))
            elif (carried := _carried(name, arguments)) > 0:
                links[_positions(result)] = links.get(_positions(result), 0) + carried
        return result

    with torch.no_grad(), Intercepted(read):
        own_copy(network)(images_NCHW)
    return degree([Cell(fmean(own), len(own), links.get(at, 0)) for at, own in widths.items() if math.prod(at) > 1])


def _carried(name: str, arguments: tuple[Any, ...]) -> int:
    """How many channels a sum or a concatenation of maps brings to those that are there already."""
    if name in ("add", "iadd", "radd"):
        both = [one for one in arguments[:2] if isinstance(one, Tensor)]
        return _channels(both[0]) if len(both) == 2 and both[0].shape == both[1].shape else 0
    if name in ("cat", "concat"):
        parts = [_channels(one) for one in arguments[0]]
        return sum(parts) - max(parts)
    return 0


def _positions(values: Tensor) -> tuple[int, ...]:
    return tuple(values.shape[2:] if values.dim() == 4 else values.shape[1:-1])


def _channels(values: Tensor) -> int:
    return values.shape[1 if values.dim() == 4 else -1]
