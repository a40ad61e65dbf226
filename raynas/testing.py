"""What every member of a family must do, written once: call these checks from the tests of your own member."""

from __future__ import annotations

import copy
import math
import pickle
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from raynas.aggregators.borda import scaled_ranks
from raynas.architecture import Architecture, encode
from raynas.calibration import Statistics
from raynas.costs.macs import macs
from raynas.costs.parameters import parameters
from raynas.device import autocast
from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.fitted_head import features
from raynas.prediction import Predictor
from raynas.proxy_evaluator import Proxy
from raynas.rank_correlation import kendall_tau_b
from raynas.seeds import generator
from raynas.space import Cell, ChoiceBlock, SearchSpace
from raynas.strategy import Strategy
from raynas.supernet import Choice, Mixture, PathModule, Subnet, Supernet, seeded, touched

# ---------------------------------------------------------------------------------------------------------------------
# Search spaces: every check takes the space and what builds its supernet (the `SPACE` and `supernet` of its file).
# Where the default network is a large one, the file also has `SMALL`: the settings of a network for tests.
# ---------------------------------------------------------------------------------------------------------------------

BuildSupernet = Callable[..., Supernet]
"""`supernet(*, in_channels, classes, resolution, ...)` of a search space."""

IMAGE_CHW = (3, 8, 8)
CLASSES = 5


def check_blocks_are_those_of_the_supernet(space: SearchSpace, build: BuildSupernet) -> None:
    """Every block of the space has modules that follow it, with as many options as it has choices."""
    found = {pair for module in _small(build).path_modules() for pair in module.blocks().items()}
    assert found == {(index, len(block.choices)) for index, block in enumerate(space.blocks)}


def check_default_network_runs_on_small_images(space: SearchSpace, build: BuildSupernet) -> None:
    """The default settings build for one channel at 8x8, and at an odd size, and give a row of logits per image."""
    for side in (8, 7):
        network = seeded(build, 0, in_channels=1, classes=10, resolution=side)
        for architecture in _architectures(space, 2):
            assert network(torch.randn(4, 1, side, side), architecture).shape == (4, 10)


def check_initial_weights_depend_on_the_seed_alone(space: SearchSpace, build: BuildSupernet) -> None:
    """Two networks of one seed are equal, of two seeds are not."""
    del space
    same, again, other = (_small(build, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, again[name]) for name, value in same.items())
    assert not all(torch.equal(value, other[name]) for name, value in same.items())


def check_subnet_is_its_path(space: SearchSpace, build: BuildSupernet) -> None:
    """A subnet and the supernet's path give the same logits and gradients, bit for bit, in train mode."""
    network, images_NCHW = _small(build), _images()
    for architecture in _architectures(space):
        subnet, places = network.cut(architecture)
        shared_NK, own_NK = network(images_NCHW, architecture), subnet.train()(images_NCHW)
        assert torch.equal(shared_NK, own_NK), encode(architecture)
        network.zero_grad(set_to_none=True)
        shared_NK.square().sum().backward()
        own_NK.square().sum().backward()
        gradients: dict[nn.Parameter, Tensor] = {}
        for mine, its in _pairs(network, subnet, places, architecture):
            if its.grad is not None:  # two options on a path may be one module in the supernet, and two in the subnet
                gradients[mine] = gradients[mine] + its.grad if mine in gradients else its.grad
        reached = {p for p in network.parameters() if p.grad is not None} - _search_only(network)
        assert gradients.keys() == reached, encode(architecture)
        prefixes = network.prefixes(architecture)  # of elastic layers, whose subnet has a slice
        for parameter, gradient in gradients.items():
            part = tuple(map(slice, prefixes.get(parameter, parameter.shape)))
            assert torch.equal(_gradient(parameter)[part], gradient), encode(architecture)


