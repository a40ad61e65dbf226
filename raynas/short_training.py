"""Scores of short trainings from scratch: each architecture alone, for a few epochs of its own schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from raynas import seeds
from raynas.architecture import Architecture
from raynas.config import DataSettings, RetrainingSettings
from raynas.data import Split
from raynas.evaluation import Evaluation, failed
from raynas.retraining import StandAloneTraining
from raynas.supernet import Supernet

SETTLED = 50
"""Steps after which BatchNorm's running averages, of momentum 0.1, have forgotten what they began with."""

BATCHES = 8
"""Of training images, to estimate them from where there were fewer steps."""


class ShortTrainingEvaluator:
    """Evaluates architectures by their validation error after a training from scratch that is over soon.

    A score is a pure function of (canonical architecture, settings, images, seed): all have the initial weights of one
    supernet, as proxies do. Short trainings share no weights, so they err in other ways than supernets; they are for
    networks that learn fast.
    """

    def __init__(
        self,
        *,
        epochs: float,
        supernet: Supernet,
        canonicalise: Callable[[Architecture], Architecture],
        split: Split,
        data: DataSettings,
        retraining: RetrainingSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        self.supernet = supernet
        self.canonicalise = canonicalise
        self.split = split
        self.data = data
        self.epochs = epochs
        self.settings = retraining
        self.seed = seeds.integer(seed, "short")
        self.device = device

    def measure(self, architecture: Architecture) -> Evaluation:
        """The validation error of one architecture, 0..1; or why it has none."""
        network = self.canonicalise(architecture)
        try:
            training = StandAloneTraining(
                self.supernet.subnet(network),
                self.split,
                settings=self.settings,
                data=self.data,
                seed=self.seed,
                device=self.device,
                length=self.epochs,
            )
            *_, last = training.epochs()
            error = last["validation_error"] if training.steps >= SETTLED else _with_own_statistics(training)
        except Exception as fault:  # out of memory, or a fault of a user's own network
            return failed(architecture, fault)
        if not math.isfinite(last["train_loss"]):
            return Evaluation(architecture, (), f"the loss is {last['train_loss']}")
        return Evaluation(architecture, (error,))


def _with_own_statistics(training: StandAloneTraining) -> float:
    """The validation error with BatchNorm statistics of the weights as they are in the end."""
    network = training.network.train()
    for norm in (module for module in network.modules() if isinstance(module, _BatchNorm)):
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
    with torch.no_grad():
        for step in range(BATCHES):
            network(training.train.augmented(step, training.settings.batch_size, training.seed, "statistics")[0])
    return training.error(training.validation)
