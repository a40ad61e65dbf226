"""A supernet holds shared weights for every architecture of its space; the path is an argument, never a state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from raynas.architecture import Architecture
from raynas.calibration import normalise

Choices: TypeAlias = Sequence[int | Tensor]
"""What a forward pass takes per block: a choice's index, or relaxed weights over its choices, shape (choices,)."""


Owner: TypeAlias = tuple[nn.Parameter, frozenset[tuple[int, int]]]
"""A parameter, and every (block, option) whose it is; none for what every path runs through."""


def touched(owners: Iterable[Owner], architectures: Iterable[Architecture]) -> list[nn.Parameter]:
    """The parameters that any of these paths runs through."""
    taken = {place for architecture in architectures for place in enumerate(architecture)}
    return [parameter for parameter, places in owners if not places or not places.isdisjoint(taken)]


class BatchNorm(nn.Module):
    """The supernet's batch normalisation: batch statistics or a path's own, no scale, no running averages.

    A shared scale or running average cannot suit the inputs of every path (NAS-Bench-201's supernets; Ning et al.,
    2021, recommend the same), and a layer without buffers leaves nothing behind when it scores: the statistics of a
    recalibrated path are its caller's (raynas.calibration). A subnet gets an ordinary BatchNorm2d of its own in its
    place.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.sum_over_replicas: Callable[[Tensor], Tensor] | None = None
        """Set once by the trainer of a shard with several replicas: the batch is then the joined batch."""

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """Normalise each channel over the batch; (N, C, H, W) -> the same."""
        if (how := normalise.get()) is not None:
            return how(self, inputs_NCHW, self.eps)
        if self.sum_over_replicas is None:
            return functional.batch_norm(inputs_NCHW, None, None, training=True, eps=self.eps)
        values = inputs_NCHW.float()
        count = torch.full((1,), values.numel() / self.channels, device=values.device)
        total, count = self.sum_over_replicas(torch.cat([values.sum((0, 2, 3)), count])).split_with_sizes(
            [self.channels, 1]
        )
        centred = values - (total / count)[:, None, None]  # in two passes: E[x^2] - E[x]^2 would cancel
        variance = self.sum_over_replicas(centred.square().sum((0, 2, 3))) / count
        normalised: Tensor = centred * (variance + self.eps).rsqrt()[:, None, None]
        return normalised.to(inputs_NCHW.dtype)

    def stand_alone(self) -> nn.Module:
        """The ordinary layer that a network with its own weights uses: scale 1, shift 0, running statistics."""
        return nn.BatchNorm2d(self.channels, eps=self.eps)


class Choice(nn.Module):
    """A choice block in a supernet: its options side by side, of which a path runs through one.

    Several Choice modules may follow one block, as where all cells of a network are alike.
    """

    def __init__(self, block: int, options: Iterable[nn.Module]) -> None:
        super().__init__()
        self.block = block
        self.options: nn.ModuleList | tuple[nn.Module, ...] = self._hold(options)

    @staticmethod
    def _hold(options: Iterable[nn.Module]) -> nn.ModuleList | tuple[nn.Module, ...]:
        return nn.ModuleList(options)

    def forward(self, inputs: Any, architecture: Choices) -> Tensor:
        """Run the option that the path chose; or, with weights, the weighted sum of those whose weight is not zero.

        inputs: what the options take, as a rule a tensor (N, C, H, W).
        """
        choice = architecture[self.block]
        if not isinstance(choice, Tensor):
            return self.options[choice](inputs)  # type: ignore[no-any-return]
        running = [index for index, weight in enumerate(choice.tolist()) if weight != 0] or [0]
        outputs: list[Tensor] = [choice[index] * self.options[index](inputs) for index in running]
        return reduce(add, outputs)


class SharedChoice(Choice):
    """A choice block some of whose options are those of other blocks too, and are held in `Shared` modules elsewhere.

    A subnet's blocks each have a copy of their own, as a network that was written down has.
    """

    @staticmethod
    def _hold(options: Iterable[nn.Module]) -> nn.ModuleList | tuple[nn.Module, ...]:
        return tuple(options)  # a tuple, so that its modules are not this one's too


class Shared(nn.Module):
    """Holds the modules that the options of several SharedChoice blocks run through; a subnet has none of it."""

    def __init__(self, options: Iterable[nn.Module]) -> None:
        super().__init__()
        self.options = nn.ModuleList(options)


class TrainingOnly(nn.Module):
    """A part that only stand-alone training runs, as an auxiliary head: no cost counts it and no export has it."""


class Chosen(nn.Module):
    """What a subnet has in a choice block's place: the one option, whatever it is asked for."""

    def __init__(self, option: nn.Module) -> None:
        super().__init__()
        self.option = option

    def forward(self, inputs: Any, architecture: Choices) -> Tensor:
        """Run the option that was chosen when the subnet was cut out."""
        del architecture
        return self.option(inputs)  # type: ignore[no-any-return]


