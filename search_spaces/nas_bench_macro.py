"""NAS-Bench-Macro: a chain of eight layers in three stages, each layer an identity or one of two MobileNet blocks.

Su et al., CVPR 2021 (arXiv:2103.11922). The choice blocks are the layers from input to output, the choices 0 identity,
1 MB3_K3 (expansion 3, kernel 3) and 2 MB6_K5, so that a key such as `22212220` lists the choice indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations, product

from torch import Tensor, nn

from raynas.architecture import Architecture
from raynas.space import ChoiceBlock, SearchSpace
from raynas.stabiliser import EquivariantStabiliser
from raynas.supernet import Choice, Choices, Supernet
from search_spaces._mobile import conv_norm

CHOICES = ("identity", "MB3_K3", "MB6_K5")
LAYERS_PER_STAGE = (2, 3, 3)
LAYERS = sum(LAYERS_PER_STAGE)


def to_string(architecture: Architecture) -> str:
    """The benchmark's key: one digit a layer."""
    return "".join(map(str, architecture))


def from_string(text: str) -> Architecture:
    """Read the benchmark's key; raises ValueError for anything else."""
    if len(text) != LAYERS or not set(text) <= set("012"):
        raise ValueError(f"expected {LAYERS} digits of 0 to {len(CHOICES) - 1} such as 22212220, but got {text!r}")
    return tuple(map(int, text))


def canonical(architecture: Architecture) -> Architecture:
    """Push identities behind the other layers of their stage: 6,561 keys, 3,969 networks.

    A stage's first layer stays where it is, as it halves the resolution whatever is chosen.
    """
    result: list[int] = []
    for layers in LAYERS_PER_STAGE:
        first, *rest = architecture[len(result) : len(result) + layers]
        result += [first, *sorted(rest, key=lambda choice: choice == 0)]  # stable: the others keep their order
    return tuple(result)


def synonyms(architecture: Architecture) -> list[Architecture]:
    """The keys with identities at other places of their stages, the canonical one first."""
    stages = []
    first = 0
    for layers in LAYERS_PER_STAGE:
        head, *rest = architecture[first : first + layers]
        kept = [choice for choice in rest if choice]
        places = combinations(range(len(rest)), len(kept))
        stages.append([(head, *_at(taken, kept, len(rest))) for taken in places])
        first += layers
    return [tuple(chain.from_iterable(choice)) for choice in product(*stages)]


def _at(places: Sequence[int], choices: Sequence[int], layers: int) -> list[int]:
    """So many layers with these choices at these places, and identities elsewhere."""
    chosen = dict(zip(places, choices, strict=True))
    return [chosen.get(place, 0) for place in range(layers)]


SPACE = SearchSpace(
    name="nas_bench_macro",
    blocks=tuple(ChoiceBlock(f"layer {number}", CHOICES) for number in range(1, LAYERS + 1)),
    canonical=canonical,
    to_string=to_string,
    from_string=from_string,
    synonyms=synonyms,
)


def supernet(
    *,
    in_channels: int,
    classes: int,
    resolution: int,
    channels: int = 32,
    head_channels: int = 1280,
    stabiliser: bool = False,
) -> Supernet:
    """The benchmark's network with all choices in every layer; its defaults are the benchmark's own width.

    channels: of the stem; each stage doubles them and halves `resolution`. head_channels: before the classifier.
    stabiliser: put SCARLET's ELS on the identities of layers 2, 4, 5, 7 and 8; that of a stage's first layer, which
        changes the shape, is itself a 1x1 convolution, and with its BatchNorm stays in the derived network.
    Raises ValueError for settings that are not positive.
    """
    if min(channels, head_channels, resolution) < 1:
        raise ValueError(
            f"expected channels, head_channels and resolution of at least 1, "
            f"but got {channels=}, {head_channels=}, {resolution=}; raise it."
        )
    return NasBenchMacro(in_channels, classes, channels, head_channels, stabiliser)


class NasBenchMacro(Supernet):
    """Stem, the chain of eight layers, 1x1 convolution and classifier."""

    def __init__(self, in_channels: int, classes: int, channels: int, head_channels: int, stabiliser: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *conv_norm(in_channels, channels, 3),
            nn.ReLU(inplace=True),
        )
        self.layers = nn.ModuleList()
        for layers in LAYERS_PER_STAGE:
            self.layers.append(Choice(len(self.layers), _options(channels, channels * 2, 2, stabiliser)))
            channels *= 2
            for _ in range(layers - 1):
                self.layers.append(Choice(len(self.layers), _options(channels, channels, 1, stabiliser)))
        self.head = nn.Sequential(
            *conv_norm(channels, head_channels, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(head_channels, classes),
        )

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        features_NCHW = self.stem(images_NCHW)
        for layer in self.layers:
            features_NCHW = layer(features_NCHW, architecture)
        return self.head(features_NCHW)  # type: ignore[no-any-return]


class MobileBlock(nn.Module):
    """Inverted residual: expand, depthwise convolution, project; no shortcut where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int, kernel_size: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.shortcut = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            *conv_norm(in_channels, hidden, 1),
            nn.ReLU(inplace=True),
            *conv_norm(hidden, hidden, kernel_size, stride, groups=hidden),
            nn.ReLU(inplace=True),
            *conv_norm(hidden, out_channels, 1),
        )

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        outputs_NCHW: Tensor = self.layers(inputs_NCHW)
        return outputs_NCHW + inputs_NCHW if self.shortcut else outputs_NCHW


def _options(in_channels: int, out_channels: int, stride: int, stabiliser: bool) -> list[nn.Module]:
    """The options of a layer, in the order of CHOICES."""
    identity: nn.Module
    if stride != 1 or in_channels != out_channels:
        identity = nn.Sequential(*conv_norm(in_channels, out_channels, 1, stride))
    else:
        identity = EquivariantStabiliser(in_channels) if stabiliser else nn.Identity()
    return [
        identity,
        MobileBlock(in_channels, out_channels, stride, expansion=3, kernel_size=3),
        MobileBlock(in_channels, out_channels, stride, expansion=6, kernel_size=5),
    ]
