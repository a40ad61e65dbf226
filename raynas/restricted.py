"""A supernet as a partition of its space sees it: the one place where choice indices are translated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raynas.architecture import Architecture
from raynas.partition import Partition
from raynas.supernet import Choice, Choices, Mixture, Owner, Subnet, Supernet


class Restricted(Supernet):
    """The same weights under the choice indices of the partition's own space, so that every rule works on it."""

    def __init__(self, network: Supernet, partition: Partition) -> None:
        super().__init__()
        self.network = network
        self.partition = partition
        self.sizes = network.blocks()

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """One path, or a relaxed mixture, of the partition: (N, C, H, W) -> logits (N, K)."""
        outer: Choices = [self._outer(b, choice) for b, choice in enumerate(architecture)]
        if isinstance(architecture, Mixture):
            choices = zip(self.partition.choices, architecture.running, strict=True)
            outer = Mixture(outer, [[allowed[index] for index in running] for allowed, running in choices])  # type: ignore[arg-type]
        return self.network(images_NCHW, outer)  # type: ignore[no-any-return]

    def choices(self) -> list[Choice]:
        """The network's Choice modules with the options that the partition has."""
        return [
            Choice(choice.block, [choice.options[option] for option in self.partition.choices[choice.block]])
            for choice in self.network.choices()
        ]

    def owners(self) -> list[Owner]:
        """Each parameter that a path of the partition can run through, with the places where they do there."""
        found: list[Owner] = []
        for parameter, places in self.network.owners():
            inner = frozenset(
                (block, allowed.index(option))
                for block, option in places
                if option in (allowed := self.partition.choices[block])
            )
            if inner or not places:
                found.append((parameter, inner))
        return found

    def prefixes(self, architecture: Architecture) -> dict[nn.Parameter, tuple[int, ...]]:
        """What the path uses of the network's sliced parameters."""
        return self.network.prefixes(self.partition.outer(architecture))

    def cut(self, architecture: Architecture) -> tuple[Subnet, dict[nn.Module, nn.Module]]:
        """The path cut out of the network."""
        return self.network.cut(self.partition.outer(architecture))

    def _outer(self, block: int, choice: int | Tensor) -> int | Tensor:
        allowed = self.partition.choices[block]
        if not isinstance(choice, Tensor):
            return allowed[choice]
        places = torch.tensor(allowed, device=choice.device)
        without = choice.new_zeros(*choice.shape[:-1], self.sizes[block])  # the others have no weight
        return without.index_copy(-1, places, choice)
