"""FairNAS's chain of 19 inverted residuals, each of expansion 3 or 6 and kernel 3, 5 or 7; depth is fixed.

Chu, Zhang and Xu, "FairNAS", ICCV 2021 (arXiv:1907.01845): 6^19 = 6.1e14 networks. The network is `mobilenet_chain`'s
with ReLU6 throughout, and without squeeze-excitation and skips.
"""

from __future__ import annotations

from torch import nn

from raynas.supernet import Supernet
from search_spaces.mobilenet_chain import OPERATIONS as WITH_EXCITATION
from search_spaces.mobilenet_chain import SMALL as SMALL
from search_spaces.mobilenet_chain import MobileNetChain, chain_space

OPERATIONS = tuple(operation for operation in WITH_EXCITATION if not operation.excite)
SPACE = chain_space("fairnas_chain", OPERATIONS, skips=False)


def supernet(
    *, in_channels: int, classes: int, resolution: int, width: float = 1.0, head_channels: int = 1280
) -> Supernet:
    """The network with all choices in every layer; its defaults are the paper's at 224 pixels.

    Smaller images are halved less often, and width and head_channels mean the same, as in `mobilenet_chain`.
    """
    return MobileNetChain(
        SPACE,
        OPERATIONS,
        lambda: nn.ReLU6(inplace=True),
        in_channels=in_channels,
        classes=classes,
        resolution=resolution,
        width=width,
        head_channels=head_channels,
    )
