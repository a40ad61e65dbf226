"""A partition's supernet is trained by any rule on its own paths, and all partitions score on one scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import raynas.training_rules
from raynas import seeds
from raynas.architecture import Architecture
from raynas.checkpoint import load_state, save_state
from raynas.common_scale import Scale, common_scale
from raynas.config import Config, PartitionSettings
from raynas.costs.parameters import parameters
from raynas.data import Split, load, split
from raynas.depthwise import DepthwiseConv2d
from raynas.evaluation import Evaluation
from raynas.gradient_likeness import gradient_likeness
from raynas.members import members
from raynas.partition import Partition, split_space
from raynas.plan import build_rule, build_supernet
from raynas.proxies._network import Intercepted
from raynas.replica_group import ReplicaGroup
from raynas.restricted import Restricted
from raynas.scoring_images import draw_images
from raynas.space import ChoiceBlock, SearchSpace
from raynas.storage import Folder
from raynas.strategies.random_search import RandomSearch
from raynas.supernet import Choice, Choices, Supernet, seeded, touched
from raynas.supernet_evaluator import Costs, SupernetEvaluator
from raynas.trainer import Trainer
from raynas.training_rule import Batch, StepResult
from raynas.training_rules.importance import Importance
from search_spaces import nas_bench_macro, nats_size
from search_spaces.nas_bench_201 import SPACE
from tests.helpers import config_for, make_trainer, rule_plan, small_config
from tests.partitioned_evaluator import PartitionedEvaluator

RULES = members(raynas.training_rules.__name__)
WARM_UP = 6
FIRST, SECOND = split_space(SPACE, PartitionSettings(blocks=("op03",), by="lexicographic"), seed=0)
FEWER: dict[str, dict[str, Any]] = {"parsec": {"samples": 2}}
WHOLE = Partition(tuple(tuple(range(len(block.choices))) for block in SPACE.blocks))
ASKED = RandomSearch(SPACE, seed=0).ask(16)
PLAIN = small_config(training={"momentum": 0.0})
"""Momenta are not handed on; without them two trainers that share a schedule are one."""


def partitions(rule: str) -> tuple[Partition, ...]:
    """Two halves of the space that the rule is tested on."""
    if rule != "ordered_dropout":
        return FIRST, SECOND
    return split_space(nats_size.SPACE, PartitionSettings(blocks=("cell 3",), by="lexicographic"), seed=0)


def part(
    rule: str, partition: Partition, weights: dict[str, Tensor] | None = None, config: Config | None = None
) -> Trainer:
    """A trainer that goes on from a warm-up's weights on one partition."""
    plan, supernet = rule_plan(rule, config, **FEWER.get(rule, {}))
    dataset = load("digits")
    network = build_supernet(plan.config, dataset, seed=supernet.seed)
    if weights is not None:
        network.load_state_dict(weights)
    return Trainer(
        supernet=network,
        rule=build_rule(supernet, partition.restrict(plan.space)),
        split=split(dataset, plan.config.data.validation_fraction, plan.config.seed),
        training=supernet.training,
        data=plan.config.data,
        seed=supernet.seed,
        device=torch.device("cpu"),
        partition=partition,
        begin=WARM_UP,
    )


def warm_up(rule: str = "uniform", config: Config | None = None) -> dict[str, Tensor]:
    trainer = make_trainer(rule, config)
    trainer.end = WARM_UP
    finish(trainer)
    assert trainer.step == WARM_UP
    return {name: value.clone() for name, value in trainer.supernet.state_dict().items()}


def finish(trainer: Trainer) -> Trainer:
    while not trainer.done:
        trainer.advance()
    return trainer


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


# The supernet as a partition sees it


def test_a_path_of_the_partition_is_that_path_of_the_network() -> None:
    network = build_supernet(small_config(), load("digits"), seed=0)
    images_NCHW = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for partition in (FIRST, SECOND, WHOLE):
        view, space = Restricted(network, partition), partition.restrict(SPACE)
        rng = seeds.generator(0, "paths")
        for _ in range(5):
            inner = space.sample(rng)
            outer = partition.outer(inner)
            assert torch.equal(view(images_NCHW, inner), network(images_NCHW, outer))
            assert torch.equal(view.subnet(inner)(images_NCHW), network.subnet(outer)(images_NCHW))
            assert set(touched(view.owners(), [inner])) == set(touched(network.owners(), [outer]))
        assert [[*one.options] for one in view.choices()] == [
            [one.options[option] for option in partition.choices[one.block]] for one in network.choices()
        ]