def check_recalibrated_path_is_its_recalibrated_subnet(space: SearchSpace, build: BuildSupernet) -> None:
    """A path with statistics of its own, kept beside the supernet, gives what its subnet's running averages give."""
    network = _small(build).eval()
    batches = [(1 + part) * _images()[part:] for part in range(3)]  # of different sizes and scales
    for architecture in _architectures(space, 3):
        subnet, statistics = network.subnet(architecture).train(), Statistics()
        for module in subnet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the plain average over all batches
        with torch.no_grad(), statistics.recorded():
            for images_NCHW in batches:
                network(images_NCHW, architecture)
                subnet(images_NCHW)
        with torch.no_grad(), statistics.used():
            shared_NK = network(batches[0], architecture)
        torch.testing.assert_close(shared_NK, subnet.eval()(batches[0]), msg=encode(architecture))


def check_classifiers_alone_make_the_logits(space: SearchSpace, build: BuildSupernet) -> None:
    """A path calls some of the `classifiers`, with a vector for each image, and without them there are no logits."""
    network, images_NCHW = _small(build).eval(), _images()
    own = {parameter for layer in network.classifiers for parameter in layer.parameters()}
    zeros = {name: torch.zeros_like(value) for name, value in network.named_parameters() if value in own}
    for architecture in _architectures(space, 2):
        features_NF = features(partial(network, architecture=architecture), images_NCHW, network.classifiers)
        assert features_NF.ndim == 2 and features_NF.shape[1] > 0
        assert not functional_call(network, zeros, (images_NCHW, architecture)).any(), encode(architecture)


def check_subnet_owns_its_weights(space: SearchSpace, build: BuildSupernet) -> None:
    """Changing a subnet changes neither the supernet nor another subnet of the same path."""
    network = _small(build)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    architecture = _architectures(space)[-1]
    first, second = network.subnet(architecture), network.subnet(architecture)
    kept = [value.clone() for value in second.state_dict().values()]
    first.train()(_images())  # moves running averages
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(old, new) for old, new in zip(kept, second.state_dict().values(), strict=True))


def check_one_hot_weights_are_the_path(space: SearchSpace, build: BuildSupernet) -> None:
    """A relaxed forward pass with all the weight on one choice per block gives that path's logits."""
    network, images_NCHW = _small(build), _images()
    for architecture in _architectures(space):
        one_hot = [
            functional.one_hot(torch.tensor(choice), len(block.choices)).float()
            for choice, block in zip(architecture, space.blocks, strict=True)
        ]
        logits_NK = network(images_NCHW, architecture)
        torch.testing.assert_close(network(images_NCHW, one_hot), logits_NK)
        torch.testing.assert_close(network(images_NCHW, Mixture.on(torch.device("cpu"), one_hot)), logits_NK)


def check_gradients_stay_on_the_path(space: SearchSpace, build: BuildSupernet) -> None:
    """What is off the path has no gradient; what is on it has one, or has no say in the logits (a dead end).

    An elastic layer's parameter beyond the path's slice has a gradient of zero, and no say.
    """
    network, images_NCHW = _small(build), _images()
    for architecture in _architectures(space):
        network.zero_grad(set_to_none=True)
        logits_NK = network(images_NCHW, architecture)
        logits_NK.square().sum().backward()
        on_path = set(touched(network.owners(), [architecture]))
        reached = {parameter for parameter in network.parameters() if parameter.grad is not None}
        assert reached <= on_path
        beyond = network.unused([architecture])
        assert all(
            (_gradient(parameter)[mask] == 0).all() for parameter, mask in beyond.items() if parameter in reached
        )
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(beyond.get(parameter, 0) if parameter in reached else 1)
        assert torch.equal(network(images_NCHW, architecture), logits_NK), encode(architecture)


