"""Depthwise convolutions with gradients that are fast on CPUs too.

torch's CPU kernels (oneDNN) fall back to slow code in two cases that search spaces are full of: dilated kernels, and
the weight gradient of a kernel larger than the image, as in the last stages. There a backward pass took 10 to 200
times as long as its forward pass; both gradients are rewritten here in terms of what is fast, equal up to rounding.
`jobs/benchmarks/training_step.py --plain-depthwise` measures against torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def accelerate(network: nn.Module, device: torch.device) -> None:
    """Give a network's plain depthwise convolutions the fast gradients, where the device is a CPU."""
    for module in network.modules():
        if device.type == "cpu" and type(module) is nn.Conv2d and _is_depthwise(module):
            module.__class__ = DepthwiseConv2d  # in place: parameters, names and optimisers stay what they are


class DepthwiseConv2d(nn.Conv2d):
    """A `nn.Conv2d` with one group per channel, whose gradients are those of `_Depthwise`."""

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """What `nn.Conv2d` computes: (N, C, H, W) -> (N, C, H', W')."""
        return self.convolved(inputs_NCHW, self.weight)

    def convolved(self, inputs_NCHW: Tensor, weight: Tensor) -> Tensor:
        """The same with other weights, such as those of the first channels: (N, C, H, W) with weight (C, 1, k, k)."""
        stride, dilation = self.stride[0], self.dilation[0]
        slow = dilation > 1 or min(inputs_NCHW.shape[2:]) < self.kernel_size[0]
        if not (slow and torch.is_grad_enabled() and inputs_NCHW.device.type == "cpu"):
            return functional.conv2d(inputs_NCHW, weight, None, self.stride, self.padding, self.dilation, len(weight))
        if torch.is_autocast_enabled("cpu"):  # which casts nothing within a function of one's own, nor on its way back
            dtype = torch.get_autocast_dtype("cpu")
            inputs_NCHW, weight = inputs_NCHW.to(dtype), weight.to(dtype)
        padding = int(self.padding[0])
        if stride == dilation:  # only every d-th row and column is read
            inputs_NCHW = inputs_NCHW[:, :, ::dilation, ::dilation]
            stride, dilation, padding = 1, 1, padding // dilation
        return _Depthwise.apply(inputs_NCHW, weight, stride, padding, dilation)  # type: ignore[no-any-return]


class _Depthwise(torch.autograd.Function):
    """The convolution of each channel with its own kernel, weight (C, 1, k, k)."""

    @staticmethod
    def forward(ctx: Any, inputs_NCHW: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(inputs_NCHW, weight)
        ctx.how = stride, padding, dilation
        return functional.conv2d(inputs_NCHW, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs_NCHW, weight = ctx.saved_tensors
        (outputs_NCHW,) = gradients
        of_inputs = _input_gradient(outputs_NCHW, inputs_NCHW, weight, *ctx.how) if ctx.needs_input_grad[0] else None
        of_weight = _weight_gradient(outputs_NCHW, inputs_NCHW, weight, *ctx.how) if ctx.needs_input_grad[1] else None
        return of_inputs, of_weight, None, None, None


def _input_gradient(
    gradient: Tensor, inputs_NCHW: Tensor, weight: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """With stride 1 a forward pass with the kernel turned round."""
    if stride > 1:
        return _torch_gradients(gradient, inputs_NCHW, weight, stride, padding, dilation, of_inputs=True)
    around = dilation * (weight.shape[-1] - 1) - padding
    return functional.conv2d(gradient, weight.flip(2, 3), None, 1, around, dilation, len(weight))


def _weight_gradient(
    gradient: Tensor, inputs_NCHW: Tensor, weight: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """Of a dilated kernel: the plain one's on images of every d-th pixel. Of a large one: products of all pixels."""
    if dilation > 1 and stride == 1:
        # rows that are added to fill the last image up are zeros of the gradient, and have no say
        inputs_NCHW, gradient = (_phases(values, dilation) for values in (inputs_NCHW, gradient))
        return _weight_gradient(gradient, inputs_NCHW, weight, 1, padding // dilation, 1)
    if dilation == 1 and min(inputs_NCHW.shape[2:]) < weight.shape[-1]:
        return _from_products(gradient, inputs_NCHW, weight, stride, padding)
    return _torch_gradients(gradient, inputs_NCHW, weight, stride, padding, dilation, of_inputs=False)


def _phases(values_NCHW: Tensor, dilation: int) -> Tensor:
    """Every d-th row and column as an image of its own: (N, C, H, W) -> (d d N, C, ceil(H / d), ceil(W / d))."""
    height, width = values_NCHW.shape[2:]
    padded = functional.pad(values_NCHW, [0, -width % dilation, 0, -height % dilation])
    return torch.cat([padded[:, :, y::dilation, x::dilation] for y in range(dilation) for x in range(dilation)])


def _from_products(gradient: Tensor, inputs_NCHW: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Sum over images the product of each input pixel with each output's gradient; add up those of equal offset."""
    count, channels, height, width = inputs_NCHW.shape
    rows, columns = gradient.shape[2:]
    pixels = inputs_NCHW.permute(1, 2, 3, 0).reshape(channels, height * width, count)
    outputs = gradient.permute(1, 0, 2, 3).reshape(channels, count, rows * columns)
    products = torch.bmm(pixels, outputs).view(channels, height, width, rows, columns)
    kernel = weight.shape[-1]
    offset_y, offset_x = (
        _offsets(side, out, kernel, stride, padding).to(products) for side, out in ((height, rows), (width, columns))
    )
    by_row = products.permute(0, 2, 4, 1, 3).reshape(-1, height * rows) @ offset_y
    by_row = by_row.view(channels, width * columns, kernel).transpose(1, 2)
    return (by_row @ offset_x).view_as(weight)


def _offsets(side: int, out: int, kernel: int, stride: int, padding: int) -> Tensor:
    """1 where input i meets output o under the kernel's place k, else 0: shape (side * out, kernel)."""
    inputs, outputs, places = torch.arange(side)[:, None, None], torch.arange(out)[:, None], torch.arange(kernel)
    return (inputs == outputs * stride + places - padding).view(side * out, kernel)


def _torch_gradients(
    gradient: Tensor,
    inputs_NCHW: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    *,
    of_inputs: bool,
) -> Tensor:
    steps = [stride] * 2, [padding] * 2, [dilation] * 2
    mask = [of_inputs, not of_inputs, False]
    found = torch.ops.aten.convolution_backward(
        gradient, inputs_NCHW, weight, None, *steps, False, [0, 0], len(weight), mask
    )
    return found[0] if of_inputs else found[1]  # type: ignore[no-any-return]


def _is_depthwise(module: nn.Conv2d) -> bool:
    """One group per channel, square and centred: what the gradients above are written for."""
    size, stride, padding, dilation = module.kernel_size, module.stride, module.padding, module.dilation
    return (
        1 < module.groups == module.in_channels == module.out_channels
        and module.bias is None
        and module.padding_mode == "zeros"
        and not isinstance(padding, str)
        and size[0] % 2 == 1
        and all(pair[0] == pair[1] for pair in (size, stride, padding, dilation))
        and padding[0] == dilation[0] * (size[0] // 2)
    )
