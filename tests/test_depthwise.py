"""The fast gradients of depthwise convolutions are torch's own."""

import pytest
import torch
from torch import nn

from raynas.depthwise import DepthwiseConv2d, accelerate
from raynas.elastic import ElasticConv2d, Width

CPU = torch.device("cpu")


def convolution(kernel: int, stride: int, dilation: int, channels: int = 4) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False).double()


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_outputs_and_gradients_are_those_of_torch(kernel: int, stride: int, dilation: int, side: int) -> None:
    plain, fast = convolution(kernel, stride, dilation), convolution(kernel, stride, dilation)
    fast.load_state_dict(plain.state_dict())
    accelerate(fast, CPU)
    assert type(fast) is DepthwiseConv2d
    images = [torch.randn(5, 4, side, side + 1, dtype=torch.float64, generator=_seeded()) for _ in range(2)]
    outputs = [module(one.requires_grad_()) for module, one in zip((plain, fast), images, strict=True)]
    torch.testing.assert_close(*outputs)
    weights = torch.randn(outputs[0].shape, dtype=torch.float64, generator=_seeded())
    for one in outputs:
        (one * weights).sum().backward()
    torch.testing.assert_close(images[1].grad, images[0].grad)
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad)


def test_the_fast_gradients_are_used_where_torch_is_slow_and_nowhere_else() -> None:
    for kernel, dilation, side, fast in ((3, 2, 8, True), (5, 1, 4, True), (3, 1, 8, False)):
        module = convolution(kernel, 1, dilation)
        accelerate(module, CPU)
        outputs = module(torch.zeros(2, 4, side, side, dtype=torch.float64))
        assert ("_Depthwise" in type(outputs.grad_fn).__name__) is fast


@pytest.mark.parametrize("choice", [0, 1])
def test_the_slices_of_an_elastic_layer_have_them_too(choice: int) -> None:
    layers = [ElasticConv2d(width := Width(0, (2, 6)), width, 5, depthwise=True, norm=False).double() for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    accelerate(layers[1], CPU)
    images = torch.randn(5, (2, 6)[choice], 3, 3, dtype=torch.float64, generator=_seeded())
    plain, fast = (layer(images, (choice,)) for layer in layers)
    assert "_Depthwise" in type(fast.grad_fn).__name__ and "_Depthwise" not in type(plain.grad_fn).__name__
    torch.testing.assert_close(fast, plain)
    for one in (plain, fast):
        one.square().sum().backward()
    torch.testing.assert_close(layers[1].convolution.weight.grad, layers[0].convolution.weight.grad)


def test_other_convolutions_and_other_devices_keep_torchs_own() -> None:
    ordinary, biased = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, padding=1, groups=4)
    accelerate(nn.Sequential(ordinary, biased), CPU)
    elsewhere = convolution(3, 1, 2)
    accelerate(elsewhere, torch.device("cuda"))
    assert {type(one) for one in (ordinary, biased, elsewhere)} == {nn.Conv2d}


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
