"""Elastic layers: one set of weights holds every width of a layer, and a width is a prefix of its channels.

With a choice's index a layer slices its weights and computes the chosen channels alone. With weights over the choices
it computes all channels and multiplies them by the weighted sum of the widths' prefix masks (FBNetV2's channel masking:
Wan et al., CVPR 2020), which for a single choice is the sliced layer. With weights of each image, shape (N, choices),
every image has its own width in one pass (ordered dropout: Yang et al., NetAdaptV2, CVPR 2021). Masked channels are 0.

Weights are slimmable networks' (Yu et al., ICLR 2019): the first channels are those of every width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from raynas.architecture import Architecture
from raynas.depthwise import DepthwiseConv2d
from raynas.supernet import BatchNorm, Choices, Chosen, Copy, PathModule


class Sizes(Protocol):
    """How many channels a tensor has on a path."""

    @property
    def maximum(self) -> int:
        """The most that any path has."""

    @property
    def blocks(self) -> dict[int, int]:
        """The choice blocks that decide it, and how many choices each has."""

    def size(self, architecture: Architecture) -> int:
        """How many one path has."""


class Channels(Sizes, Protocol):
    """The same of a layer's outputs, which also says how they are computed."""

    def taken(self, architecture: Choices) -> tuple[int, Tensor | None]:
        """How many are computed in a forward pass, and what they are multiplied by: (C,), (N, C), or None for 1."""


AnySizes = TypeVar("AnySizes", bound=Sizes)


@dataclass(frozen=True, slots=True)
class Width:
    """The first `sizes[choice]` of `max(sizes)` channels, by the choice of one block."""

    block: int
    sizes: tuple[int, ...]

    @property
    def maximum(self) -> int:
        """The widest choice's."""
        return max(self.sizes)

    @property
    def blocks(self) -> dict[int, int]:
        """Its one block."""
        return {self.block: len(self.sizes)}

    def size(self, architecture: Architecture) -> int:
        """That of the choice."""
        return self.sizes[architecture[self.block]]

    def taken(self, architecture: Choices) -> tuple[int, Tensor | None]:
        """A choice's own channels; or all of them, and for weights over choices the weighted sum of prefix masks."""
        choice = architecture[self.block]
        if not isinstance(choice, Tensor):
            return self.sizes[choice], None
        return self.maximum, choice @ _prefix_masks(self.sizes, choice.dtype, choice.device)


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same channels on every path; where a layer wants to know, a plain number says it too."""

    maximum: int

    @property
    def blocks(self) -> dict[int, int]:
        """None."""
        return {}

    def size(self, architecture: Architecture) -> int:
        """Always the same."""
        del architecture
        return self.maximum

    def taken(self, architecture: Choices) -> tuple[int, Tensor | None]:
        """All, as they are."""
        del architecture
        return self.maximum, None


def as_channels(channels: AnySizes | int) -> AnySizes | Fixed:
    """A plain number as what is the same on every path."""
    return Fixed(channels) if isinstance(channels, int) else channels


class ElasticConv2d(PathModule):
    """A convolution of elastic input and output channels, by default with its batch normalisation; padded to keep H, W.

    depthwise: one filter per channel; `inputs` and `outputs` are then the same. norm: whether it is normalised.
    """

    per_image = True

    def __init__(
        self,
        inputs: Sizes | int,
        outputs: Channels | int,
        kernel_size: int,
        stride: int = 1,
        *,
        depthwise: bool = False,
        norm: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.depthwise = as_channels(inputs), as_channels(outputs), depthwise
        self.convolution = nn.Conv2d(
            self.inputs.maximum,
            self.outputs.maximum,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=self.outputs.maximum if depthwise else 1,
            bias=bias,
        )
        self.norm = ElasticBatchNorm(self.outputs) if norm else None

    def forward(self, inputs_NCHW: Tensor, architecture: Choices, images_N: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)); C may be any prefix of the input channels.

        images_N: how much each image counts in the normalisation's statistics (None: all count alike).
        """
        channels, mask = self.outputs.taken(architecture)
        weight, bias = self.convolution.weight, self.convolution.bias
        if isinstance(self.convolution, DepthwiseConv2d):
            outputs_NCHW = self.convolution.convolved(inputs_NCHW, weight[:channels])
        else:
            outputs_NCHW = functional.conv2d(
                inputs_NCHW,
                weight[:channels] if self.depthwise else weight[:channels, : inputs_NCHW.shape[1]],
                None if bias is None else bias[:channels],
                self.convolution.stride,
                self.convolution.padding,
                groups=channels if self.depthwise else 1,
            )
        return masked(outputs_NCHW, mask) if self.norm is None else self.norm(outputs_NCHW, architecture, images_N)

    def blocks(self) -> dict[int, int]:
        """Those of both its ends."""
        return {**self.inputs.blocks, **self.outputs.blocks}

    def form(self, architecture: Architecture) -> tuple[int, ...]:
        """The sizes in use."""
        return self.inputs.size(architecture), self.outputs.size(architecture)

    def cut(self, architecture: Architecture, copy: Copy) -> nn.Module:
        """An ordinary convolution, with an ordinary BatchNorm2d if it has one."""
        convolution = copy(self.convolution)
        assert isinstance(convolution, nn.Conv2d)
        convolution.in_channels, convolution.out_channels = (
            self.inputs.size(architecture),
            self.outputs.size(architecture),
        )
        convolution.groups = convolution.out_channels if self.depthwise else 1
        _slice(convolution, self, architecture)
        if self.norm is None:
            return Chosen(convolution)
        return Chosen(nn.Sequential(convolution, copy(self.norm.sliced(architecture))))

    def prefixes(self, architecture: Architecture) -> dict[nn.Parameter, tuple[int, ...]]:
        """Of the weight the filters and input channels in use, of the bias the filters."""
        filters, inputs = self.outputs.size(architecture), 1 if self.depthwise else self.inputs.size(architecture)
        return _prefixes(self.convolution, (filters, inputs, *self.convolution.kernel_size))


