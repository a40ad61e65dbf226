"""Speed and memory of each training rule on each space, against a bare PyTorch loop over the same modules.

    python jobs/benchmarks/training_step.py --data parquet:../shared/data/cifar10 --set channels=16 cells_per_stage=1

Both take the same steps in turn, A B A B ...: the bare loop repeats the forward and backward passes that the rule
made, on the same batches. What is quoted is the median of the ratios of neighbours, on CPUs in CPU seconds of one
thread, since a busy machine drifts. Memory is the most that a step holds beyond weights and momenta, against the bare
loop's step with the largest of its paths as a network of its own.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import time
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from raynas import device as devices
from raynas import seeds
from raynas.config import Config, Precision, check
from raynas.data import Dataset, batch_indices, load, split
from raynas.depthwise import DepthwiseConv2d, accelerate
from raynas.members import load_module, members
from raynas.plan import Plan, build_rule, build_supernet, make_plan
from raynas.supernet import Choices
from raynas.trainer import Trainer, make_optimizer


@dataclass(frozen=True)
class Call:
    """One pass of a step: which path, on the training or the validation batch, with a backward pass or without."""

    architecture: Choices
    stream: str
    backward: bool


class BareLoop:
    """What anybody would write in one process: forward, backward, clip and SGD, on the trainer's batches."""

    def __init__(self, trainer: Trainer, network: nn.Module) -> None:
        self.sources = {"train": trainer.train, "validation": trainer.validation}
        self.settings, self.seed, self.device = trainer.settings, trainer.seed, trainer.device
        self.network = network.to(trainer.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        accelerate(self.network, trainer.device)
        self.optimizer = make_optimizer(self.network, self.settings)

    def step(self, number: int, calls: Iterable[Call]) -> None:
        """Step `number` with these passes."""
        calls = list(calls)
        batches = {stream: self._batch(stream, number) for stream in sorted({call.stream for call in calls})}
        self.optimizer.zero_grad(set_to_none=True)
        for call in calls:
            images_NCHW, labels_N = batches[call.stream]
            with torch.set_grad_enabled(call.backward), devices.autocast(self.device):
                logits_NK = self.network(images_NCHW, call.architecture)
                loss = functional.cross_entropy(logits_NK.float(), labels_N)
            if call.backward:
                loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)
        self.optimizer.step()

    def _batch(self, stream: str, number: int) -> tuple[Tensor, Tensor]:
        source, size = self.sources[stream], self.settings.batch_size
        rows_N = torch.from_numpy(batch_indices(len(source), size, number, self.seed, stream)).to(self.device)
        draws = source.augmenter.draw(seeds.generator(self.seed, "augmentation", stream, number), size)
        return source.augmenter(source.images_NCHW[rows_N], draws), source.labels_N[rows_N]


class Alone(nn.Module):
    """A subnet that takes, and forgets, the path that a supernet is given."""

    def __init__(self, subnet: nn.Module) -> None:
        super().__init__()
        self.subnet = subnet

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        del architecture
        return self.subnet(images_NCHW)  # type: ignore[no-any-return]


class Recorder:
    """A trainer whose steps write down their passes."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.calls: list[Call] = []
        self.first: Tensor | None = None
        trainer.supernet.register_forward_pre_hook(self._record)

    def step(self) -> list[Call]:
        """Train a step; returns its passes."""
        self.calls, self.first = [], None
        self.trainer.train_step()
        return self.calls

    def _record(self, network: nn.Module, arguments: tuple[Any, ...]) -> None:
        images_NCHW, architecture = arguments
        if self.first is None:
            self.first = images_NCHW  # rules begin with the training batch
        stream = "validation" if images_NCHW.data_ptr() != self.first.data_ptr() else "train"
        self.calls.append(Call(architecture, stream, torch.is_grad_enabled()))


def make_trainer(plan: Plan, dataset: Dataset, device: torch.device) -> Trainer:
    """The trainer of a plan's only supernet."""
    (supernet,), config = plan.supernets, plan.config
    return Trainer(
        supernet=build_supernet(config, dataset, seed=supernet.seed),
        rule=build_rule(supernet, plan.space),
        split=split(dataset, config.data.validation_fraction, config.seed),
        training=supernet.training,
        data=config.data,
        seed=supernet.seed,
        device=device,
    )