@pytest.mark.parametrize("rule", ["darts1", "darts2", "darts_pt", "snas"])
@pytest.mark.parametrize("partition", [WHOLE, SECOND])
def test_no_layer_of_a_mixture_asks_the_device_which_weights_are_zero(rule: str, partition: Partition) -> None:
    trainer = part(rule, partition, config=config_for(rule))  # WARM_UP of 12 steps: darts_pt has begun to select by 8
    plain, called = trainer.supernet.forward, set[str]()

    def noted(name: str, call: Callable[[], Any], _: Any) -> Any:
        called.add(name)
        return call()

    def forward(images_NCHW: Tensor, architecture: Choices) -> Tensor:
        with Intercepted(noted):
            return plain(images_NCHW, architecture)

    trainer.supernet.forward = forward  # type: ignore[method-assign]
    for _ in range(3):
        trainer.train_step()
    assert "conv2d" in called and not called & {"tolist", "item", "bool", "float", "cpu", "nonzero"}


def test_relaxed_weights_of_the_partition_give_the_other_choices_none() -> None:
    network = build_supernet(small_config(), load("digits"), seed=0)
    view, space = Restricted(network, SECOND), SECOND.restrict(SPACE)
    images_NCHW = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    weights = [torch.arange(1.0, len(block.choices) + 1).div(10).requires_grad_() for block in space.blocks]
    full = [torch.zeros(len(block.choices)) for block in SPACE.blocks]
    for one, whole, allowed in zip(weights, full, SECOND.choices, strict=True):
        whole[list(allowed)] = one.detach()
    logits_NK = view(images_NCHW, weights)
    torch.testing.assert_close(logits_NK, network(images_NCHW, full))
    logits_NK.sum().backward()
    assert all(one.grad is not None and (one.grad != 0).any() for one in weights)


# Training


@pytest.mark.parametrize("rule", ["uniform", "fair"])
def test_canonical_paths_of_a_partition_lie_in_it(rule: str) -> None:
    plan, supernet = rule_plan(rule, sampling="canonical")
    for partition in (FIRST, SECOND):
        space = partition.restrict(plan.space)
        forms, keys = (
            build_rule(replace(supernet, rule_settings={"sampling": how}), space) for how in ("canonical", "keys")
        )
        elsewhere = 0
        for number in range(60):
            pairs = zip(_paths(keys, number), _paths(forms, number), strict=True)
            for key, trained in pairs:
                form = SPACE.canonicalise(partition.outer(key))
                assert partition.outer(trained) == (form if form in partition else partition.outer(key))
                elsewhere += form not in partition
        assert elsewhere, "keys whose canonical form another partition holds"


def _paths(rule: Any, number: int) -> tuple[Architecture, ...]:
    """The paths of a step on a network of which nothing is asked."""
    batch = Batch(torch.zeros(1), torch.zeros(1))
    result: StepResult = rule.step(
        lambda images, path: torch.zeros((), requires_grad=True),
        batch,
        None,
        loss=lambda logits, labels: logits,
        rng=seeds.generator(0, "paths", number),
        number=number,
        group=ReplicaGroup(),
    )
    return result.paths


def test_a_rule_with_a_schedule_goes_on_with_the_one_of_the_warm_up() -> None:
    trainer = finish(part("importance", WHOLE, warm_up("importance")))
    rule = trainer.rule
    assert isinstance(rule, Importance)
    for norms, probabilities in zip(rule.norms, rule.probabilities(), strict=True):
        known = (
            np.where(np.isnan(norms), np.nanmean(norms), norms) if not np.isnan(norms).all() else np.ones(len(norms))
        )
        expected = rule.strength * known / known.sum() + (1 - rule.strength) / len(norms)
        assert probabilities == pytest.approx(expected)


@pytest.mark.parametrize("rule", RULES)
def test_a_partition_trains_nothing_but_its_own_paths(rule: str) -> None:
    partition, _ = partitions(rule)
    weights = warm_up(config=config_for(rule))
    trained = finish(part(rule, partition, weights)).supernet
    view = Restricted(trained, partition)
    own = {parameter for parameter, _ in view.owners()}
    beyond = view.unused([tuple(len(choices) - 1 for choices in partition.choices)])  # of slices: the widest are last
    assert own and (beyond or len(own) < len(list(trained.parameters())))
    for name, value in trained.named_parameters():
        if value in beyond:
            assert torch.equal(value[beyond[value]], weights[name][beyond[value]])
    moved = {name for name, value in trained.named_parameters() if not torch.equal(value, weights[name])}
    assert moved and moved <= {name for name, value in trained.named_parameters() if value in own}