def check_bfloat16_computes_about_the_same(space: SearchSpace, build: BuildSupernet) -> None:
    """Logits of most paths in bfloat16 point where those in full precision do, and gradients reach the weights.

    Of most: some deep paths without training turn with any rounding. Their gradients do, and are not compared.
    """
    network, images_NCHW = _small(build), _images()
    cosines = []
    for architecture in _architectures(space):
        network.zero_grad(set_to_none=True)
        exact_NK = network(images_NCHW, architecture)
        with autocast(torch.device("cpu"), "bfloat16"):
            rounded_NK = network(images_NCHW, architecture).float()
        cosine = functional.cosine_similarity(exact_NK.flatten(), rounded_NK.flatten(), dim=0)
        cosines.append(cosine.item())
        rounded_NK.square().sum().backward()
        for parameter in network.parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), encode(architecture)
    assert np.median(cosines) > 0.95, cosines


def check_paths_of_several_are_the_union(space: SearchSpace, build: BuildSupernet) -> None:
    """The parameters on several paths are those on any of them."""
    network = _small(build)
    paths = _architectures(space, 3)
    alone = [set(touched(network.owners(), [path])) for path in paths]
    assert set(touched(network.owners(), paths)) == set.union(*alone)


def check_costs_are_those_of_the_subnet(space: SearchSpace, build: BuildSupernet) -> None:
    """Predicted parameters and MACs equal what is counted on the subnet itself."""
    network = _small(build)
    predict_parameters, predict_macs = parameters(network, IMAGE_CHW), macs(network, IMAGE_CHW)
    for architecture in _architectures(space, 6):
        subnet = network.subnet(architecture)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            subnet.eval()(torch.zeros(2, *IMAGE_CHW))
        assert predict_parameters(architecture) == sum(parameter.numel() for parameter in subnet.parameters())
        assert predict_macs(architecture) * 2 * 2 == counter.get_total_flops()  # 2 images, 2 FLOPs a MAC


def check_canonical_form_is_one_of_its_class(space: SearchSpace, build: BuildSupernet) -> None:
    """A canonical form lies in the space and is its own canonical form."""
    del build
    for architecture in _architectures(space, 200):
        form = space.check(space.canonicalise(architecture))
        assert space.canonicalise(form) == form


def check_canonical_form_is_the_same_network(space: SearchSpace, build: BuildSupernet) -> None:
    """With equal weights wherever shapes are equal, an architecture and its canonical form give the same logits."""
    network = _small(build).double()
    removed = _search_only(network)  # a stabiliser stays the identity that it starts as, and that a subnet has
    with torch.no_grad():
        for parameter in (one for one in network.parameters() if one not in removed):
            noise = generator(0, "weights", *parameter.shape).standard_normal(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(noise) / np.sqrt(max(parameter[0].numel(), 1)))
    images_NCHW = _images().double()
    pairs = [(architecture, space.canonicalise(architecture)) for architecture in _architectures(space, 60)]
    for architecture, form in [pair for pair in pairs if pair[0] != pair[1]][:20]:
        shared_NK, canonical_NK = network(images_NCHW, architecture), network(images_NCHW, form)
        # not bit for bit: terms are summed in another order, and batch normalisation amplifies the rounding
        assert torch.allclose(shared_NK, canonical_NK, rtol=1e-5, atol=1e-6), encode(architecture)


def check_synonyms_are_keys_of_the_same_network(space: SearchSpace, build: BuildSupernet) -> None:
    """Different keys with one canonical form, which comes first."""
    del build
    if space.synonyms is None:
        return
    for architecture in _architectures(space, 30):
        found = space.synonyms(space.canonicalise(architecture))
        assert list(found) == list(space.synonyms(architecture))
        assert len(set(found)) == len(found)
        assert {space.canonicalise(space.check(key)) for key in found} == {found[0]}


def check_canonical_form_costs_no_more(space: SearchSpace, build: BuildSupernet) -> None:
    """What meets a constraint meets it in its canonical form too."""
    network = _small(build)
    pairs = [(architecture, space.canonicalise(architecture)) for architecture in _architectures(space, 24)]
    for cost in (parameters(network, IMAGE_CHW), macs(network, IMAGE_CHW)):
        for architecture, form in pairs:
            assert form == architecture or cost(form) <= cost(architecture), encode(architecture)


