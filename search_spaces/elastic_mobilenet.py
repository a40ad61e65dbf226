"""NetAdaptV2's space: MobileNetV3's layers, each of a width from nothing to all its filters, and of kernel 3, 5 or 7.

Yang et al., "NetAdaptV2", CVPR 2021 (arXiv:2104.00031). A layer is an inverted residual. Channel-level bypass: where
it has fewer filters than there are inputs, the other inputs pass by; without any filter it vanishes, so that widths
choose the depth too. Ours, where the sources we reached leave it open: the widest network is MobileNetV3-Large (Howard
et al., ICCV 2019), whose first bottleneck is no choice; widths are thirds (`steps`), (4 * 3)^14 = 1.3e15 keys, and what
a layer expands to shrinks with its filters; filters come first and the inputs with the numbers that are left follow;
inputs that pass a layer of stride 2 are averaged 2x2; and where MobileNetV3 adds a layer's input to its output, the
input is added to the filters too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from raynas.architecture import Architecture
from raynas.elastic import ElasticConv2d, Fixed, Sizes, Width, masked
from raynas.space import ChoiceBlock, Connection, SearchSpace
from raynas.supernet import Choice, Choices, Chosen, Copy, PathModule, Supernet
from search_spaces._mobile import conv_norm, scaled, strides


class Layer(NamedTuple):
    """A layer of MobileNetV3-Large at full width; its kernel is chosen."""

    channels: int
    expanded: int
    stride: int = 1
    excite: bool = False
    activation: Callable[[Tensor], Tensor] = functional.hardswish


LAYERS = (
    Layer(24, 64, stride=2, activation=functional.relu),
    Layer(24, 72, activation=functional.relu),
    Layer(40, 72, stride=2, excite=True, activation=functional.relu),
    Layer(40, 120, excite=True, activation=functional.relu),
    Layer(40, 120, excite=True, activation=functional.relu),
    Layer(80, 240, stride=2),
    Layer(80, 200),
    Layer(80, 184),
    Layer(80, 184),
    Layer(112, 480, excite=True),
    Layer(112, 672, excite=True),
    Layer(160, 672, stride=2, excite=True),
    Layer(160, 960, excite=True),
    Layer(160, 960, excite=True),
)
STEM, LAST = 16, 960
"""Channels before the layers, and behind the convolution that follows them."""
KERNELS = (3, 5, 7)
SKIP = "skip"

SMALL: dict[str, Any] = {"width": 0.1, "head_channels": 32}


def space(*, steps: int = 3) -> SearchSpace:
    """Layers of 0 to `steps` parts of all their filters; the notation lists them, as `3/3_K5-skip-1/3_K3-...`.

    Raises ValueError for less than one step.
    """
    if steps < 1:
        raise ValueError(f"expected steps of at least 1, but got {steps}; raise it.")
    widths = (SKIP, *(f"{step}/{steps}" for step in range(1, steps + 1)))
    kernels = tuple(f"K{kernel}" for kernel in KERNELS)
    names = {
        (width, kernel): f"{widths[width]}_{kernels[kernel]}" if width or kernel else SKIP
        for width in range(len(widths))
        for kernel in range(len(kernels))
    }
    pairs = {name: pair for pair, name in names.items()}

    def layers(architecture: Architecture) -> list[tuple[int, int]]:
        return list(zip(architecture[::2], architecture[1::2], strict=True))

    def canonical(architecture: Architecture) -> Architecture:
        """A vanished layer takes the first kernel, and moves behind those of the same kind, which lie in one stage."""
        found: list[tuple[int, int]] = []
        for layer, (width, kernel) in zip(LAYERS, layers(architecture), strict=True):
            place = len(found)
            while width and place and layer == LAYERS[place - 1] and not found[place - 1][0]:
                place -= 1
            found.insert(place, (width, kernel if width else 0))
        return tuple(choice for pair in found for choice in pair)

    def to_string(architecture: Architecture) -> str:
        return "-".join(names[pair] for pair in layers(architecture))

    def from_string(text: str) -> Architecture:
        terms = text.split("-")
        if len(terms) != len(LAYERS):
            raise ValueError(f"expected {len(LAYERS)} layers joined by -, such as {names[1, 1]}, but got {len(terms)}")
        for number, term in enumerate(terms, 1):
            if term not in pairs:
                raise ValueError(f"expected layer {number} to be one of {', '.join(pairs)}, but got {term!r}")
        return tuple(choice for term in terms for choice in pairs[term])

    def drawing(architecture: Architecture) -> tuple[Connection, ...]:
        labels = [f"{kernels[kernel]} {widths[width]}" if width else SKIP for width, kernel in layers(architecture)]
        stops = ["input", *(f"layer {number}" for number in range(2, len(labels) + 1)), "output"]
        return tuple(map(Connection, stops[:-1], stops[1:], labels))

    return SearchSpace(
        name="elastic_mobilenet",
        blocks=tuple(
            block
            for number in range(1, len(LAYERS) + 1)
            for block in (ChoiceBlock(f"width {number}", widths), ChoiceBlock(f"kernel {number}", kernels))
        ),
        canonical=canonical,
        to_string=to_string,
        from_string=from_string,
        drawing=drawing,
    )


SPACE = space()


def supernet(
    *,
    in_channels: int,
    classes: int,
    resolution: int,
    steps: int = 3,
    width: float = 1.0,
    head_channels: int = 1280,
) -> Supernet:
    """The network with all widths and kernels in every layer; its defaults are MobileNetV3-Large at 224 pixels.

    Smaller images are halved less often: the last maps keep a side of 4, as in `mobilenet_chain`.
    steps: as in `space`. width: factor on all channels but the head's, which are then rounded to multiples of 8.
    head_channels: before the classifier. Raises ValueError for settings that are not positive, and for more steps than
    a layer has filters.
    """
    space(steps=steps)  # refuses impossible steps
    if width <= 0 or min(head_channels, resolution) < 1:
        raise ValueError(
            f"expected a width above 0 and head_channels and resolution of at least 1, "
            f"but got {width=}, {head_channels=}, {resolution=}; raise it."
        )
    return ElasticMobileNet(in_channels, classes, strides(resolution), steps, width, head_channels)


class ElasticMobileNet(Supernet):
    """Stem, the layers, 1x1 convolution and the head of two linear layers."""

    def __init__(
        self, in_channels: int, classes: int, strides: list[int], steps: int, width: float, head_channels: int
    ) -> None:
        super().__init__()
        stem, last = scaled(STEM, width), scaled(LAST, width)
        self.stem = nn.Sequential(*conv_norm(in_channels, stem, 3, strides.pop(0)), nn.Hardswish())
        self.bottleneck = nn.Sequential(*conv_norm(stem, stem, 3, groups=stem), nn.ReLU(), *conv_norm(stem, stem, 1))
        self.layers = nn.ModuleList()
        channels: Sizes = Fixed(stem)
        for number, layer in enumerate(LAYERS):
            filters = Width(2 * number, _filters(scaled(layer.channels, width), steps))
            stride = strides.pop(0) if layer.stride == 2 else 1
            bottleneck = Bottleneck(channels, filters, scaled(layer.expanded, width), 2 * number + 1, stride, layer)
            added = stride == 1 and channels.maximum == filters.maximum
            self.layers.append(Bypassed(bottleneck, filters, stride, added))
            channels = Passed(channels, filters)
        self.last = ElasticConv2d(channels, last, kernel_size=1)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(last, head_channels),
            nn.Hardswish(),
            nn.Linear(head_channels, classes),
        )

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        features_NCHW = self.stem(images_NCHW)
        features_NCHW = features_NCHW + self.bottleneck(features_NCHW)
        for layer in self.layers:
            features_NCHW = layer(features_NCHW, architecture)
        return self.head(functional.hardswish(self.last(features_NCHW, architecture)))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Passed:
    """What leaves a layer: its filters, and behind them the inputs that pass by; no layer has fewer than come in."""

    inputs: Sizes
    filters: Width

    def __post_init__(self) -> None:
        assert self.inputs.maximum <= self.filters.maximum

    @property
    def maximum(self) -> int:
        """All filters."""
        return self.filters.maximum

    @property
    def blocks(self) -> dict[int, int]:
        """Those of this layer and of all before it."""
        return {**self.inputs.blocks, **self.filters.blocks}

    def size(self, architecture: Architecture) -> int:
        """The filters, or the inputs if they are more."""
        return max(self.inputs.size(architecture), self.filters.size(architecture))


class Bypassed(PathModule):
    """A layer's first outputs are its filters and the others its inputs, averaged 2x2 if the stride is 2.

    added: whether inputs are added to filters too, so that what passes by is the input as a whole.
    """

    per_image = True

    def __init__(self, layer: nn.Module, filters: Width, stride: int, added: bool) -> None:
        super().__init__()
        self.layer, self.filters, self.stride, self.added = layer, filters, stride, added
        # ceil: an odd side gives what the convolution gives
        self.passing = nn.Identity() if stride == 1 else nn.AvgPool2d(stride, ceil_mode=True)

    def forward(self, inputs_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> (N, max(C, filters), ceil(H / stride), ceil(W / stride)); with weights all filters."""
        count, mask = self.filters.taken(architecture)
        passing_NCHW: Tensor = self.passing(inputs_NCHW)
        if count == 0:
            return passing_NCHW
        filters_NCHW: Tensor = self.layer(inputs_NCHW, architecture)
        most = max(count, passing_NCHW.shape[1])
        if self.added:
            return _widened(filters_NCHW, most) + _widened(passing_NCHW, most)
        if mask is None:
            return torch.cat([filters_NCHW, passing_NCHW[:, count:]], 1)
        return filters_NCHW + masked(_widened(passing_NCHW, most), 1 - mask)

    def blocks(self) -> dict[int, int]:
        """That of its filters."""
        return self.filters.blocks

    def cut(self, architecture: Architecture, copy: Copy) -> nn.Module:
        """The same with its own copy of the layer; or what passes by alone."""
        if self.filters.size(architecture) == 0:
            return Chosen(copy(self.passing))
        return Bypassed(copy(self.layer), self.filters, self.stride, self.added)