def speed(recorder: Recorder, bare: BareLoop, seconds: float) -> tuple[list[float], list[float]]:
    """Steps per second of the trainer, and their ratio to the neighbouring step of the bare loop, for so long."""
    rates: list[float] = []
    ratios: list[float] = []
    until = time.monotonic() + seconds
    bare.step(recorder.trainer.step, recorder.step())  # the first steps compile and allocate
    while time.monotonic() < until or len(ratios) < 3:
        number = recorder.trainer.step
        calls: list[Call] = []
        ours = _seconds(lambda calls=calls: calls.extend(recorder.step()), bare.device)  # type: ignore[misc]
        plain = _seconds(lambda number=number, calls=calls: bare.step(number, calls), bare.device)  # type: ignore[misc]
        rates.append(1 / ours)
        ratios.append(plain / ours)
    return rates, ratios


def memory(recorder: Recorder, steps: int) -> list[float]:
    """The trainer's peak as a share of the bare loop's with the largest of the step's paths alone, step by step."""
    trainer, shares = recorder.trainer, []
    for _ in range(steps):
        number, learnt = trainer.step, trainer.rule.state_dict()
        calls = list(recorder.step())  # once before, so that momenta are there
        trainer.step = number
        trainer.rule.load_state_dict(learnt)
        trainer.optimizer.zero_grad(set_to_none=True)
        ours = peak_bytes(trainer.train_step, trainer.device)
        alone = [_alone_bytes(trainer, number, call) for call in calls if call.backward]
        shares.append(ours / max(alone))
    return shares


def peak_bytes(step: Callable[[], object], device: torch.device) -> float:
    """The most memory that a step holds at any time beyond what was held before: every allocation, exactly."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return float(torch.cuda.max_memory_allocated(device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return float(peak)


def main() -> None:
    """Print a line for each space and rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", nargs="*", default=members("search_spaces"))
    parser.add_argument("--rule", nargs="*", default=members("raynas.training_rules"))
    parser.add_argument("--data", default="digits")
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=30.0, help="of speed, for each space and rule")
    parser.add_argument("--memory-steps", type=int, default=3)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the spaces that have such a setting"
    )
    parser.add_argument("--plain-depthwise", action="store_true", help="the bare loop uses torch's own convolutions")
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument(
        "--precision",
        default="auto",
        choices=get_args(Precision),
        help="of the rule's steps; the bare loop keeps to auto",
    )
    options = parser.parse_args()
    device = devices.prepare(1, float(options.cuda))
    dataset = load(options.data, resolution=options.resolution)
    for space in options.space:
        for rule in options.rule:
            plan = make_plan(_config(options, space, rule))
            recorder = Recorder(make_trainer(plan, dataset, device))
            bare = BareLoop(recorder.trainer, build_supernet(plan.config, dataset, seed=plan.supernets[0].seed))
            if options.plain_depthwise:
                for module in bare.network.modules():
                    if isinstance(module, DepthwiseConv2d):
                        module.__class__ = nn.Conv2d  # type: ignore[assignment]
            rates, ratios = speed(recorder, bare, options.seconds)
            shares = memory(recorder, options.memory_steps)
            print(
                f"{space} {rule}: {statistics.median(rates):.3g} steps/s, {spread(ratios)} of the bare loop; "
                f"memory {statistics.median(shares):.3f} of one network alone, at most {max(shares):.3f}, "
                f"n = {len(shares)}",
                flush=True,
            )


def spread(values: list[float]) -> str:
    """Median, quartiles and number, in words."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"median ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f}, n = {len(values)})"


def _config(options: argparse.Namespace, space: str, rule: str) -> Config:
    settings = tomllib.loads("\n".join(options.set))
    known = inspect.signature(load_module(f"search_spaces.{space}", "space", "search_spaces").supernet).parameters
    return check(
        {
            "space": {"name": space, "settings": {key: value for key, value in settings.items() if key in known}},
            "data": {"name": options.data, "resolution": options.resolution, "crop_padding": 2, "flip": True},
            "training": {"steps": 10**6, "batch_size": options.batch, "precision": options.precision},
            "members": [{"method": "random_search", "training_rule": rule}],
        }
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cpu":
        began = time.process_time()
        work()
        return time.process_time() - began
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _alone_bytes(trainer: Trainer, number: int, call: Call) -> float:
    path = tuple(choice for choice in call.architecture if isinstance(choice, int))
    assert len(path) == len(call.architecture), "a relaxed pass has no one network to compare with"
    bare = BareLoop(trainer, Alone(trainer.supernet.subnet(path)))
    bare.step(number, [call])
    bare.optimizer.zero_grad(set_to_none=True)
    return peak_bytes(lambda: bare.step(number, [call]), trainer.device)


if __name__ == "__main__":
    main()
