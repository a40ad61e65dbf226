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
from raynas.errors import UserError

Choices: TypeAlias = Sequence[int | Tensor]
"""What a forward pass takes per block: a choice's index; relaxed weights over its choices, shape (choices,); or, where
only elastic layers follow the block, weights of each image, shape (N, choices)."""


class Mixture(list[Tensor]):
    """Weights of each block's choices, and `running`: which of them are not zero, as is known without the device.

    With a plain list of weights every Choice asks the device, and waits for it.
    """

    def __init__(self, weights: Iterable[Tensor], running: Sequence[Sequence[int]]) -> None:
        super().__init__(weights)
        self.running = running

    @classmethod
    def on(cls, device: torch.device, weights: Sequence[Tensor]) -> Mixture:
        """Weights that lie on the CPU, brought to a device in one copy; gradients flow to them."""
        moved = torch.cat(list(weights)).to(device).split_with_sizes([len(of_choices) for of_choices in weights])
        return cls(moved, [_running(of_choices) for of_choices in weights])


Copy: TypeAlias = Callable[[nn.Module], nn.Module]
"""Copies what a subnet is made of: with its own parameters, cut to the path, and in its stand-alone form."""

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

    def forward(self, inputs_NCHW: Tensor, weights_NC: Tensor | None = None) -> Tensor:
        """Normalise each channel over the batch; (N, C, H, W) -> the same.

        weights_NC: how much an image counts in a channel's mean and variance (None: all count alike).
        """
        if (how := normalise.get()) is not None:
            return how(self, inputs_NCHW, self.eps)
        if self.sum_over_replicas is None and weights_NC is None:
            return functional.batch_norm(inputs_NCHW, None, None, training=True, eps=self.eps)
        values = inputs_NCHW.float()
        images, channels, height, width = values.shape

        def weighed(values: Tensor) -> Tensor:
            return values if weights_NC is None else values * weights_NC[:, :, None, None]

        count_C = values.new_full((channels,), images) if weights_NC is None else weights_NC.float().sum(0)
        total, count = self._over_replicas(torch.stack([weighed(values).sum((0, 2, 3)), count_C * (height * width)]))
        count = count.masked_fill(count == 0, 1)  # no image has the channel: its sums are zero too
        centred = values - (total / count)[:, None, None]  # in two passes: E[x^2] - E[x]^2 would cancel
        variance = self._over_replicas(weighed(centred.square()).sum((0, 2, 3))) / count
        normalised: Tensor = centred * (variance + self.eps).rsqrt()[:, None, None]
        return normalised.to(inputs_NCHW.dtype)

    def _over_replicas(self, values: Tensor) -> Tensor:
        return values if self.sum_over_replicas is None else self.sum_over_replicas(values)

    def stand_alone(self) -> nn.Module:
        """The ordinary layer that a network with its own weights uses: scale 1, shift 0, running statistics."""
        return nn.BatchNorm2d(self.channels, eps=self.eps)


class PathModule(nn.Module):
    """A layer that depends on the path: called with (inputs, architecture), and cut for a subnet.

    per_image: whether it takes weights of each image, shape (N, choices), for the blocks that it follows.
    """

    per_image = False

    def blocks(self) -> dict[int, int]:
        """The choice blocks that it follows itself, and how many choices each has."""
        raise NotImplementedError(f"{type(self).__name__} must define blocks().")

    def cut(self, architecture: Architecture, copy: Copy) -> nn.Module:
        """What a subnet has in its place, called in the same way; made of copies."""
        raise NotImplementedError(f"{type(self).__name__} must define cut(architecture, copy).")

    def form(self, architecture: Architecture) -> tuple[int, ...]:
        """What decides its own shapes in a subnet: equal for two paths only if its cuts are alike."""
        return tuple(architecture[block] for block in self.blocks())

    def prefixes(self, architecture: Architecture) -> dict[nn.Parameter, tuple[int, ...]]:
        """The shape of the part, from the start of each dimension, that the path uses of its own sliced parameters."""
        del architecture
        return {}