@pytest.mark.parametrize("rule", ["uniform", "fair"])
def test_a_warm_up_and_a_partition_that_is_the_whole_space_are_one_training(rule: str) -> None:
    whole = finish(make_trainer(rule, PLAIN))
    resumed = finish(part(rule, WHOLE, warm_up(rule, PLAIN), PLAIN))
    assert equal(whole.supernet.state_dict(), resumed.supernet.state_dict())
    assert [point["loss"] for point in whole.curves[-len(resumed.curves) :]] == [
        point["loss"] for point in resumed.curves
    ]
    assert resumed.curves[-1]["learning_rate"] == whole.curves[-1]["learning_rate"]


@pytest.mark.parametrize("rule", RULES)
def test_a_partition_that_is_resumed_equals_an_undisturbed_one_to_the_bit(rule: str, tmp_path: Path) -> None:
    weights, folder = warm_up(config=config_for(rule)), Folder(str(tmp_path))
    partition, _ = partitions(rule)
    undisturbed, first = finish(part(rule, partition, weights)), part(rule, partition, weights)
    first.advance()
    save_state(folder, "state", first.state_dict())
    resumed = part(rule, partition)
    resumed.load_state_dict(load_state(folder, "state"))
    assert equal(undisturbed.supernet.state_dict(), finish(resumed).supernet.state_dict())


def test_partitions_go_apart_from_the_weights_that_they_start_from() -> None:
    weights = warm_up()
    first, second = (finish(part("uniform", one, weights)).supernet.state_dict() for one in (FIRST, SECOND))
    assert not equal(first, second) and not equal(first, weights)


# The likeness of gradients