class ElasticLinear(PathModule):
    """A linear layer of elastic input and output features, which are the last dimension."""

    per_image = True

    def __init__(self, inputs: Sizes | int, outputs: Channels | int, bias: bool = True) -> None:
        super().__init__()
        self.inputs, self.outputs = as_channels(inputs), as_channels(outputs)
        self.linear = nn.Linear(self.inputs.maximum, self.outputs.maximum, bias)

    def forward(self, inputs: Tensor, architecture: Choices) -> Tensor:
        """(N, ..., C) -> (N, ..., out); C may be any prefix of the input features."""
        features, mask = self.outputs.taken(architecture)
        weight, bias = self.linear.weight, self.linear.bias
        part = weight[
            :features, : inputs.shape[-1]
        ].contiguous()  # a product of strided rows is summed in another order
        outputs = functional.linear(inputs, part, None if bias is None else bias[:features])
        return masked(outputs, mask, last=True)

    def blocks(self) -> dict[int, int]:
        """Those of both its ends."""
        return {**self.inputs.blocks, **self.outputs.blocks}

    def form(self, architecture: Architecture) -> tuple[int, ...]:
        """The sizes in use."""
        return self.inputs.size(architecture), self.outputs.size(architecture)

    def cut(self, architecture: Architecture, copy: Copy) -> nn.Module:
        """An ordinary linear layer."""
        linear = copy(self.linear)
        assert isinstance(linear, nn.Linear)
        linear.in_features, linear.out_features = self.inputs.size(architecture), self.outputs.size(architecture)
        _slice(linear, self, architecture)
        return Chosen(linear)

    def prefixes(self, architecture: Architecture) -> dict[nn.Parameter, tuple[int, ...]]:
        """Of the weight the output and input features in use, of the bias the output features."""
        return _prefixes(self.linear, (self.outputs.size(architecture), self.inputs.size(architecture)))


