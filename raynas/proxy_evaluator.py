"""Scores from a proxy: what an untrained network says of itself on a few training images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from raynas import seeds
from raynas.architecture import Architecture
from raynas.augmentation import Augmenter
from raynas.batches import SparseBatches
from raynas.config import DataSettings
from raynas.data import Split
from raynas.evaluation import Evaluation, failed
from raynas.members import load_member
from raynas.supernet import Supernet


class Proxy(Protocol):
    """What a file of raynas/proxies holds."""

    def __call__(self, network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> float:
        """The network's score, higher is better; the network and the images stay as they are."""


class ProxyEvaluator:
    """Evaluates architectures by one proxy, each as a network of its own with the initial weights of `supernet`.

    A score is a pure function of (weights, canonical architecture, images, seed): all architectures see the same
    images, and the same draws where the proxy draws.
    """

    def __init__(
        self,
        *,
        proxy: str,
        supernet: Supernet,
        canonicalise: Callable[[Architecture], Architecture],
        split: Split,
        data: DataSettings,
        images: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.proxy: Proxy = load_member("raynas.proxies", proxy)
        self.supernet = supernet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.canonicalise = canonicalise
        self.seed = seeds.integer(seed, "proxy", proxy)
        train = SparseBatches(split.dataset, split.train_rows_N, Augmenter(split, data, device), device)
        self.images_NCHW, self.labels_N = train.plain(seeds.generator(seed, "proxies").permutation(len(train))[:images])

    def measure(self, architecture: Architecture) -> Evaluation:
        """Minus the score of one architecture, as everything is minimised; or why it has none."""
        try:
            network = self.supernet.subnet(self.canonicalise(architecture)).finished()
            rng = torch.Generator().manual_seed(self.seed)
            score = self.proxy(network, self.images_NCHW, self.labels_N, rng=rng)
        except Exception as fault:  # a user's own proxy may raise anything, and no proxy suits every network
            return failed(architecture, fault)
        if not math.isfinite(score):
            return Evaluation(architecture, (), f"the score is {score}")
        return Evaluation(architecture, (-score,))
