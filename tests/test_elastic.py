"""A width is a prefix of a layer's channels: sliced, masked for the batch, or masked for each image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from raynas import seeds
from raynas.elastic import ElasticBatchNorm, ElasticConv2d, ElasticLayerNorm, ElasticLinear, Width
from raynas.supernet import BatchNorm, Choice, Choices, PathModule, Supernet, seeded
from tests.helpers import make_trainer, small_config

INPUTS, OUTPUTS = Width(0, (3, 1, 4)), Width(1, (2, 5))
PATHS = [(a, b) for a in range(3) for b in range(2)]
LAYERS: dict[str, tuple[Callable[[], PathModule], tuple[int, ...], Width]] = {
    "convolution": (lambda: ElasticConv2d(INPUTS, OUTPUTS, 3, 2), (6, 5, 5), OUTPUTS),
    "convolution with a bias": (lambda: ElasticConv2d(INPUTS, OUTPUTS, 3, norm=False, bias=True), (6, 5, 5), OUTPUTS),
    "depthwise": (lambda: ElasticConv2d(INPUTS, INPUTS, 5, depthwise=True), (6, 5, 5), INPUTS),
    "fixed outputs": (lambda: ElasticConv2d(INPUTS, 5, 3), (6, 5, 5), Width(1, (5, 5))),
    "linear": (lambda: ElasticLinear(INPUTS, OUTPUTS), (6, 7), OUTPUTS),
    "batch norm": (lambda: ElasticBatchNorm(INPUTS), (6, 5, 5), INPUTS),
    "layer norm": (lambda: ElasticLayerNorm(INPUTS), (6, 7), INPUTS),
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> tuple[PathModule, Tensor, Width]:
    """The layer, its inputs with all channels in their place, and the width of its outputs."""
    build, (images, *sides), outputs = LAYERS[request.param]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module, torch.randn(images, 4, *sides, generator=generator), outputs


def _first(values: Tensor, channels: int, last: bool) -> Tensor:
    return values[..., :channels] if last else values[:, :channels]


def _weights(path: tuple[int, ...], images: int | None = None) -> Choices:
    """One-hot weights: the same for all images, or a row for each."""
    rows = [one_hot(torch.tensor(choice), size).float() for choice, size in zip(path, (3, 2), strict=True)]
    return rows if images is None else [row.expand(images, -1) for row in rows]


@pytest.mark.parametrize("images", [None, 6])
def test_masked_is_sliced(layer: tuple[PathModule, Tensor, Width], images: int | None) -> None:
    module, inputs, outputs = layer
    last = inputs.dim() == 3
    inputs = inputs.transpose(1, 2) if last else inputs
    for path in PATHS:
        channels = INPUTS.size(path)
        sliced = module(_first(inputs, channels, last), path)
        whole = torch.zeros_like(inputs)
        _first(whole, channels, last).copy_(_first(inputs, channels, last))
        masked = module(whole, _weights(path, images))
        size = outputs.size(path)
        assert sliced.shape[-1 if last else 1] == size
        torch.testing.assert_close(_first(masked, size, last), sliced)
        assert masked.count_nonzero() == sliced.count_nonzero()  # exactly zero beyond the width


def test_a_cut_layer_is_an_ordinary_one_of_its_own_weights(layer: tuple[PathModule, Tensor, Width]) -> None:
    class Net(Supernet):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.any = layer[0], nn.Parameter(torch.zeros(1))

        def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
            return self.layer(images_NCHW, architecture)

    network, inputs = Net(), layer[1]
    last = inputs.dim() == 3
    inputs = inputs.transpose(1, 2) if last else inputs
    for path in PATHS:
        part = _first(inputs, INPUTS.size(path), last)
        subnet = network.subnet(path).train()
        assert torch.equal(subnet(part), network(part, path))
        assert not any(isinstance(module, PathModule | BatchNorm) for module in subnet.modules())
        shared = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        assert all(parameter.untyped_storage().data_ptr() not in shared for parameter in subnet.parameters())
        assert all(p.untyped_storage().nbytes() == p.numel() * p.element_size() for p in subnet.parameters())


def test_widths_of_each_image_leave_other_images_out_of_a_channels_statistics() -> None:
    torch.manual_seed(0)
    module = ElasticConv2d(4, OUTPUTS, kernel_size=3)
    inputs = torch.randn(6, 4, 5, 5)
    choices = torch.tensor([1, 0, 0, 1, 1, 0])
    mixed = module(inputs, [0, one_hot(choices, 2).float()])
    wide, all_narrow = module(inputs[choices == 1], (0, 1)), module(inputs, (0, 0))
    torch.testing.assert_close(mixed[:, :2], all_narrow)  # every image has the first two channels
    torch.testing.assert_close(mixed[choices == 1, 2:], wide[:, 2:])  # these have the others, and count alone
    assert (mixed[choices == 0, 2:] == 0).all()


def test_a_channel_that_no_image_has_is_zero_and_has_finite_gradients() -> None:
    module = ElasticConv2d(4, OUTPUTS, kernel_size=3)
    outputs = module(torch.randn(3, 4, 5, 5), [0, torch.tensor([[1.0, 0.0]] * 3)])
    outputs.square().sum().backward()
    assert (outputs[:, 2:] == 0).all()
    gradient = module.convolution.weight.grad
    assert gradient is not None and torch.isfinite(gradient).all() and (gradient[2:] == 0).all()


def test_weights_over_widths_mix_prefix_masks_after_the_normalisation_and_receive_gradients() -> None:
    module = ElasticConv2d(4, OUTPUTS, kernel_size=3)
    inputs = torch.randn(3, 4, 5, 5)
    weights = torch.tensor([0.75, 0.25], requires_grad=True)
    mixed = module(inputs, [0, weights])
    wide = module(inputs, (0, 1))
    torch.testing.assert_close(mixed, wide * torch.tensor([1, 1, 0.25, 0.25, 0.25])[:, None, None])
    mixed.square().sum().backward()
    assert weights.grad is not None and (weights.grad != 0).all()


def test_an_elastic_layer_may_be_an_option_of_a_choice() -> None:
    class Net(Supernet):
        def __init__(self) -> None:
            super().__init__()
            options = [ElasticConv2d(OUTPUTS, OUTPUTS, kernel, depthwise=True) for kernel in (1, 3)]
            self.stem = ElasticConv2d(4, OUTPUTS, kernel_size=1)
            self.choice = Choice(0, [*options, nn.ReLU()])

        def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
            return self.choice(self.stem(images_NCHW, architecture), architecture)

    network, inputs = seeded(Net, 0), torch.randn(3, 4, 5, 5)
    assert network.blocks() == {0: 3, 1: 2}
    for path in PATHS:
        assert torch.equal(network.subnet(path).train()(inputs), network(inputs, path))
        expected = network(inputs, path)
        masked = network(inputs, _weights(path))
        torch.testing.assert_close(masked[:, : expected.shape[1]], expected)


def test_training_moves_nothing_beyond_the_slices_of_its_paths() -> None:
    """Neither weight decay nor momentum does, though the gradient there is zero and not absent."""
    config = small_config(
        space={"name": "nats_size", "settings": {"width_multiple": 0.125}}, training={"weight_decay": 0.1}
    )
    trainer = make_trainer("uniform", config)
    for _ in range(4):
        network = trainer.supernet
        path = trainer.rule.space.sample(seeds.generator(trainer.seed, "paths", trainer.step))  # type: ignore[attr-defined]
        before = {p: (p.detach().clone(), _momentum(trainer, p)) for p in network.parameters()}
        trainer.train_step()
        beyond = network.unused([path])
        assert beyond
        for parameter, mask in beyond.items():
            value, momentum = before[parameter]
            assert torch.equal(parameter[mask], value[mask])
            assert torch.equal(_momentum(trainer, parameter)[mask], momentum[mask])
            if parameter.grad is not None:
                assert not torch.equal(parameter[~mask], value[~mask])


def _momentum(trainer: object, parameter: nn.Parameter) -> Tensor:
    state = trainer.optimizer.state.get(parameter, {})  # type: ignore[attr-defined]
    return state.get("momentum_buffer", torch.zeros_like(parameter)).clone()