def check_notation_is_read_back(space: SearchSpace, build: BuildSupernet) -> None:
    """Both the space's own notation and choice indices are read back; other text is the user's mistake, in one line."""
    del build
    for architecture in _architectures(space, 50):
        assert space.parse(space.print(architecture)) == architecture
        assert space.parse(encode(architecture)) == architecture
    printed = space.print(_architectures(space)[-1])
    outside = tuple(len(block.choices) for block in space.blocks)
    for text in ("", "-", "conv9x9", f"{printed}?", printed + printed, encode(outside)):
        try:
            parsed = space.parse(text)
        except UserError as mistake:
            assert "\n" not in str(mistake)
        else:
            raise AssertionError(f"{text!r} was read as {parsed}")


def check_drawing_names_choices(space: SearchSpace, build: BuildSupernet) -> None:
    """Every arrow is labelled with words of the space's choices, and no arrow is drawn twice."""
    del build
    known = {word for block in space.blocks for choice in block.choices for word in choice.split()}
    for architecture in _architectures(space):
        arrows = space.connections(architecture)
        assert {word for arrow in arrows for word in arrow.operation.split()} <= known
        assert len(set(arrows)) == len(arrows)


SPACE_CHECKS: tuple[Callable[[SearchSpace, BuildSupernet], None], ...] = (
    check_blocks_are_those_of_the_supernet,
    check_default_network_runs_on_small_images,
    check_initial_weights_depend_on_the_seed_alone,
    check_subnet_is_its_path,
    check_recalibrated_path_is_its_recalibrated_subnet,
    check_classifiers_alone_make_the_logits,
    check_subnet_owns_its_weights,
    check_one_hot_weights_are_the_path,
    check_gradients_stay_on_the_path,
    check_bfloat16_computes_about_the_same,
    check_paths_of_several_are_the_union,
    check_costs_are_those_of_the_subnet,
    check_canonical_form_is_one_of_its_class,
    check_canonical_form_is_the_same_network,
    check_synonyms_are_keys_of_the_same_network,
    check_canonical_form_costs_no_more,
    check_notation_is_read_back,
    check_drawing_names_choices,
)


def _small(build: BuildSupernet, seed: int = 0) -> Supernet:
    """A network quick enough for tests: with the settings SMALL of the space's file, if it has them."""
    settings = getattr(sys.modules[build.__module__], "SMALL", {})
    return seeded(build, seed, in_channels=IMAGE_CHW[0], classes=CLASSES, resolution=IMAGE_CHW[1], **settings)


def _images() -> Tensor:
    return torch.from_numpy(generator(0, "images").standard_normal((6, *IMAGE_CHW), dtype=np.float32))


def _architectures(space: SearchSpace, count: int = 6) -> list[Architecture]:
    """Always the same: the first choice of every block, the last of every block, and `count` drawn uniformly."""
    rng = generator(0, "architectures")
    first, last = tuple(0 for _ in space.blocks), tuple(len(block.choices) - 1 for block in space.blocks)
    return [first, last, *(space.sample(rng) for _ in range(count))]


