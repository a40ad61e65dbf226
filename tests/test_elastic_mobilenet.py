"""NetAdaptV2's space: its widest network is MobileNetV3-Large, and where filters are dropped the inputs pass by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot
from torch.utils.flop_counter import FlopCounterMode

from raynas.architecture import Architecture
from raynas.errors import UserError
from raynas.supernet import Choices, seeded
from search_spaces.elastic_mobilenet import KERNELS, LAYERS, SMALL, SPACE, ElasticMobileNet, space, supernet
from tests.helpers import make_trainer, small_config

NOTHING = (0,) * 2 * len(LAYERS)
RNG = np.random.default_rng(0)


def network(resolution: int = 8) -> ElasticMobileNet:
    found = seeded(supernet, 0, in_channels=3, classes=4, resolution=resolution, **SMALL)
    assert isinstance(found, ElasticMobileNet)
    return found


def with_layer(number: int, width: int, kernel: int = 0) -> Architecture:
    """Nothing but one layer."""
    return (*NOTHING[: 2 * number], width, kernel, *NOTHING[2 * number + 2 :])


def each_image(paths: list[Architecture]) -> Choices:
    """A width of its own for each image, and the first one's kernels."""
    return [
        one_hot(torch.tensor([path[index] for path in paths]), len(block.choices)).float()
        if index % 2 == 0
        else paths[0][index]
        for index, block in enumerate(SPACE.blocks)
    ]


def test_the_widest_network_has_the_sizes_of_mobilenet_v3_large() -> None:
    kernels = (3, 3, 5, 5, 5, 3, 3, 3, 3, 3, 3, 5, 5, 5)
    path = tuple(choice for kernel in kernels for choice in (3, KERNELS.index(kernel)))
    subnet = supernet(in_channels=3, classes=1000, resolution=224).subnet(path).eval()
    assert sum(parameter.numel() for parameter in subnet.parameters()) == 5_483_032  # torchvision's
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        subnet(torch.zeros(1, 3, 224, 224))
    assert round(counter.get_total_flops() / 2e6) == 217


@pytest.mark.parametrize("resolution", [8, 7, 64])
def test_without_any_filter_layers_are_identities_or_pooling(resolution: int) -> None:
    net = network(resolution)
    subnet = net.subnet(NOTHING)
    inputs_NCHW = torch.randn(2, 8, resolution, resolution)
    for layer, cut in zip(net.layers, subnet.network.layers, strict=True):  # type: ignore[arg-type,union-attr]
        stride: int = layer.stride  # type: ignore[assignment]
        expected = inputs_NCHW if stride == 1 else nn.functional.avg_pool2d(inputs_NCHW, 2, ceil_mode=True)
        assert torch.equal(layer(inputs_NCHW, NOTHING), expected)
        assert torch.equal(cut(inputs_NCHW, NOTHING), expected)
        assert not list(cut.parameters())
        every = layer(inputs_NCHW, each_image([NOTHING] * 2))
        assert torch.equal(every[:, :8], expected) and not every[:, 8:].any()


def test_filters_come_first_and_the_other_inputs_pass_by() -> None:
    net = network(64)
    for number, added in ((2, False), (8, True), (9, False)):  # stride 2; same shape; more channels
        layer, inputs_NCHW = net.layers[number], torch.randn(3, 8, 8, 8)
        passing_NCHW = layer.passing(inputs_NCHW)  # type: ignore[operator]
        for width, count in enumerate(layer.filters.sizes):  # type: ignore[union-attr,arg-type]
            path = with_layer(number, width)
            outputs_NCHW = layer(inputs_NCHW, path)
            assert outputs_NCHW.shape[1] == max(8, count)
            assert torch.equal(outputs_NCHW[:, count:], passing_NCHW[:, count:])
            if count:
                filters_NCHW = layer.layer(inputs_NCHW, path)  # type: ignore[operator]
                assert layer.added == added
                filters_NCHW[:, :8] += passing_NCHW[:, :count] * added
                assert torch.equal(outputs_NCHW[:, :count], filters_NCHW)


