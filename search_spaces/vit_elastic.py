"""Elastic vision transformer: embedding, depth, and each layer's attention heads and MLP ratio (AutoFormer).

Chen et al., "AutoFormer: Searching Transformers for Visual Recognition", ICCV 2021 (arXiv:2107.00651). The choices are
those of its tiny space; every head has 64 features whatever the embedding, so that the heads are its choice of the
Q-K-V dimension (192 or 256) too. The weights are entangled: every choice takes a prefix of the same weights. As in its
recipes, the tokens are averaged in place of a class token. Its relative positions are left out, positions are learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raynas.architecture import Architecture
from raynas.elastic import Channels, ElasticLayerNorm, ElasticLinear, Sometimes, Width, masked, or_skipped
from raynas.space import ChoiceBlock, SearchSpace
from raynas.supernet import Choices, Copy, PathModule, Supernet

EMBEDDINGS = (192, 216, 240)
DEPTHS = (12, 13, 14)
HEADS = (3, 4)
RATIOS = (3.5, 4.0)
EMBEDDING, DEPTH, FIRST_LAYER = range(3)
"""The first choice blocks; each layer then has one for its heads and one for its MLP ratio."""

SMALL: dict[str, Any] = {"embeddings": (8, 10, 12), "depths": (12, 13, 14), "head_features": 2, "patch": 4}


def space(
    *,
    embeddings: Sequence[int] = EMBEDDINGS,
    depths: Sequence[int] = DEPTHS,
    heads: Sequence[int] = HEADS,
    ratios: Sequence[float] = RATIOS,
) -> SearchSpace:
    """The transformers of these ranges; AutoFormer-S has embeddings 320, 384, 448, 5 to 7 heads, and ratios from 3.

    Raises ValueError for a range that is empty, holds what is not positive, or is not in rising order.
    """
    for name, values in (("embeddings", embeddings), ("depths", depths), ("heads", heads), ("ratios", ratios)):
        if not values or min(values) <= 0 or list(values) != sorted(set(values)):
            raise ValueError(f"expected {name} above 0 in rising order, but got {tuple(values)}; correct them.")
    if embeddings[0] * ratios[0] < 1:
        raise ValueError(
            f"expected embeddings and ratios whose least product is at least 1, the hidden channels of an MLP, "
            f"but got {embeddings[0]} and {ratios[0]:g}; raise one of them."
        )
    per_layer = [(str(count), f"{ratio:g}") for count in heads for ratio in ratios]

    def layers(architecture: Architecture) -> list[tuple[int, int]]:
        return list(zip(architecture[FIRST_LAYER::2], architecture[FIRST_LAYER + 1 :: 2], strict=True))

    def canonical(architecture: Architecture) -> Architecture:
        """Layers beyond the depth take their first choices, the cheapest."""
        used = FIRST_LAYER + 2 * depths[architecture[DEPTH]]
        return (*architecture[:used], *(0 for _ in architecture[used:]))

    def to_string(architecture: Architecture) -> str:
        """`192: 3x3.5 4x4 ...`, the embedding and the layers; behind a bar those beyond the depth, if any is chosen."""
        terms = [f"{heads[count]}x{ratios[ratio]:g}" for count, ratio in layers(architecture)]
        depth = depths[architecture[DEPTH]]
        beyond = f" | {' '.join(terms[depth:])}" if any(architecture[FIRST_LAYER + 2 * depth :]) else ""
        return f"{embeddings[architecture[EMBEDDING]]}: {' '.join(terms[:depth])}{beyond}"

    def from_string(text: str) -> Architecture:
        """Read `to_string`; raises ValueError for anything else."""
        first, _, rest = text.partition(": ")
        used, _, beyond = rest.partition(" | ")
        terms = [tuple(term.split("x")) for term in (*used.split(" "), *(beyond.split(" ") if beyond else ()))]
        depth = len(used.split(" "))
        if (
            first not in map(str, embeddings)
            or depth not in depths
            or not set(terms) <= set(per_layer)
            or len(terms) not in (depth, depths[-1])
        ):
            raise ValueError(
                f"expected an embedding of {tuple(embeddings)} and {tuple(depths)} layers of heads x ratio from "
                f"{', '.join(map('x'.join, per_layer))}, such as 192: 3x3.5 4x4 ..., but got {text!r}"
            )
        codes = [divmod(per_layer.index((count, ratio)), len(ratios)) for count, ratio in terms]
        codes += [(0, 0)] * (depths[-1] - len(codes))
        choices = (choice for code in codes for choice in code)
        return (list(map(str, embeddings)).index(first), list(depths).index(depth), *choices)

    return SearchSpace(
        name="vit_elastic",
        blocks=(
            ChoiceBlock("embedding", tuple(map(str, embeddings))),
            ChoiceBlock("depth", tuple(map(str, depths))),
            *(
                block
                for number in range(1, depths[-1] + 1)
                for block in (
                    ChoiceBlock(f"heads {number}", tuple(f"{count} heads" for count in heads)),
                    ChoiceBlock(f"ratio {number}", tuple(f"ratio {ratio:g}" for ratio in ratios)),
                )
            ),
        ),
        canonical=canonical,
        to_string=to_string,
        from_string=from_string,
    )


SPACE = space()


def supernet(
    *,
    in_channels: int,
    classes: int,
    resolution: int,
    embeddings: Sequence[int] = EMBEDDINGS,
    depths: Sequence[int] = DEPTHS,
    heads: Sequence[int] = HEADS,
    ratios: Sequence[float] = RATIOS,
    head_features: int = 64,
    patch: int = 4,
) -> Supernet:
    """The transformer with all choices of these ranges (as in `space`), for square images.

    head_features: of each attention head. patch: side of a patch in pixels, 4 for images of 32 pixels and 16 for those
    of 224; images whose side is not a multiple of it are padded with zeros. Raises ValueError for what is not positive.
    """
    space(embeddings=embeddings, depths=depths, heads=heads, ratios=ratios)  # refuses impossible ranges
    if min(head_features, patch, resolution) < 1:
        raise ValueError(
            f"expected head_features, patch and resolution of at least 1, "
            f"but got {head_features=}, {patch=}, {resolution=}; raise it."
        )
    tokens = (-(-resolution // patch)) ** 2
    embedding = Width(EMBEDDING, tuple(embeddings))
    layers = [
        Layer(
            Attention(embedding, FIRST_LAYER + 2 * number, tuple(heads), head_features),
            Mlp(embedding, Hidden(embedding, FIRST_LAYER + 2 * number + 1, tuple(ratios))),
        )
        for number in range(depths[-1])
    ]
    return VitElastic(in_channels, classes, patch, tokens, embedding, tuple(depths), layers)


class VitElastic(Supernet):
    """Patches, positions, the layers, and the classifier of the mean token."""

    def __init__(
        self,
        in_channels: int,
        classes: int,
        patch: int,
        tokens: int,
        embedding: Width,
        depths: Sequence[int],
        layers: Sequence[Layer],
    ) -> None:
        super().__init__()
        self.patch = patch
        self.embed = ElasticLinear(in_channels * patch**2, embedding)
        self.positions = Positions(tokens, embedding)
        self.layers = nn.ModuleList(
            Sometimes(layer, DEPTH, [number < depth for depth in depths]) for number, layer in enumerate(layers)
        )
        self.norm = ElasticLayerNorm(embedding)
        self.head = ElasticLinear(embedding, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @property
    def classifiers(self) -> list[nn.Module]:
        """The elastic layer, which is called in place of the nn.Linear inside it."""
        return [self.head]

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        down, right = (-side % self.patch for side in images_NCHW.shape[2:])
        patches_NCHW = functional.pixel_unshuffle(functional.pad(images_NCHW, (0, right, 0, down)), self.patch)
        tokens_NTE = self.embed(patches_NCHW.flatten(2).transpose(1, 2), architecture)
        tokens_NTE = self.positions(tokens_NTE, architecture)
        for layer in self.layers:
            tokens_NTE = or_skipped(layer, tokens_NTE, tokens_NTE, architecture)
        return self.head(self.norm(tokens_NTE, architecture).mean(1), architecture)  # type: ignore[no-any-return]


class Positions(PathModule):
    """Adds what is learnt for each position."""

    def __init__(self, tokens: int, embedding: Width) -> None:
        super().__init__()
        self.embedding = embedding
        self.values_TE = nn.Parameter(torch.empty(tokens, embedding.maximum))
        nn.init.trunc_normal_(self.values_TE, std=0.02)

    def forward(self, tokens_NTE: Tensor, architecture: Choices) -> Tensor:
        """(N, T, E) -> the same shape."""
        features, mask = self.embedding.taken(architecture)
        return tokens_NTE + masked(self.values_TE[None, :, :features], mask, last=True)

    def blocks(self) -> dict[int, int]:
        """That of the embedding."""
        return self.embedding.blocks

    def cut(self, architecture: Architecture, copy: Copy) -> nn.Module:
        """The same, of the chosen features."""
        del copy
        features = self.embedding.size(architecture)
        cut = Positions(len(self.values_TE), Width(EMBEDDING, (features,) * len(self.embedding.sizes)))
        cut.values_TE = nn.Parameter(self.values_TE.detach()[:, :features].clone())
        return cut

    def prefixes(self, architecture: Architecture) -> dict[nn.Parameter, tuple[int, ...]]:
        """The chosen features of every position."""
        return {self.values_TE: (len(self.values_TE), self.embedding.size(architecture))}


@dataclass(frozen=True, slots=True)
class Hidden:
    """The channels between an MLP's two layers: the embedding times the chosen ratio, rounded down."""

    embedding: Width
    block: int
    ratios: tuple[float, ...]

    @property
    def maximum(self) -> int:
        """The widest ratio of the widest embedding."""
        return int(self.embedding.maximum * max(self.ratios))

    @property
    def blocks(self) -> dict[int, int]:
        """That of the embedding, and that of the ratio."""
        return {**self.embedding.blocks, self.block: len(self.ratios)}

    def size(self, architecture: Architecture) -> int:
        """That of both choices."""
        return int(self.embedding.size(architecture) * self.ratios[architecture[self.block]])

    def taken(self, architecture: Choices) -> tuple[int, Tensor | None]:
        """The channels of both choices; where either has weights, the weighted sum of the pairs' prefix masks."""
        sizes = [[int(embedding * ratio) for ratio in self.ratios] for embedding in self.embedding.sizes]
        ends = architecture[self.embedding.block], architecture[self.block]
        weights = [end for end in ends if isinstance(end, Tensor)]
        if not weights:
            return sizes[ends[0]][ends[1]], None
        counts = len(sizes), len(self.ratios)
        first, second = (
            end if isinstance(end, Tensor) else torch.eye(count).to(weights[0])[end]
            for end, count in zip(ends, counts, strict=True)
        )
        pairs = (first[..., :, None] * second[..., None, :]).flatten(-2)
        masks = torch.arange(self.maximum) < torch.tensor(sizes).flatten()[:, None]
        return self.maximum, pairs @ masks.to(pairs)


