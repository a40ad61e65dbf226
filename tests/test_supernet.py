"""The machinery under every search space; what holds for each space's network is in test_search_spaces.py."""

import pytest
import torch
from torch import Tensor, nn

from raynas.supernet import BatchNorm, Choice, Choices, Mixture, Supernet, seeded, touched


class Chain(Supernet):
    """Stem, two choice blocks of three options, the first of them in two places, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), BatchNorm(4))
        self.near = Choice(0, self._options())
        self.far = Choice(0, self._options())
        self.last = Choice(1, self._options())
        self.head = nn.Linear(4, 3)

    @staticmethod
    def _options() -> list[nn.Module]:
        convolutions = (nn.Conv2d(4, 4, kernel, padding=kernel // 2, bias=False) for kernel in (1, 3))
        return [nn.Identity(), *(nn.Sequential(convolution, BatchNorm(4), nn.ReLU()) for convolution in convolutions)]

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        features_NCHW = self.stem(images_NCHW)
        for choice in (self.near, self.far, self.last):
            features_NCHW = choice(features_NCHW, architecture)
        return self.head(features_NCHW.mean((2, 3)))


PATHS = [(a, b) for a in range(3) for b in range(3)]


@pytest.fixture
def network() -> Chain:
    chain = seeded(Chain, 0)
    assert isinstance(chain, Chain)
    return chain


@pytest.fixture(name="images_NCHW")
def _images() -> Tensor:
    return torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def test_seeded_leaves_the_global_generator_as_it_was() -> None:
    before = torch.random.get_rng_state()
    seeded(Chain, 5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_running_averages_are_refused_by_the_name_of_their_layer() -> None:
    def build() -> Chain:
        chain = Chain()
        chain.stem[1] = nn.BatchNorm2d(4)
        return chain

    with pytest.raises(ValueError, match=r"raynas\.supernet\.BatchNorm.*stem\.1 is BatchNorm2d.*replace it"):
        seeded(build, 0)


def test_seeded_does_not_depend_on_the_global_generator() -> None:
    first = seeded(Chain, 5)
    torch.rand(3)
    second, other = seeded(Chain, 5), seeded(Chain, 6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_subnet_is_its_path_bit_for_bit_in_train_mode(network: Chain, images_NCHW: Tensor) -> None:
    for path in PATHS:
        assert torch.equal(network.subnet(path).train()(images_NCHW), network(images_NCHW, path))


def test_a_path_scores_the_same_in_train_and_eval_mode_and_leaves_nothing_behind(
    network: Chain, images_NCHW: Tensor
) -> None:
    assert not list(network.buffers())
    assert torch.equal(network.train()(images_NCHW, (1, 2)), network.eval()(images_NCHW, (1, 2)))


def test_subnet_holds_its_own_copy_of_its_path_alone(network: Chain) -> None:
    subnet = network.subnet((1, 0))
    shared = {parameter.data_ptr() for parameter in network.parameters()}
    assert not shared & {parameter.data_ptr() for parameter in subnet.parameters()}
    convolutions = [module for module in subnet.modules() if isinstance(module, nn.Conv2d)]
    assert [convolution.kernel_size for convolution in convolutions] == [(3, 3), (1, 1), (1, 1)]
    assert torch.equal(convolutions[1].weight, network.near.options[1][0].weight)  # type: ignore[index,arg-type]
    assert torch.equal(convolutions[2].weight, network.far.options[1][0].weight)  # type: ignore[index,arg-type]


def test_subnet_has_ordinary_batch_norm_that_tracks_running_averages(network: Chain, images_NCHW: Tensor) -> None:
    subnet = network.subnet((1, 2)).train()
    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 4
    assert not any(isinstance(module, BatchNorm) for module in subnet.modules())
    subnet(images_NCHW)
    assert all(norm.running_mean is not None and norm.running_mean.abs().sum() > 0 for norm in norms)


def test_parameters_on_paths_are_exactly_those_that_receive_gradients(network: Chain, images_NCHW: Tensor) -> None:
    for path in PATHS:
        network.zero_grad(set_to_none=True)
        network(images_NCHW, path).square().sum().backward()
        reached = [parameter for parameter in network.parameters() if parameter.grad is not None]
        on_path = touched(network.owners(), [path])
        assert len(on_path) == len(reached)
        assert all(mine is its for mine, its in zip(on_path, reached, strict=True))


def test_parameters_on_several_paths_are_the_union_in_the_networks_order(network: Chain) -> None:
    order = {parameter: index for index, parameter in enumerate(network.parameters())}
    union = {parameter for path in ((1, 0), (2, 2)) for parameter in touched(network.owners(), [path])}
    assert touched(network.owners(), [(1, 0), (2, 2)]) == sorted(union, key=order.__getitem__)


def test_one_hot_weights_are_the_path(network: Chain, images_NCHW: Tensor) -> None:
    for path in PATHS:
        one_hot = [nn.functional.one_hot(torch.tensor(choice), 3).float() for choice in path]
        assert torch.equal(network(images_NCHW, one_hot), network(images_NCHW, path))


def test_relaxed_weights_mix_the_options_and_skip_those_of_weight_zero() -> None:
    choice = Choice(0, [nn.Identity(), nn.Hardtanh(), nn.ReLU()])
    choice.options[1].register_forward_hook(lambda *_: pytest.fail("an option of weight zero was run"))
    inputs = torch.tensor([[-2.0, 3.0]])
    weights = [torch.tensor([0.25, 0.0, 0.5])]
    for given in (weights, Mixture.on(torch.device("cpu"), weights)):
        torch.testing.assert_close(choice(inputs, given), torch.tensor([[-0.5, 2.25]]))


def test_relaxed_weights_receive_gradients(network: Chain, images_NCHW: Tensor) -> None:
    weights = [torch.full((3,), 1 / 3, requires_grad=True) for _ in range(2)]
    network(images_NCHW, weights).square().sum().backward()
    assert all(weight.grad is not None and (weight.grad != 0).all() for weight in weights)


def test_batch_norm_over_replicas_uses_the_joined_batch() -> None:
    joined_NCHW = 3 + 2 * torch.randn(8, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    whole, part = BatchNorm(4), BatchNorm(4)
    mine, other = joined_NCHW.split([3, 5])
    centred = other - joined_NCHW.mean((0, 2, 3), keepdim=True)
    others = iter(
        [
            torch.stack([other.sum((0, 2, 3)), torch.full((4,), float(other[:, 0].numel()))]),
            centred.square().sum((0, 2, 3)),
        ]
    )
    part.sum_over_replicas = lambda values: values + next(others)
    torch.testing.assert_close(part(mine), whole(joined_NCHW)[:3], rtol=1e-4, atol=1e-5)
