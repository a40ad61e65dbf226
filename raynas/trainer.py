"""Training one supernet: a step is a function of (weights, seed, step number), so that it can be repeated anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from raynas import device as devices
from raynas import seeds
from raynas.architecture import Architecture
from raynas.augmentation import Augmenter
from raynas.batches import EVERY_ROW, Batches
from raynas.checkpoint import load_moments
from raynas.config import DataSettings, TrainingSettings
from raynas.data import Split
from raynas.depthwise import accelerate
from raynas.limits import Limits
from raynas.members import load_member
from raynas.muon import Muon
from raynas.partition import Partition
from raynas.replica_group import ReplicaGroup
from raynas.restricted import Restricted
from raynas.supernet import BatchNorm, Supernet, touched
from raynas.training_rule import Batch, DivergenceError, KeepsLimits, LooksAhead, Measures, TrainingRule


class Trainer:
    """Moves a supernet's weights by the gradients that a training rule asks for.

    Each replica of a shard holds one, with equal weights. All randomness (paths, images, augmentation) is drawn from
    the seed and the step's number, so nothing of it needs saving.

    partition: the part of the space that is trained; the rule is one for that part's own space.
    begin, end: the steps of the schedule that this trainer takes (None: to the schedule's end). A supernet that was
        trained to a step, and one that goes on with its weights, together go through one schedule. Only at
        the schedule's end is an average taken: a partition goes on from its warm-up's last weights, not from a mean.
    limits: on predicted costs, by their names, for a rule that learns to keep them.
    """

    def __init__(
        self,
        *,
        supernet: Supernet,
        rule: TrainingRule,
        split: Split,
        training: TrainingSettings,
        data: DataSettings,
        seed: int,
        device: torch.device,
        group: ReplicaGroup | None = None,
        partition: Partition | None = None,
        begin: int = 0,
        end: int | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> None:
        self.device = device
        self.supernet = supernet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.supernet.train()
        accelerate(self.supernet, device)
        self.partition = partition
        self.view = self.supernet if partition is None else Restricted(self.supernet, partition)
        self.owners = self.view.owners()
        self.rule = rule
        self.settings = training
        self.seed = seed
        self.begin = begin
        self.step = begin
        self.end = training.steps if end is None else end
        self.curves: list[dict[str, float]] = []
        averaged = training.averaging and self.end == training.steps
        self.averaged = AveragedModel(self.supernet, multi_avg_fn=_average(training)) if averaged else None
        self.group = ReplicaGroup()
        augmenter = Augmenter(split, training.augmented(data), device)
        self.train = Batches(split.train_images_NCHW, split.train_labels_N, augmenter, device)
        self.validation = Batches(split.validation_images_NCHW, split.validation_labels_N, augmenter, device)
        self.optimizer = make_optimizer(self.supernet, training)
        if isinstance(rule, LooksAhead):
            rule.look_at(self.optimizer)
        if isinstance(rule, Measures):
            rule.measure_on(self.validation, training.batch_size)
        if limits and isinstance(rule, KeepsLimits):
            rule.keep(Limits(rule.space, self._predictors(limits, split.dataset.image_shape_CHW), limits))
        self.use(group or ReplicaGroup())

    def use(self, group: ReplicaGroup) -> None:
        """Train as a replica of this group from now on."""
        self.group = group
        joined = group.world > 1 and self.rule.splits_batch
        for module in self.supernet.modules():
            if isinstance(module, BatchNorm):
                module.sum_over_replicas = group.sum if joined else None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step >= self.end

    @property
    def snapshot_steps(self) -> list[int]:
        """The steps of this training at which weights are kept."""
        return [step for step in self.settings.snapshot_steps if self.begin < step <= self.end]

    def advance(self) -> dict[str, float]:
        """Train up to the next point of the curve and return it; raises DivergenceError if a loss is not finite."""
        began, first = time.perf_counter(), self.step
        until = min(self.end, (self.step // self.settings.log_every + 1) * self.settings.log_every)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        metrics: dict[str, float] = {}
        while self.step < until:
            step_loss, step_metrics = self.train_step()
            loss += step_loss
            for name, value in step_metrics.items():
                metrics[name] = metrics.get(name, 0.0) + float(value)
        steps = self.step - first
        mean = float(self.group.sum(loss)) / self.group.world / steps
        if not math.isfinite(mean):
            raise DivergenceError(f"the loss is {mean} after step {self.step}")
        seconds = time.perf_counter() - began
        point = {
            "step": float(self.step),
            "loss": mean,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": seconds,
            "images_per_s": self.settings.batch_size * steps / seconds,
            **{name: value / steps for name, value in metrics.items()},
        }
        self.curves.append(point)
        return point

    def train_step(self) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """One optimisation step; returns the rule's loss and metrics."""
        rng = seeds.generator(self.seed, "paths", self.step)
        train = self._batch("train", self.train)
        validation = self._batch("validation", self.validation) if self.rule.needs_validation else None
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.learning_rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        with devices.autocast(self.device, self.settings.precision):
            result = self.rule.step(
                self.view, train, validation, loss=self._loss, rng=rng, number=self.step, group=self.group
            )
        on_paths = touched(self.owners, result.paths)
        self.group.sum_gradients(on_paths)
        self.rule.observe(self.owners, result)
        torch.nn.utils.clip_grad_norm_(on_paths, self.settings.gradient_clip)
        with _leaving(self.optimizer, self.view.unused(result.paths)):
            self.optimizer.step()
        self.step += 1
        if self.averaged is not None and self.step > self.settings.steps * (1 - self.settings.averaging):
            self.averaged.update_parameters(self.supernet)
        return result.loss, result.metrics

    def weights(self) -> dict[str, Tensor]:
        """What is published: the average over the last steps, where one is taken, or else the weights as they are.

        All weights are averaged over all of these steps, also over those whose paths left them alone (Izmailov et al.,
        "Averaging Weights Leads to Wider Optima", UAI 2018, on every step instead of every epoch). BatchNorm needs no
        new estimates afterwards: in a supernet it has none (raynas/supernet.py).
        """
        if self.averaged is None or not self.averaged.n_averaged:
            return self.supernet.state_dict()  # type: ignore[no-any-return]
        return self.averaged.module.state_dict()

    def learning_rate(self, step: int) -> float:
        """Cosine from the start value towards zero at the last step."""
        return 0.5 * self.settings.learning_rate * (1 + math.cos(math.pi * step / self.settings.steps))

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, and the curve so far."""
        return {
            "step": self.step,
            "supernet": self.supernet.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "rule": self.rule.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "curves": self.curves,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.step = int(state["step"])
        self.supernet.load_state_dict(state["supernet"])
        load_moments(self.optimizer, state["optimizer"])
        self.rule.load_state_dict(state["rule"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.curves = list(state["curves"])

    def _predictors(
        self, costs: Iterable[str], image_shape_CHW: tuple[int, int, int]
    ) -> dict[str, Callable[[Architecture], float]]:
        """What each cost is of an architecture of the rule's space, by the cost's name."""
        found = {name: load_member("raynas.costs", name)(self.supernet, image_shape_CHW) for name in costs}
        if self.partition is None:
            return found
        outer = self.partition.outer

        def of_part(cost: Callable[[Architecture], float]) -> Callable[[Architecture], float]:
            return lambda inner: cost(outer(inner))

        return {name: of_part(cost) for name, cost in found.items()}

    def _batch(self, stream: str, source: Batches) -> Batch:
        """This replica's share of the step's joined batch, or all of it for a rule that does not split it."""
        shared = self.rule.splits_batch and self.group.world > 1
        rows = slice(self.group.rank, None, self.group.world) if shared else EVERY_ROW
        return Batch(*source.augmented(self.step, self.settings.batch_size, self.seed, stream, rows))

    def _loss(self, logits_NK: Tensor, labels_N: Tensor) -> Tensor:
        return functional.cross_entropy(logits_NK.float(), labels_N, label_smoothing=self.settings.label_smoothing)


def make_optimizer(network: nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """What moves a network's weights by these settings; each step is given its own learning rate."""
    build = torch.optim.SGD if training.optimizer == "sgd" else partial(Muon, turn=training.muon_turn)
    return build(
        network.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )


def _average(training: TrainingSettings) -> Callable[..., None]:
    """How the average takes up another step's weights; the first it is given are copied."""
    if training.averaging_decay is None:
        return get_swa_multi_avg_fn()  # type: ignore[no-untyped-call, no-any-return]
    return get_ema_multi_avg_fn(training.averaging_decay)  # type: ignore[no-untyped-call, no-any-return]


@contextmanager
def _leaving(optimizer: torch.optim.Optimizer, unused: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Leave these entries, and their moments, as they are: an option off the paths is not moved, nor is a slice.

    Their gradient is zero, yet weight decay and momentum would move them.
    """
    kept = {
        parameter: (parameter.detach().clone(), _moments(optimizer, parameter))
        for parameter in unused
        if parameter.grad is not None
    }
    yield
    with torch.no_grad():
        for parameter, (value, moments) in kept.items():
            parameter.copy_(value.where(unused[parameter], parameter))
            for name, moment in _moments(optimizer, parameter).items():
                before = moments.get(name, torch.zeros_like(moment))
                optimizer.state[parameter][name] = before.where(unused[parameter], moment)


def _moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Copies of what the optimiser keeps for each entry of a parameter."""
    state = optimizer.state.get(parameter, {})
    return {
        name: value.clone()
        for name, value in state.items()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    }