class Layer(nn.Module):
    """Attention, then MLP, each added to what it reads."""

    def __init__(self, attention: Attention, mlp: Mlp) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp

    def forward(self, tokens_NTE: Tensor, architecture: Choices) -> Tensor:
        """(N, T, E) -> the same shape."""
        tokens_NTE = tokens_NTE + self.attention(tokens_NTE, architecture)
        return tokens_NTE + self.mlp(tokens_NTE, architecture)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Layer normalisation and self-attention; a head's query, key and value lie side by side, so heads are a prefix."""

    def __init__(self, embedding: Channels, block: int, heads: tuple[int, ...], features: int) -> None:
        super().__init__()
        self.features = features
        self.norm = ElasticLayerNorm(embedding)
        self.qkv = ElasticLinear(embedding, Width(block, tuple(3 * features * count for count in heads)))
        self.out = ElasticLinear(Width(block, tuple(features * count for count in heads)), embedding)

    def forward(self, tokens_NTE: Tensor, architecture: Choices) -> Tensor:
        """(N, T, E) -> the same shape."""
        qkv_NTF = self.qkv(self.norm(tokens_NTE, architecture), architecture)
        heads_NHTF = qkv_NTF.unflatten(-1, (-1, 3 * self.features)).transpose(1, 2)
        query, key, value = heads_NHTF.split(self.features, -1)
        attended_NHTF = functional.scaled_dot_product_attention(query, key, value)
        return self.out(attended_NHTF.transpose(1, 2).flatten(2), architecture)  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Layer normalisation and two linear layers with a GELU between them."""

    def __init__(self, embedding: Channels, hidden: Channels) -> None:
        super().__init__()
        self.norm = ElasticLayerNorm(embedding)
        self.expand, self.project = ElasticLinear(embedding, hidden), ElasticLinear(hidden, embedding)

    def forward(self, tokens_NTE: Tensor, architecture: Choices) -> Tensor:
        """(N, T, E) -> the same shape."""
        hidden_NTF = functional.gelu(self.expand(self.norm(tokens_NTE, architecture), architecture))
        return self.project(hidden_NTF, architecture)  # type: ignore[no-any-return]
