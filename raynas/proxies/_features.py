"""The feature maps between a network's blocks, and what AZ-NAS reads from them (Lee and Ham, CVPR 2024)."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from raynas.proxies._network import own_copy

Features: TypeAlias = tuple[Tensor, ...]
"""A block's output: one map, (N, C, H, W) or (N, positions, C), or several that lie side by side in the channels."""


def block_features(network: nn.Module, images_NCHW: Tensor) -> list[Features]:
    """What each block gives, in the order of the pass: images (N, C, H, W) -> maps that gradients can be asked for.

    Blocks are the modules that the network's own `forward` calls: stem, cells or layers. What is no map (logits, a
    vector for each image) is left out. A network that is one module in another, as a subnet is, is that module.
    """
    network = own_copy(network)
    whole = network
    while len(children := list(whole.children())) == 1:
        whole = children[0]
    found: list[Features] = []
    depth = 0

    def enter(*_: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(_: nn.Module, __: Any, outputs: Any) -> None:
        nonlocal depth
        depth -= 1
        parts = tuple(outputs) if isinstance(outputs, list | tuple) else (outputs,)
        if depth == 1 and parts and all(isinstance(part, Tensor) and part.dim() >= 3 for part in parts):
            found.append(parts)

    for module in whole.modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    network(images_NCHW)
    return found


def by_position(parts: Features) -> Tensor:
    """A block's output as a vector for each image and position: (positions, C)."""
    return torch.cat([(part.movedim(1, -1) if part.dim() == 4 else part).flatten(0, -2) for part in parts], 1)


def entropies(network: nn.Module, images_NCHW: Tensor) -> list[float]:
    """The entropy of each block's principal components, their shares of the variance; 0 where nothing varies.

    0 for one direction, log C for all C alike.
    """
    return [_entropy(by_position(parts).detach()) for parts in block_features(network, images_NCHW)]


def _entropy(values_PC: Tensor) -> float:
    centred_PC = values_PC - values_PC.mean(0)
    variances_C = torch.linalg.eigvalsh((centred_PC.T @ centred_PC).double()).clamp_min(0)
    shares_C = variances_C / variances_C.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return float(-torch.xlogy(shares_C, shares_C).sum())
