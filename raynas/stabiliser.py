"""SCARLET's equivariant learnable stabiliser (ELS): a linear 1x1 convolution on a skip, for as long as it is searched.

Chu et al., "SCARLET-NAS: Bridging the Gap between Stability and Scalability in Weight-sharing Neural Architecture
Search", ICCVW 2021 (arXiv:1908.06022). The maps behind a skip look unlike those behind every other choice, which
whips the next layer between two kinds of inputs; a learnt linear map on the skip makes them alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class EquivariantStabiliser(nn.Module):
    """A 1x1 convolution that stands in for the skip of one layer; it has no bias, BatchNorm or activation.

    So it stays linear, and a 1x1 convolution behind it can take it up (`merged`). It is there while the supernet is
    trained and while its paths are scored; a subnet, its costs and its export have the plain skip. It starts as the
    identity and draws no random numbers, so that a supernet starts with the same other weights as one without.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels).reshape(channels, channels, 1, 1))

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return functional.conv2d(inputs_NCHW, self.weight)

    def stand_alone(self) -> nn.Module:
        """What a network with its own weights has in its place: the skip."""
        return nn.Identity()


def merged(convolution: nn.Conv2d, stabiliser: EquivariantStabiliser) -> nn.Conv2d:
    """The one convolution that computes `convolution(stabiliser(x))`: W_merged = W_E W_ELS.

    Exact for a convolution that pads with zeros, whatever its kernel; but a residual layer behind a stabiliser adds
    ELS(x) to its outputs as well, which no weight of that layer can take up. Raises ValueError for a grouped
    convolution, as its groups see only some of the channels that a stabiliser mixes.
    """
    if convolution.groups != 1 or convolution.padding_mode != "zeros":
        raise ValueError(
            f"expected a convolution of one group that pads with zeros, but got {convolution}; merge the stabiliser "
            "into the layer's 1x1 expansion."
        )
    result = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d,
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        bias=convolution.bias is not None,
        device=convolution.weight.device,
        dtype=convolution.weight.dtype,
    )
    assert isinstance(result, nn.Conv2d)
    with torch.no_grad():
        result.weight.copy_(torch.einsum("ochw,ci->oihw", convolution.weight, stabiliser.weight[:, :, 0, 0]))
        if result.bias is not None and convolution.bias is not None:
            result.bias.copy_(convolution.bias)
    return result
