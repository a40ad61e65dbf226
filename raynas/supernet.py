"""A supernet holds shared weights for every architecture of its space; the path is an argument, never a state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from raynas.architecture import Architecture
from raynas.calibration import normalise

Choices: TypeAlias = Sequence[int | Tensor]
"""What a forward pass takes per block: a choice's index, or relaxed weights over its choices, shape (choices,)."""


Owner: TypeAlias = tuple[nn.Parameter, tuple[int, int] | None]
"""A parameter, and the (block, option) whose it is; None for what every path runs through."""


def touched(owners: Iterable[Owner], architectures: Iterable[Architecture]) -> list[nn.Parameter]:
    """The parameters that any of these paths runs through."""
    taken = [set(choices) for choices in zip(*architectures, strict=True)]
    return [parameter for parameter, place in owners if place is None or place[1] in taken[place[0]]]


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
        self.options = nn.ModuleList(options)

    def forward(self, inputs: Tensor, architecture: Choices) -> Tensor:
        """Run the option that the path chose; or, with weights, the weighted sum of those whose weight is not zero."""
        choice = architecture[self.block]
        if not isinstance(choice, Tensor):
            return self.options[choice](inputs)  # type: ignore[no-any-return]
        outputs = [weight * option(inputs) for weight, option in zip(choice, self.options, strict=True) if weight != 0]
        return torch.stack(outputs).sum(0)


class Chosen(nn.Module):
    """What a subnet has in a choice block's place: the one option, whatever it is asked for."""

    def __init__(self, option: nn.Module) -> None:
        super().__init__()
        self.option = option

    def forward(self, inputs: Tensor, architecture: Choices) -> Tensor:
        """Run the option that was chosen when the subnet was cut out."""
        del architecture
        return self.option(inputs)  # type: ignore[no-any-return]


class Supernet(nn.Module):
    """Base of every space's network: a subclass builds its Choice modules and writes `forward`."""

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """Run one path, or the relaxed mixture, of the network: (N, C, H, W) -> logits (N, K)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(images_NCHW, architecture).")

    def choices(self) -> list[Choice]:
        """All Choice modules, in the network's own order."""
        return [module for module in self.modules() if isinstance(module, Choice)]

    def owners(self) -> list[Owner]:
        """Each parameter with the block and the option that it belongs to, in the network's own order."""
        places = {
            parameter: (choice.block, index)
            for choice in self.choices()
            for index, option in enumerate(choice.options)
            for parameter in option.parameters()
        }
        return [(parameter, places.get(parameter)) for parameter in self.parameters()]

    def subnet(self, architecture: Architecture, *, stand_alone: bool = True) -> Subnet:
        """Cut one path out: a network with its own copy of the weights and, where stand-alone, ordinary BatchNorm.

        stand_alone: whether layers that serve the search alone take their stand-alone form (BatchNorm with its own
            statistics, a skip without stabiliser). A path that is tuned before it is scored must keep them: False.
        """
        copies: dict[int, nn.Module] = {}
        for choice in self.choices():
            copies[id(choice)] = Chosen(_copy(choice.options[architecture[choice.block]], copies, stand_alone))
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