class Choice(PathModule):
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
            return _run(self.options[choice], inputs, architecture)
        running = architecture.running[self.block] if isinstance(architecture, Mixture) else _running(choice)
        outputs = [choice[index] * _run(self.options[index], inputs, architecture) for index in running]
        return reduce(add, outputs)

    def blocks(self) -> dict[int, int]:
        """Its own; those of elastic options are theirs."""
        return {self.block: len(self.options)}

    def cut(self, architecture: Architecture, copy: Copy) -> nn.Module:
        """The chosen option alone."""
        option = self.options[architecture[self.block]]
        return copy(option) if isinstance(option, PathModule) else Chosen(copy(option))


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

    @property
    def classifiers(self) -> list[nn.Module]:
        """The layers whose sum is the logits, of which a path calls one or more: the last nn.Linear by default.

        Raises UserError if there is none.
        """
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise UserError(
                f"expected an nn.Linear as the classifier of {type(self).__name__}, but it has none; "
                'give it a property `classifiers`, or set evaluation.head = "shared".'
            )
        return [layers[-1]]

    def choices(self) -> list[Choice]:
        """All Choice modules, in the network's own order."""
        return [module for module in self.modules() if isinstance(module, Choice)]

    def path_modules(self) -> list[PathModule]:
        """All modules that depend on the path, Choice modules among them, in the network's own order."""
        return [module for module in self.modules() if isinstance(module, PathModule)]

    def blocks(self) -> dict[int, int]:
        """The choice blocks that the network follows, in order, and how many choices each has."""
        return dict(
            sorted({block: size for one in self.path_modules() for block, size in one.blocks().items()}.items())
        )

    def per_image_blocks(self) -> set[int]:
        """The blocks for which each image may have a choice of its own in one pass: only elastic layers follow them."""
        modules = self.path_modules()
        shared = {block for module in modules if not module.per_image for block in module.blocks()}
        return {block for module in modules for block in module.blocks()} - shared

    def outermost(self) -> list[PathModule]:
        """The modules that depend on the path and lie in no other one that does, in the network's own order."""
        found: dict[PathModule, None] = {}

        def visit(module: nn.Module) -> None:
            if isinstance(module, PathModule):
                found[module] = None
            else:
                for child in module.children():
                    visit(child)

        visit(self)
        return list(found)

    def prefixes(self, architecture: Architecture) -> dict[nn.Parameter, tuple[int, ...]]:
        """How much of each sliced parameter a path uses, from the start of each dimension; all others it uses whole."""
        return {
            parameter: shape
            for module in self.path_modules()
            for parameter, shape in module.prefixes(architecture).items()
        }

    def owners(self) -> list[Owner]:
        """Each parameter with the block and the option that it belongs to, in the network's own order."""
        places: dict[nn.Parameter, set[tuple[int, int]]] = {parameter: set() for parameter in self.parameters()}
        for choice in self.choices():
            for index, option in enumerate(choice.options):
                for parameter in option.parameters():
                    places[parameter].add((choice.block, index))
        return [(parameter, frozenset(of)) for parameter, of in places.items()]

    def unused(self, architectures: Iterable[Architecture]) -> dict[nn.Parameter, Tensor]:
        """The entries of sliced parameters that none of these paths uses, as masks; those used whole are left out."""
        shapes: dict[nn.Parameter, set[tuple[int, ...]]] = {}
        for architecture in set(architectures):
            for parameter, shape in self.prefixes(architecture).items():
                shapes.setdefault(parameter, set()).add(shape)
        result = {}
        for parameter, parts in shapes.items():
            if tuple(parameter.shape) not in parts:
                result[parameter] = torch.ones_like(parameter, dtype=torch.bool)
                for shape in parts:
                    result[parameter][tuple(map(slice, shape))] = False
        return result

    def subnet(self, architecture: Architecture) -> Subnet:
        """Cut one path out: a network with its own copy of the weights, whose layers take their stand-alone form.

        That is ordinary BatchNorm with its own statistics, and a skip without stabiliser.
        """
        return self.cut(architecture)[0]

    def cut(self, architecture: Architecture) -> tuple[Subnet, dict[nn.Module, nn.Module]]:
        """A subnet, and what it has in the place of each of the supernet's modules."""
        copies: dict[nn.Module, nn.Module] = {
            module: nn.Identity() for module in self.modules() if isinstance(module, Shared)
        }
        network = _copy(self, architecture, copies)
        assert isinstance(network, Supernet)
        subnet = Subnet(network, architecture).to(next(self.parameters()).device)  # BatchNorm2d is made on the CPU
        return subnet, copies


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
        network = _copy(self, self.architecture, {part: nn.Identity() for part in parts})
        assert isinstance(network, Subnet)
        return network


def seeded(build: Callable[..., Supernet], seed: int, **settings: Any) -> Supernet:
    """Build a network whose initial weights depend on the seed alone; torch's global generator is left as it was.

    Raises ValueError for a layer with running averages, which would mix those of all paths.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        network = build(**settings)
    for name, module in network.named_modules():
        if getattr(module, "track_running_stats", False):
            raise ValueError(
                f"expected raynas.supernet.BatchNorm(channels) in a supernet, but {name} is {type(module).__name__}, "
                "whose running averages would mix those of all paths; replace it."
            )
    return network


def _running(weights: Tensor) -> list[int]:
    """Which of a block's choices have to be run: those whose weight is not zero, and one at least."""
    return [index for index, weight in enumerate(weights.tolist()) if weight != 0] or [0]


def _run(option: nn.Module, inputs: Tensor, architecture: Choices) -> Tensor:
    """An option of a choice block, which may depend on other blocks."""
    outputs: Tensor = option(inputs, architecture) if isinstance(option, PathModule) else option(inputs)
    return outputs


def _copy(module: nn.Module, architecture: Architecture, copies: dict[nn.Module, nn.Module]) -> nn.Module:
    """A copy with its own parameters and buffers; what depends on the path is cut to it.

    What has a stand-alone form (BatchNorm, ELS) takes it.
    """
    if (copy := copies.get(module)) is not None:
        return copy
    if isinstance(module, PathModule):
        copy = module.cut(architecture, lambda part: _copy(part, architecture, {}))
    elif (form := getattr(module, "stand_alone", None)) is not None:
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
            name: None if child is None else _copy(child, architecture, copies)
            for name, child in module._modules.items()
        }
    copies[module] = copy
    return copy