class Supernet(nn.Module):
    """Base of every space's network: a subclass builds its Choice modules and writes `forward`."""

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """Run one path, or the relaxed mixture, of the network: (N, C, H, W) -> logits (N, K)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(images_NCHW, architecture).")

    def training_logits(
        self, images_NCHW: Tensor, architecture: Choices, *, progress: float, rng: torch.Generator
    ) -> list[tuple[float, Tensor]]:
        """What stand-alone training sums the losses of: (weight, logits (N, K)); a subclass may add auxiliary heads.

        progress: the share of the training that is done, in 0..1, and rng: a generator on the network's device, of this
        step alone; both for what is dropped at random, as drop-path.
        """
        del progress, rng
        return [(1.0, self(images_NCHW, architecture))]

    def choices(self) -> list[Choice]:
        """All Choice modules, in the network's own order."""
        return [module for module in self.modules() if isinstance(module, Choice)]

    def owners(self) -> list[Owner]:
        """Each parameter with the block and the option that it belongs to, in the network's own order."""
        places: dict[nn.Parameter, set[tuple[int, int]]] = {parameter: set() for parameter in self.parameters()}
        for choice in self.choices():
            for index, option in enumerate(choice.options):
                for parameter in option.parameters():
                    places[parameter].add((choice.block, index))
        return [(parameter, frozenset(of)) for parameter, of in places.items()]

    def subnet(self, architecture: Architecture, *, stand_alone: bool = True) -> Subnet:
        """Cut one path out: a network with its own copy of the weights and, where stand-alone, ordinary BatchNorm.

        stand_alone: whether layers that serve the search alone take their stand-alone form (BatchNorm with its own
            statistics, a skip without stabiliser). A path that is tuned before it is scored must keep them: False.
        """
        copies: dict[int, nn.Module] = {
            id(module): nn.Identity() for module in self.modules() if isinstance(module, Shared)
        }
        for choice in self.choices():
            copies[id(choice)] = Chosen(_copy(choice.options[architecture[choice.block]], {}, stand_alone))
        network = _copy(self, copies, stand_alone)
        assert isinstance(network, Supernet)
        return Subnet(network, architecture).to(next(self.parameters()).device)  # BatchNorm2d is made on the CPU


class Subnet(nn.Module):
    """One architecture as a network of its own."""

    def __init__(self, network: Supernet, architecture: Architecture) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        return self.network(images_NCHW, self.architecture)  # type: ignore[no-any-return]

    def training_logits(
        self, images_NCHW: Tensor, *, progress: float, rng: torch.Generator
    ) -> list[tuple[float, Tensor]]:
        """What stand-alone training sums the losses of; see Supernet.training_logits."""
        return self.network.training_logits(images_NCHW, self.architecture, progress=progress, rng=rng)

    def finished(self) -> Subnet:
        """The network without what only its training needs: itself, or a copy of the rest."""
        parts = [module for module in self.modules() if isinstance(module, TrainingOnly)]
        if not parts:
            return self
        network = _copy(self, {id(part): nn.Identity() for part in parts}, stand_alone=True)
        assert isinstance(network, Subnet)
        return network


def seeded(build: Callable[..., Supernet], seed: int, **settings: Any) -> Supernet:
    """Build a network whose initial weights depend on the seed alone; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        return build(**settings)


def _copy(module: nn.Module, copies: dict[int, nn.Module], stand_alone: bool) -> nn.Module:
    """A copy with its own parameters and buffers; `stand_alone`: what has such a form (BatchNorm, ELS) takes it."""
    if (copy := copies.get(id(module))) is not None:
        return copy
    if stand_alone and (form := getattr(module, "stand_alone", None)) is not None:
        copy = form()
        assert isinstance(copy, nn.Module)
    else:
        copy = module.__new__(type(module))
        copy.__dict__ = {  # hooks and the like are containers, and its own
            name: type(value)(value) if isinstance(value, dict | list | set) else value
            for name, value in module.__dict__.items()
        }
        copy._parameters = {
            name: None if value is None else nn.Parameter(value.detach().clone())
            for name, value in module._parameters.items()
        }
        copy._buffers = {name: None if value is None else value.clone() for name, value in module._buffers.items()}
        copy._modules = {
            name: None if child is None else _copy(child, copies, stand_alone)
            for name, child in module._modules.items()
        }
    copies[id(module)] = copy
    return copy
