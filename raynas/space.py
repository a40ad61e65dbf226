"""A search space as data: its choice blocks, and how its architectures are named, compared and drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raynas.architecture import Architecture, decode, encode
from raynas.errors import UserError


@dataclass(frozen=True, slots=True)
class ChoiceBlock:
    """One decision (a layer's operation, width or kernel) and its options."""

    name: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """One arrow of an architecture's drawing: from a node to a node, through an operation."""

    source: str
    target: str
    operation: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A part of a network of one width: its channels, its layers, and how many channels its skip links carry in all.

    pixels: of its maps, as a share of the first cell's.
    """

    width: float
    layers: float
    links: float
    pixels: float = 1.0


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The set of architectures; its size is the product of the blocks' numbers of choices.

    canonical: maps every architecture to one encoding per distinct network (None: all are distinct).
    to_string, from_string: the space's own notation, if it has one; `from_string` raises ValueError on what it does
        not know.
    drawing: the arrows of an architecture's picture (None: a chain of its choices).
    derive: the architecture that weights of all choices, shape (choices,) for each block, are discretised to (None: the
        heaviest choice of each block that is not `none`).
    cells: the cells of an architecture, from input to output, and of choices in between, such as 0.5 (None: the space
        has none); what grows along the choices grows along them too.
    synonyms: those keys of an architecture's network, from its canonical one on, that run through different weights of
        a supernet (None: the canonical one alone).
    """

    name: str
    blocks: tuple[ChoiceBlock, ...]
    canonical: Callable[[Architecture], Architecture] | None = None
    to_string: Callable[[Architecture], str] | None = None
    from_string: Callable[[str], Architecture] | None = None
    drawing: Callable[[Architecture], tuple[Connection, ...]] | None = None
    derive: Callable[[Sequence[NDArray[np.float64]]], Architecture] | None = None
    cells: Callable[[Sequence[float]], tuple[Cell, ...]] | None = None
    synonyms: Callable[[Architecture], Sequence[Architecture]] | None = None

    @property
    def size(self) -> int:
        """How many keys (encodings) the space has."""
        size = 1
        for block in self.blocks:
            size *= len(block.choices)
        return size

    def probabilities(self, given: Sequence[ArrayLike] | None) -> tuple[NDArray[np.float64], ...]:
        """A distribution over each block's choices, shape (choices,) each; uniform ones where none are given.

        Raises UserError if these are none of this space.
        """
        if given is None:
            return self.uniform_probabilities()
        sizes = [len(block.choices) for block in self.blocks]
        found = tuple(np.asarray(of_choices, dtype=np.float64) for of_choices in given)
        if [p.shape for p in found] != [(size,) for size in sizes] or not all(
            (p >= 0).all() and np.isclose(p.sum(), 1, atol=1e-4) for p in found
        ):
            raise UserError(
                f"{self.name} expects one distribution per block, over {sizes} choices, but got "
                f"{[p.round(3).tolist() for p in found]}; take them from a supernet of this space."
            )
        return found

    def uniform_probabilities(self) -> tuple[NDArray[np.float64], ...]:
        """For each block the uniform distribution over its choices."""
        return tuple(np.full(len(block.choices), 1 / len(block.choices)) for block in self.blocks)

    def check(self, architecture: Architecture) -> Architecture:
        """Return the architecture if it lies in the space; raises UserError otherwise."""
        limits = [len(block.choices) for block in self.blocks]
        if len(architecture) != len(limits) or any(
            not 0 <= choice < limit for choice, limit in zip(architecture, limits, strict=True)
        ):
            raise UserError(
                f"{self.name} expects {len(limits)} choices below {encode(tuple(limits))}, "
                f"but got {encode(architecture)!r}; correct the architecture or name its own space."
            )
        return architecture

    def canonicalise(self, architecture: Architecture) -> Architecture:
        """One encoding per distinct network."""
        return self.canonical(architecture) if self.canonical else architecture

    def is_canonical(self, architecture: Architecture) -> bool:
        """Whether this key is the one that stands for its network."""
        return self.canonicalise(architecture) == architecture

    def print(self, architecture: Architecture) -> str:
        """The architecture in the space's own notation, or as `0-3-1`."""
        return self.to_string(architecture) if self.to_string else encode(architecture)

    def parse(self, text: str) -> Architecture:
        """Read `0-3-1` or the space's own notation; raises UserError for what is neither or lies outside."""
        text = text.strip()
        if self.from_string is not None:
            try:
                return self.check(self.from_string(text))
            except ValueError as mistake:
                reason = str(mistake)
        else:
            reason = ""
        try:
            return self.check(decode(text))
        except ValueError as mistake:
            raise UserError(f"{text!r} is no architecture of {self.name}: {reason or mistake}") from None

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw a key uniformly."""
        return tuple(int(rng.integers(len(block.choices))) for block in self.blocks)

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Change one block, drawn uniformly, to another of its choices."""
        index = int(rng.choice([b for b, block in enumerate(self.blocks) if len(block.choices) > 1]))
        other = int(rng.integers(len(self.blocks[index].choices) - 1))
        other += other >= architecture[index]
        return (*architecture[:index], other, *architecture[index + 1 :])

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """All keys that differ from this one in one block."""
        return [
            (*architecture[:index], other, *architecture[index + 1 :])
            for index, block in enumerate(self.blocks)
            for other in range(len(block.choices))
            if other != architecture[index]
        ]

    def strongest(self, weights: Sequence[NDArray[np.float64]]) -> Architecture:
        """What weights of all choices, shape (choices,) for each block, are discretised to; of equal ones the first."""
        if self.derive is not None:
            return self.derive(weights)
        result = []
        for block, of_choices in zip(self.blocks, weights, strict=True):
            named = [index for index, choice in enumerate(block.choices) if not is_none(choice)]
            result.append(max(named or range(len(block.choices)), key=of_choices.__getitem__))
        return tuple(result)

    def connections(self, architecture: Architecture) -> tuple[Connection, ...]:
        """The arrows to draw: the space's own drawing, or a chain of the choices."""
        if self.drawing is not None:
            return self.drawing(architecture)
        stops = ["input", *(block.name for block in self.blocks[1:]), "output"]
        return tuple(
            Connection(source, target, block.choices[choice])
            for source, target, block, choice in zip(stops[:-1], stops[1:], self.blocks, architecture, strict=True)
        )


def is_none(operation: str) -> bool:
    """Whether a choice of this name leaves out its edge."""
    return operation.casefold() in ("none", "zero")


def is_skip(operation: str) -> bool:
    """Whether a choice of this name computes nothing: a skip, an identity."""
    return any(word in operation.casefold() for word in ("skip", "identity"))


def topological(connections: Sequence[Connection]) -> list[str]:
    """Every node after those that feed it, otherwise as first named; a circle, which no drawing needs, as named."""
    waiting = list(dict.fromkeys(node for arrow in connections for node in (arrow.source, arrow.target)))
    order: list[str] = []
    while waiting:
        ready = (
            node
            for node in waiting
            if not any(arrow.target == node and arrow.source in waiting for arrow in connections)
        )
        order.append(next(ready, waiting[0]))
        waiting.remove(order[-1])
    return order