class ElasticBatchNorm(PathModule):
    """Batch normalisation of elastic channels.

    With widths of each image, a channel's statistics count only the images that have it, and it stays zero in others.
    """

    per_image = True

    def __init__(self, channels: Channels | int) -> None:
        super().__init__()
        self.channels = as_channels(channels)
        self.norm = BatchNorm(self.channels.maximum)

    def forward(self, inputs_NCHW: Tensor, architecture: Choices, images_N: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> the same shape; images_N: how much each image counts (None: all count alike)."""
        _, mask = self.channels.taken(architecture)
        counted_NC = mask if mask is not None and mask.dim() == 2 else None
        if images_N is not None:
            ones_NC = inputs_NCHW.new_ones(inputs_NCHW.shape[:2])
            counted_NC = images_N[:, None] * (ones_NC if counted_NC is None else counted_NC)
        return masked(self.norm(inputs_NCHW, counted_NC), mask)

    def blocks(self) -> dict[int, int]:
        """Those of its channels."""
        return self.channels.blocks

    def form(self, architecture: Architecture) -> tuple[int, ...]:
        """The sizes in use."""
        return (self.channels.size(architecture),)

    def cut(self, architecture: Architecture, copy: Copy) -> nn.Module:
        """An ordinary BatchNorm2d."""
        return Chosen(copy(self.sliced(architecture)))

    def sliced(self, architecture: Architecture) -> BatchNorm:
        """The normalisation of the channels in use alone."""
        return BatchNorm(self.channels.size(architecture), self.norm.eps)


class ElasticLayerNorm(PathModule):
    """Layer normalisation of elastic features (the last dimension), with scale and shift; over those in use alone."""

    per_image = True

    def __init__(self, features: Channels | int, eps: float = 1e-6) -> None:
        super().__init__()
        self.features = as_channels(features)
        self.norm = nn.LayerNorm(self.features.maximum, eps=eps)

    def forward(self, inputs: Tensor, architecture: Choices) -> Tensor:
        """(N, ..., F) -> the same shape."""
        features, mask = self.features.taken(architecture)
        weight, bias = self.norm.weight[:features], self.norm.bias[:features]
        if mask is None:
            return functional.layer_norm(inputs, (features,), weight, bias, self.norm.eps)
        counted = _aligned(mask, inputs, last=True)
        count = counted.sum(-1, keepdim=True).clamp(min=torch.finfo(counted.dtype).tiny)  # 0: nothing is in use
        centred = inputs - (inputs * counted).sum(-1, keepdim=True) / count
        variance = (centred.square() * counted).sum(-1, keepdim=True) / count
        return (centred * (variance + self.norm.eps).rsqrt() * weight + bias) * counted

    def blocks(self) -> dict[int, int]:
        """Those of its features."""
        return self.features.blocks

    def form(self, architecture: Architecture) -> tuple[int, ...]:
        """The sizes in use."""
        return (self.features.size(architecture),)

    def cut(self, architecture: Architecture, copy: Copy) -> nn.Module:
        """An ordinary LayerNorm."""
        norm = copy(self.norm)
        assert isinstance(norm, nn.LayerNorm)
        norm.normalized_shape = (self.features.size(architecture),)
        _slice(norm, self, architecture)
        return Chosen(norm)

    def prefixes(self, architecture: Architecture) -> dict[nn.Parameter, tuple[int, ...]]:
        """Of scale and shift the features in use."""
        return _prefixes(self.norm, (self.features.size(architecture),))


class Sometimes(PathModule):
    """A layer that a path has with some choices of a block only: depth is elastic too.

    present: for each of the block's choices whether the path has the layer. block: None for a layer of every path.
    """

    def __init__(self, layer: nn.Module, block: int | None = None, present: Sequence[bool] = (True,)) -> None:
        super().__init__()
        self.layer, self.block, self.present = layer, block, tuple(present)
        self.follows = any(isinstance(module, PathModule | Chosen) for module in layer.modules())

    def weight(self, architecture: Choices) -> int | Tensor:
        """Whether a path has the layer: 1 or 0; with weights over the choices their sum, () or of each image (N,)."""
        choice = 0 if self.block is None else architecture[self.block]
        if not isinstance(choice, Tensor):
            return int(self.present[choice])
        return choice @ choice.new_tensor(self.present)

    def forward(self, inputs: Any, architecture: Choices) -> Tensor:
        """What the layer gives, to be asked for where its weight is not zero."""
        return self.layer(inputs, architecture) if self.follows else self.layer(inputs)  # type: ignore[no-any-return]

    def blocks(self) -> dict[int, int]:
        """Its block, if it has one."""
        return {} if self.block is None else {self.block: len(self.present)}

    def form(self, architecture: Architecture) -> tuple[int, ...]:
        """Whether the path has it."""
        return (int(self.weight(architecture)),)

    def cut(self, architecture: Architecture, copy: Copy) -> nn.Module:
        """The same with its own copy of the layer, or with nothing that could be asked for."""
        return Sometimes(copy(self.layer) if self.weight(architecture) else nn.Identity(), self.block, self.present)


def masked(values: Tensor, mask: Tensor | None, *, last: bool = False) -> Tensor:
    """Values (N, ...) times a mask (C,) or (N, C) of dimension 1, or of the last; as they are without one."""
    return values if mask is None else values * _aligned(mask, values, last=last)


def scaled(values: Tensor, weight: int | Tensor) -> Tensor:
    """Values (N, ...) times the weight of a layer that is not absent: 1, (), or (N,)."""
    return values * weight.reshape(-1, *(1,) * (values.dim() - 1)) if isinstance(weight, Tensor) else values


def is_absent(weight: int | Tensor) -> bool:
    """Whether a layer of this weight need not be computed."""
    return not weight.any() if isinstance(weight, Tensor) else not weight


def or_skipped(layer: nn.Module, inputs: Any, otherwise: Tensor, architecture: Choices) -> Tensor:
    """What the layer gives for its inputs, or `otherwise` where the path lacks the layer; in between with weights."""
    assert isinstance(layer, Sometimes)
    weight = layer.weight(architecture)
    if is_absent(weight):
        return otherwise
    outputs = layer(inputs, architecture)
    return scaled(outputs, weight) + scaled(otherwise, 1 - weight) if isinstance(weight, Tensor) else outputs


def _aligned(mask: Tensor, values: Tensor, *, last: bool) -> Tensor:
    """The mask, with a dimension of 1 for each that it lacks."""
    images = mask.shape[:-1] or (1,)
    others = (1,) * (values.dim() - 2)
    return mask.reshape(*images, *others, -1) if last else mask.reshape(*images, -1, *others)


@cache
def _prefix_masks(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 for the channels of each choice, 0 for the others: (choices, max(sizes))."""
    masks = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    return masks.to(device, dtype)


def _prefixes(layer: nn.Module, shape: tuple[int, ...]) -> dict[nn.Parameter, tuple[int, ...]]:
    """Of a layer's weight the part of this shape; of its bias as many entries as of the weight's first dimension."""
    return {parameter: shape[: parameter.dim()] for parameter in layer.parameters()}


def _slice(layer: nn.Module, whole: PathModule, architecture: Architecture) -> None:
    """Replace the copied layer's parameters by the part that the path uses, in memory of its own."""
    shapes = whole.prefixes(architecture).values()
    for (name, parameter), shape in zip(list(layer.named_parameters()), shapes, strict=True):
        part = parameter.detach()[tuple(map(slice, shape))]
        setattr(layer, name, nn.Parameter(part.clone()))