class Bottleneck(nn.Module):
    """Expand, depthwise convolution of a chosen kernel, squeeze-excitation if any, project."""

    def __init__(
        self, inputs: Sizes, filters: Width, expanded: int, kernel_block: int, stride: int, layer: Layer
    ) -> None:
        super().__init__()
        parts = [size / filters.maximum for size in filters.sizes]
        hidden = Width(filters.block, tuple(scaled(expanded, part) if part else 0 for part in parts))
        squeezed = Width(filters.block, tuple(scaled(size, 1 / 4) if size else 0 for size in hidden.sizes))
        self.activation = layer.activation
        self.expand = ElasticConv2d(inputs, hidden, kernel_size=1)
        self.filter = Choice(
            kernel_block, [ElasticConv2d(hidden, hidden, kernel, stride, depthwise=True) for kernel in KERNELS]
        )
        self.excite = SqueezeExcite(hidden, squeezed) if layer.excite else None
        self.project = ElasticConv2d(hidden, filters, kernel_size=1)

    def forward(self, inputs_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> (N, filters, ceil(H / stride), ceil(W / stride))."""
        hidden_NCHW = self.activation(self.expand(inputs_NCHW, architecture))
        hidden_NCHW = self.activation(self.filter(hidden_NCHW, architecture))
        if self.excite is not None:
            hidden_NCHW = self.excite(hidden_NCHW, architecture)
        return self.project(hidden_NCHW, architecture)  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """Scale each channel by what the means of all that are in use say (Hu et al., CVPR 2018)."""

    def __init__(self, channels: Width, squeezed: Width) -> None:
        super().__init__()
        self.squeeze = ElasticConv2d(channels, squeezed, kernel_size=1, norm=False, bias=True)
        self.excite = ElasticConv2d(squeezed, channels, kernel_size=1, norm=False, bias=True)

    def forward(self, inputs_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        squeezed_NC11 = functional.relu(self.squeeze(inputs_NCHW.mean((2, 3), keepdim=True), architecture))
        return inputs_NCHW * functional.hardsigmoid(self.excite(squeezed_NC11, architecture))


def _filters(most: int, steps: int) -> tuple[int, ...]:
    """0 to `steps` parts of all filters, rounded to multiples of 8, or of less where two would be the same."""
    for unit in (8, 4, 2, 1):
        sizes = [unit * round(most * step / steps / unit) for step in range(steps + 1)]
        if len(set(sizes)) == len(sizes):
            return tuple(sizes)
    raise ValueError(f"expected at most {most} steps, the filters of the narrowest layer, but got {steps}; lower it.")


def _widened(values_NCHW: Tensor, channels: int) -> Tensor:
    """Zeros behind the channels that there are."""
    missing = channels - values_NCHW.shape[1]
    return functional.pad(values_NCHW, (0, 0, 0, 0, 0, missing)) if missing else values_NCHW