class Turned(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return -inputs


class Arms(Supernet):
    """Two blocks behind a shared layer: the first turns the signal round with its third choice, the second does not."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(64, 12)
        self.turn = Choice(0, [nn.Identity(), Turned(), nn.Identity()])
        self.keep = Choice(1, [nn.Identity(), nn.Identity(), nn.Identity()])

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        hidden = self.turn(self.shared(images_NCHW.flatten(1)), architecture)
        return self.keep(hidden, architecture)[:, :10]


ARMS = SearchSpace("arms", (ChoiceBlock("turn", ("as", "turned", "too")), ChoiceBlock("keep", ("a", "b", "c"))))


def test_gradients_tell_which_choices_pull_the_shared_weights_apart() -> None:
    torch.manual_seed(0)
    network, train = Arms(), make_trainer("uniform").train

    def likeness(*, block: int) -> Any:
        return gradient_likeness(network, ARMS, train, block=block, paths=4, batch_size=32, seed=0)

    turn_CC = likeness(block=0)
    assert turn_CC[0, 2] == pytest.approx(1) and turn_CC[0, 1] < 0.5
    assert np.allclose(turn_CC, turn_CC.T) and np.allclose(np.diag(turn_CC), 1)
    assert likeness(block=1) == pytest.approx(np.ones((3, 3)), abs=1e-6)
    assert (turn_CC == likeness(block=0)).all()
    found = split_space(ARMS, PartitionSettings(), seed=0, likeness=likeness)
    assert [one.choices for one in found] == [((0, 2), (0, 1, 2)), ((1,), (0, 1, 2))]


def test_the_likeness_is_that_of_the_mean_gradients_of_the_paths() -> None:
    trainer = make_trainer("uniform")
    network, train, block, paths = trainer.supernet, trainer.train, 3, 3
    found_CC = gradient_likeness(network, SPACE, train, block=block, paths=paths, batch_size=16, seed=5)
    shared = [parameter for parameter, places in network.owners() if block not in dict(places)]
    rng = seeds.generator(5, "likeness", block)
    drawn = [SPACE.sample(rng) for _ in range(paths)]
    means = []
    for choice in range(5):
        losses = []
        for number, path in enumerate(drawn):
            images_NCHW, labels_N = train.augmented(number, 16, 5, "likeness")
            through = (*path[:block], choice, *path[block + 1 :])
            losses.append(functional.cross_entropy(network(images_NCHW, through), labels_N))
        gradients = torch.autograd.grad(torch.stack(losses).mean(), shared, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(shared, gradients, strict=True)]
        means.append(torch.cat([g.flatten() for g in flat]).double())
    for i in range(5):
        for j in range(5):
            cosine = functional.cosine_similarity(means[i], means[j], dim=0)
            assert found_CC[i, j] == pytest.approx(1.0 if i == j else float(cosine), abs=1e-4)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_gradients_are_compared_by_fast_depthwise_convolutions() -> None:
    settings = {"in_channels": 1, "classes": 10, "resolution": 8, "channels": 4, "head_channels": 8}
    network, train = seeded(nas_bench_macro.supernet, 0, **settings), make_trainer("uniform").train
    gradient_likeness(network, nas_bench_macro.SPACE, train, block=0, paths=1, batch_size=8, seed=0)
    assert any(isinstance(module, DepthwiseConv2d) for module in network.modules())


# Scoring


@pytest.fixture(scope="module")
def digits() -> Split:
    return split(load("digits"), 0.25, seed=0)


@pytest.fixture(scope="module")
def evaluators(digits: Split) -> list[SupernetEvaluator]:
    """Of the warm-up, and of both partitions."""
    config = small_config(selector={"cost": ""}, evaluation={"costs": ["parameters"]})
    weights = warm_up()
    predict = parameters(part("uniform", WHOLE).supernet, digits.dataset.image_shape_CHW)
    limit = float(np.median([predict(SPACE.canonicalise(one)) for one in ASKED]))
    networks = [part("uniform", WHOLE, weights).supernet]
    networks += [finish(part("uniform", one, weights)).supernet for one in (FIRST, SECOND)]
    return [
        SupernetEvaluator(
            supernet=network,
            space=SPACE,
            images=draw_images(digits, config, torch.device("cpu")),
            settings=config.evaluation,
            costs=Costs(["parameters"], {"parameters": limit}, network, digits.dataset.image_shape_CHW),
            device=torch.device("cpu"),
        )
        for network in networks
    ]


def whole_evaluator(evaluators: list[SupernetEvaluator], **settings: Any) -> PartitionedEvaluator:
    return PartitionedEvaluator(
        space=SPACE,
        partitions=(FIRST, SECOND),
        parts=evaluators[1:],
        reference=evaluators[0],
        settings=PartitionSettings(**settings),
        seed=0,
    )


def test_an_architecture_is_scored_by_the_supernet_of_its_canonical_forms_partition(
    evaluators: list[SupernetEvaluator],
) -> None:
    rng = seeds.generator(0, "keys")
    keys = [SPACE.sample(rng) for _ in range(200)]
    moved = [key for key in keys if (key in FIRST) != (SPACE.canonicalise(key) in FIRST)][:4]
    assert moved, "keys whose canonical form another partition holds"
    asked = [*ASKED, *moved]
    found = list(whole_evaluator(evaluators, comparable="none").evaluate(asked))
    for one in found:
        owner = evaluators[1 if SPACE.canonicalise(one.architecture) in FIRST else 2]
        assert one == owner.evaluate_one(one.architecture)
    assert {one.architecture for one in found} == set(asked)
    assert any(one.failure for one in found) and any(one.objectives for one in found)


@pytest.mark.parametrize("how", ["shift", "shift_and_scale"])
def test_on_its_reference_architectures_a_partition_agrees_with_the_warm_up(
    evaluators: list[SupernetEvaluator], how: str
) -> None:
    evaluator = whole_evaluator(evaluators, comparable=how, reference=12)
    for index, partition in enumerate((FIRST, SECOND)):
        sample = [one for one in ASKED if SPACE.canonicalise(one) in partition]
        scale = evaluator.scale(index)
        assert scale != Scale()
        raw = list(evaluators[1 + index].evaluate(sample))
        for before, after in zip(raw, evaluator.evaluate(sample), strict=True):
            assert after == scale(before)
            assert after.objectives[2:] == before.objectives[2:] and after.failure == before.failure
    again = whole_evaluator(evaluators, comparable=how, reference=12)
    assert list(again.evaluate(ASKED[::-1]))[::-1] == list(evaluator.evaluate(ASKED))


def scored(*values: float | None) -> list[Evaluation]:
    return [Evaluation((i,), () if v is None else (v, v / 2, 7.0), None) for i, v in enumerate(values)]


def test_a_common_scale_gives_the_means_and_if_asked_the_spread_of_the_reference() -> None:
    own, reference = scored(1.0, 2.0, None, 6.0, 9.0), scored(2.0, 2.5, 4.0, 3.0, None)
    kept = [0, 1, 3]
    for how in ("shift", "shift_and_scale"):
        moved = np.array([common_scale(how, own, reference)(own[i]).objectives for i in kept])
        wanted = np.array([reference[i].objectives for i in kept])
        assert moved.mean(axis=0) == pytest.approx(wanted.mean(axis=0))
        before = np.array([own[i].objectives for i in kept])
        spread = (wanted if how == "shift_and_scale" else before).std(axis=0)
        assert moved.std(axis=0) == pytest.approx(spread)
    assert common_scale("none", own, reference) == Scale() == common_scale("shift", scored(None), scored(1.0))
    equal_scores = common_scale("shift_and_scale", scored(3.0, 3.0), scored(1.0, 2.0))
    assert equal_scores == Scale((1.0, 1.0), (-1.5, -0.75))
    assert Scale()(own[2]) == own[2]