def _pairs(
    network: Supernet, subnet: Subnet, places: Mapping[nn.Module, nn.Module], architecture: Architecture
) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Each of the subnet's weights behind the supernet's whose copy it is; what takes another form in it has none."""
    removed = _search_only(network)

    def pairs(whole: PathModule, cut: nn.Module) -> Iterable[tuple[nn.Parameter, nn.Parameter]]:
        if not isinstance(whole, Choice):  # an elastic layer may run without some of its own parts, or none
            mine = [parameter for parameter in whole.parameters() if parameter.grad is not None]
            return zip(mine, [p for p in _without_batch_norm(cut) if p.grad is not None], strict=True)
        option = whole.options[architecture[whole.block]]
        if isinstance(option, PathModule):
            return pairs(option, cut)
        return zip([p for p in option.parameters() if p not in removed], _without_batch_norm(cut), strict=True)

    modules = network.outermost()
    parts = [part for choice in network.choices() for part in choice.options] + [*modules]  # shared options lie in none
    on_some_paths = {parameter for part in parts for parameter in part.parameters()}
    own = {parameter for module in modules for parameter in places[module].parameters()}
    shared = [parameter for parameter in network.parameters() if parameter not in on_some_paths | removed]
    found = list(zip(shared, [p for p in _without_batch_norm(subnet) if p not in own], strict=True))
    return found + [pair for module in modules for pair in pairs(module, places[module])]


def _without_batch_norm(network: nn.Module) -> list[nn.Parameter]:
    norms = {p for module in network.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
    return [parameter for parameter in network.parameters() if parameter not in norms]


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _search_only(network: nn.Module) -> set[nn.Parameter]:
    """The parameters of layers that a subnet does not have as they are, such as a stabiliser."""
    layers = [module for module in network.modules() if hasattr(module, "stand_alone")]
    return {parameter for layer in layers for parameter in layer.parameters()}


# ---------------------------------------------------------------------------------------------------------------------
# Proxies: the check takes the proxy and an untrained network, such as a subnet, for CLASSES and images of IMAGE_CHW
# ---------------------------------------------------------------------------------------------------------------------


def check_proxy_is_a_pure_function_of_network_images_and_seed(proxy: Proxy, network: nn.Module) -> None:
    """A score is a finite number, the same again and in either mode, and scoring leaves everything as it was.

    That is weights, running averages, mode, gradients and hooks of the network, the images, and torch's own generator.
    """
    before, state = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    images_NCHW = _images()
    labels_N = torch.arange(len(images_NCHW)) % CLASSES
    scores = []
    for mode in (True, False):
        rng = torch.Generator().manual_seed(0)
        scores.append(proxy(network.train(mode), images_NCHW, labels_N, rng=rng))
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
        for module in network.modules():
            assert module.training is mode and not module._forward_hooks and not module._forward_pre_hooks
    assert isinstance(scores[0], float) and math.isfinite(scores[0])
    assert scores[0] == scores[1]
    assert torch.equal(images_NCHW, _images()) and images_NCHW.grad is None
    assert torch.equal(torch.random.get_rng_state(), state)


# ---------------------------------------------------------------------------------------------------------------------
# Predictors: every check takes the predictor (the function that its file holds)
# ---------------------------------------------------------------------------------------------------------------------


def check_planted_sum_is_recovered(predictor: Predictor) -> None:
    """A sum over the features orders rows that were not seen."""
    known_NF, ranks_N, asked_AF, truth_A = _planted()
    assert kendall_tau_b(predictor(known_NF, ranks_N, asked_AF, seed=0), truth_A) > 0.7


def check_prediction_is_of_each_row_alone(predictor: Predictor) -> None:
    """The same seed predicts the same, whatever else is asked and in whatever order; the arguments stay as they are."""
    known_NF, ranks_N, asked_AF, _ = _planted()
    values_A = predictor(known_NF, ranks_N, asked_AF, seed=0)
    assert values_A.shape == (len(asked_AF),) and np.isfinite(values_A).all()
    np.testing.assert_allclose(predictor(known_NF, ranks_N, asked_AF[::-1][:5], seed=0), values_A[::-1][:5], atol=1e-9)
    for given, fresh in zip((known_NF, ranks_N, asked_AF), _planted(), strict=False):
        np.testing.assert_array_equal(given, fresh)


def check_equal_ranks_predict_equal_values(predictor: Predictor) -> None:
    """Of scores that tell nothing apart nothing is made, be there many of them or two."""
    known_NF, ranks_N, asked_AF, _ = _planted()
    for count in (2, len(known_NF)):
        values_A = predictor(known_NF[:count], np.full_like(ranks_N[:count], 0.5), asked_AF, seed=0)
        np.testing.assert_allclose(values_A, 0.5, atol=1e-9)


def check_predictor_leaves_global_randomness_alone(predictor: Predictor) -> None:
    """Predictors neither draw from global generators nor seed them."""
    before = _global_states()
    values_A = predictor(*_planted()[:3], seed=0)
    assert _global_states() == before
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(predictor(*_planted()[:3], seed=0), values_A)


PREDICTOR_CHECKS: tuple[Callable[[Predictor], None], ...] = (
    check_planted_sum_is_recovered,
    check_prediction_is_of_each_row_alone,
    check_equal_ranks_predict_equal_values,
    check_predictor_leaves_global_randomness_alone,
)


def _planted() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Features and ranks of 100 rows, and the features and the truth of 50 others: a sum of seven of eight features."""
    rng = generator(0, "planted")
    rows_RF = rng.integers(0, 2, size=(150, 8)).astype(np.float64)
    truth_R = rows_RF @ [4.0, 3.0, 2.0, 1.0, -1.0, -2.0, -3.0, 0.0]
    return rows_RF[:100], scaled_ranks(truth_R[None, :100])[0], rows_RF[100:], truth_R[100:]


