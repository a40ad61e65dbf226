"""Training one architecture from scratch: what its accuracy really is, without shared weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raynas import device as devices
from raynas import seeds
from raynas.augmentation import Augmenter
from raynas.batches import Batches
from raynas.checkpoint import load_moments
from raynas.config import DataSettings, RetrainingSettings
from raynas.data import Split
from raynas.depthwise import accelerate
from raynas.supernet import Subnet

EVALUATION_BATCH = 512


class StandAloneTraining:
    """SGD with Nesterov momentum and a cosine schedule, step by step from the seed, so that it can be resumed.

    length: its epochs, those of the settings or a number of any size, whose last part is shorter than one.
    """

    def __init__(
        self,
        network: Subnet,
        split: Split,
        *,
        settings: RetrainingSettings,
        data: DataSettings,
        seed: int,
        device: torch.device,
        length: float | None = None,
    ) -> None:
        self.network: Subnet = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        accelerate(self.network, device)
        self.rng = torch.Generator(device)
        self.settings = settings
        self.length = settings.epochs if length is None else length
        self.seed = seed
        self.device = device
        self.dataset = split.dataset
        self.augmenter = Augmenter(split, data, device)
        self.train = Batches(split.train_images_NCHW, split.train_labels_N, self.augmenter, device)
        self.validation = Batches(split.validation_images_NCHW, split.validation_labels_N, self.augmenter, device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )
        self.epoch = 0
        self.curves: list[dict[str, float]] = []

    @cached_property
    def test(self) -> Batches:
        """The test images, which only who reports a finalist needs on the device."""
        return Batches(self.dataset.test_images_NCHW, self.dataset.test_labels_N, self.augmenter, self.device)

    @property
    def steps(self) -> int:
        """How many there are in all, one at least."""
        return max(1, math.ceil(round(self._per_epoch * self.length, 6)))

    @property
    def _per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.settings.batch_size)

    def epochs(self) -> Iterator[dict[str, float]]:
        """Train the epochs that are left, one step at least; yields the curve's point after each."""
        per_epoch, total = self._per_epoch, self.steps
        while self.epoch * per_epoch < total:
            began = time.perf_counter()
            self.network.train()
            loss_sum = torch.zeros((), device=self.device)
            steps = range(self.epoch * per_epoch, min((self.epoch + 1) * per_epoch, total))
            for step in steps:
                learning_rate = 0.5 * self.settings.learning_rate * (1 + math.cos(math.pi * step / total))
                loss_sum += self._step(step, learning_rate)
            self.epoch += 1
            point = {
                "epoch": float(self.epoch),
                "train_loss": float(loss_sum) / len(steps),
                "validation_error": self.error(self.validation),
                "learning_rate": learning_rate,
                "seconds": time.perf_counter() - began,
            }
            self.curves.append(point)
            yield point

    @torch.no_grad()
    def error(self, images: Batches) -> float:
        """The share of these images that the network gets wrong: `validation`, or `test` to report a finalist."""
        self.network.eval()
        wrong = 0
        for first in range(0, len(images), EVALUATION_BATCH):
            images_NCHW, labels_N = images.plain(np.arange(first, min(first + EVALUATION_BATCH, len(images))))
            wrong += int((self.network(images_NCHW).argmax(1) != labels_N).sum())
        return wrong / len(images)

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, and the curve so far."""
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "curves": self.curves,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.epoch = int(state["epoch"])
        self.network.load_state_dict(state["network"])
        load_moments(self.optimizer, state["optimizer"])
        self.curves = list(state["curves"])

    def _step(self, step: int, learning_rate: float) -> Tensor:
        images_NCHW, labels_N = self.train.augmented(step, self.settings.batch_size, self.seed, "train")
        self.optimizer.zero_grad(set_to_none=True)
        self.rng.manual_seed(seeds.integer(self.seed, "network", step))
        with devices.autocast(self.device, self.settings.precision):
            outputs = self.network.training_logits(images_NCHW, progress=self.epoch / self.length, rng=self.rng)
        loss = torch.zeros((), device=self.device)
        for weight, logits_NK in outputs:
            loss = loss + weight * functional.cross_entropy(
                logits_NK.float(), labels_N, label_smoothing=self.settings.label_smoothing
            )
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return loss.detach()