def test_images_of_one_width_are_the_sliced_path() -> None:
    net, images_NCHW = network(), torch.randn(5, 3, 8, 8)
    for path in [NOTHING, *(SPACE.sample(RNG) for _ in range(4))]:
        torch.testing.assert_close(net(images_NCHW, each_image([path] * 5)), net(images_NCHW, path))


def test_an_images_width_changes_its_own_channels_alone() -> None:
    """With widths of each image a layer gives each what it gives a batch of those that have the filter."""
    net, number = network(), 8
    layer, inputs_NCHW = net.layers[number], torch.randn(6, 8, 4, 4)
    widths = [0, 3, 0, 3, 3, 0]
    mixed_NCHW = layer(inputs_NCHW, each_image([with_layer(number, width) for width in widths]))
    wide = torch.tensor(widths) == 3
    torch.testing.assert_close(mixed_NCHW[wide], layer(inputs_NCHW[wide], with_layer(number, 3)))
    assert torch.equal(mixed_NCHW[~wide], inputs_NCHW[~wide])


def test_a_subnet_of_fewer_filters_has_fewer_parameters_at_every_step() -> None:
    net = network()
    for number in range(len(LAYERS)):
        sizes = [sum(p.numel() for p in net.subnet(with_layer(number, width)).parameters()) for width in range(4)]
        assert sizes == sorted(set(sizes))


def test_vanished_layers_have_no_kernel_and_move_behind_layers_of_their_kind() -> None:
    path = SPACE.parse("skip_K7-1/3_K5-3/3_K3-skip-2/3_K7-3/3_K3-1/3_K3-skip_K5-1/3_K5-skip-3/3_K3-skip_K7-skip-1/3_K3")
    found = "skip-1/3_K5-3/3_K3-2/3_K7-skip-3/3_K3-1/3_K3-1/3_K5-skip-skip-3/3_K3-skip-1/3_K3-skip"
    assert SPACE.print(SPACE.canonicalise(path)) == found


def test_ordered_dropout_moves_every_layer_and_leaves_other_kernels_alone() -> None:
    config = small_config(space={"name": "elastic_mobilenet", "settings": SMALL})
    trainer = make_trainer("ordered_dropout", config)
    net = trainer.supernet
    assert net.per_image_blocks() == set(range(0, 2 * len(LAYERS), 2))  # a kernel is one for the batch
    before = {parameter: parameter.detach().clone() for parameter in net.parameters()}
    losses = [float(trainer.train_step()[0])]
    moved = {parameter for parameter, value in before.items() if not torch.equal(parameter, value)}
    for layer in net.layers:  # type: ignore[union-attr]
        options = layer.layer.filter.options  # type: ignore[union-attr]
        assert sum(bool(moved & set(option.parameters())) for option in options) == 1
    assert moved >= {p for name, p in net.named_parameters() if ".project." in name and p.dim() == 4}
    losses += [float(trainer.train_step()[0]) for _ in range(2)]
    assert np.isfinite(losses).all()


def test_more_steps_are_more_choices_of_distinct_widths() -> None:
    net = supernet(in_channels=3, classes=4, resolution=8, **SMALL, steps=7)
    assert net.blocks() == {index: len(block.choices) for index, block in enumerate(space(steps=7).blocks)}
    assert all(len(set(layer.filters.sizes)) == 8 for layer in net.layers)  # type: ignore[union-attr]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="width=0"):
        supernet(in_channels=3, classes=4, resolution=8, width=0.0)
    with pytest.raises(ValueError, match="steps of at least 1"):
        space(steps=0)
    with pytest.raises(ValueError, match=r"at most 8 steps.*9"):
        supernet(in_channels=3, classes=4, resolution=8, width=0.1, steps=9)
    with pytest.raises(UserError, match="layer 2 to be one of skip"):
        SPACE.parse("-".join(["skip", "4/3_K3", *["skip"] * 12]))
    with pytest.raises(UserError, match="14 layers"):
        SPACE.parse("skip-skip")