# ---------------------------------------------------------------------------------------------------------------------
# Strategies: every check takes what builds one for a space and a seed (the class that its file holds)
# ---------------------------------------------------------------------------------------------------------------------


class BuildStrategy(Protocol):
    """`Name(space, *, seed)` of a strategy, its other settings at their defaults."""

    def __call__(self, space: SearchSpace, *, seed: int) -> Strategy:
        """A strategy that has asked for nothing yet."""


def _stages(architecture: Architecture) -> Architecture:
    """Identities (choice 0) go to the end of their half: 729 keys, 225 networks."""
    halves = architecture[:3], architecture[3:]
    return tuple(choice for half in halves for choice in sorted(half, key=lambda choice: choice == 0))


def _parities(architecture: Architecture) -> Architecture:
    """A space of 2 * 1 * 3 keys and 4 networks: the last choice only counts by whether it is 0."""
    return (*architecture[:2], min(architecture[2], 1))


def _cells(choices: Sequence[float]) -> tuple[Cell, ...]:
    """A cell of one layer for each block, the wider the later its choice."""
    return tuple(Cell(width=1 + choice, layers=1, links=0, pixels=1) for choice in choices)


STAGES = SearchSpace(
    "stages",
    tuple(ChoiceBlock(f"layer{b}", ("skip", "a", "b")) for b in range(6)),
    canonical=_stages,
    cells=_cells,
)
FOUR = SearchSpace(
    "four", tuple(ChoiceBlock(f"{n}", ("x", "y", "z")[:n]) for n in (2, 1, 3)), canonical=_parities, cells=_cells
)
ONE = SearchSpace("one", (ChoiceBlock("only", ("x",)),), cells=_cells)


def check_same_seed_asks_the_same(build: BuildStrategy) -> None:
    """Equal seeds ask equal architectures when told the same, and other seeds ask others."""
    same, again, other = (_asked(build(STAGES, seed=seed), 3) for seed in (3, 3, 4))
    assert same == again
    assert same != other


def check_asks_lie_in_the_space(build: BuildStrategy) -> None:
    """Every architecture is a tuple of plain integers, one of each block's choices."""
    for architecture in _asked(build(STAGES, seed=0), 5):
        assert STAGES.check(architecture) == architecture
        assert all(type(choice) is int for choice in architecture)


def check_count_is_respected(build: BuildStrategy) -> None:
    """As many as wanted come, while there are as many; wanting none gives none."""
    strategy = build(STAGES, seed=0)
    for count in (1, 0, 16, 3):
        asked = strategy.ask(count)
        assert len(asked) == count
        strategy.tell(_scored(asked))


def check_no_network_is_asked_for_twice(build: BuildStrategy) -> None:
    """Not by another encoding either, nor one that the strategy was only told of."""
    strategy = build(STAGES, seed=0)
    foreign = [(2, 1, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1)]
    strategy.tell(_scored(foreign))
    networks = [STAGES.canonicalise(architecture) for architecture in [*foreign, *_asked(strategy, 8)]]
    assert len(set(networks)) == len(networks) == 2 + 8 * 16


def check_small_space_is_exhausted(build: BuildStrategy) -> None:
    """All networks are asked for, and then none."""
    for space, size in ((FOUR, 4), (ONE, 1), (STAGES, 225)):
        strategy = build(space, seed=1)
        asked: list[Architecture] = []
        while batch := strategy.ask(7):
            asked += batch
            assert len(asked) <= size
            strategy.tell(_scored(batch))
        assert len({space.canonicalise(architecture) for architecture in asked}) == len(asked) == size
        assert strategy.ask(1) == []


def check_tells_may_be_late_and_unordered(build: BuildStrategy) -> None:
    """Asks need no tells in between; what was asked first may be told last, in pieces, or twice."""
    strategy = build(STAGES, seed=0)
    waiting = [strategy.ask(16) for _ in range(4)]
    for batch in reversed(waiting):
        strategy.tell(_scored(batch[::-1]))
        strategy.tell(_scored(batch[:3]))
        assert len(strategy.ask(5)) == 5
    strategy.tell([])
    assert len(strategy.ask(5)) == 5


def check_failures_do_not_stop_the_search(build: BuildStrategy) -> None:
    """Neither rejected candidates, exceptions, nor objectives that are no numbers; not even if nothing succeeds."""
    for failing in (1, 2):  # all of them, every second one
        strategy = build(STAGES, seed=0)
        for _ in range(4):
            asked = strategy.ask(16)
            assert len(asked) == 16
            told = _scored(asked)
            for index in range(0, len(told), failing):
                broken = [((), "constraint: macs"), ((math.nan, 1.0), None), ((math.inf, 1.0), None), ((), None)]
                told[index] = Evaluation(asked[index], *broken[index % 4])
            strategy.tell(told)


def check_pickle_continues_the_same(build: BuildStrategy) -> None:
    """A strategy unpickled in mid-run, with asks in flight, asks what the one that was never pickled asks."""
    strategy = build(STAGES, seed=0)
    _asked(strategy, 2)
    in_flight = strategy.ask(5)
    twin = pickle.loads(pickle.dumps(strategy))  # noqa: S301 (its own bytes)
    for one in (strategy, twin):
        one.tell(_scored(in_flight))
    assert _asked(strategy, 2) == _asked(twin, 2)


def check_global_randomness_is_left_alone(build: BuildStrategy) -> None:
    """Strategies neither draw from global generators nor seed them."""
    before = _global_states()
    asked = _asked(build(STAGES, seed=0), 2)
    assert _global_states() == before
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert _asked(build(STAGES, seed=0), 2) == asked


STRATEGY_CHECKS: tuple[Callable[[BuildStrategy], None], ...] = (
    check_same_seed_asks_the_same,
    check_asks_lie_in_the_space,
    check_count_is_respected,
    check_no_network_is_asked_for_twice,
    check_small_space_is_exhausted,
    check_tells_may_be_late_and_unordered,
    check_failures_do_not_stop_the_search,
    check_pickle_continues_the_same,
    check_global_randomness_is_left_alone,
)


def _global_states() -> tuple[object, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


def _asked(strategy: Strategy, batches: int) -> list[Architecture]:
    """What a strategy asks in batches of 16, each told before the next is asked."""
    asked: list[Architecture] = []
    for _ in range(batches):
        batch = strategy.ask(16)
        strategy.tell(_scored(batch))
        asked += batch
    return asked


def _scored(architectures: Iterable[Architecture]) -> list[Evaluation]:
    """Two objectives at odds: how far from choosing 1 everywhere, and the sum of the choices."""
    return [Evaluation(one, (float(sum(choice != 1 for choice in one)), float(sum(one)))) for one in architectures]
