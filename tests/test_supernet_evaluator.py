"""A score is a function of the weights, the network, the validation images and the seed, and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raynas import seeds
from raynas.architecture import Architecture
from raynas.config import Config
from raynas.costs import macs, parameters
from raynas.data import Split, load, split
from raynas.depthwise import DepthwiseConv2d
from raynas.errors import UserError
from raynas.evaluation import SCORES, Evaluation
from raynas.fine_tuning import fine_tuned
from raynas.plan import build_supernet
from raynas.scoring_images import draw_images
from raynas.strategies.random_search import RandomSearch
from raynas.supernet import Choices, Supernet, seeded
from raynas.supernet_evaluator import Costs, SupernetEvaluator
from search_spaces import nas_bench_macro
from search_spaces.nas_bench_201 import SPACE
from tests.helpers import small_config

MODES = pytest.mark.parametrize("mode", ["batch", "recalibrated", "fine-tuned", "fitted"])
CHANGES: dict[str, dict[str, Any]] = {
    "batch": {"batch_norm": "batch"},
    "recalibrated": {"batch_norm": "recalibrated"},
    "fine-tuned": {"batch_norm": "recalibrated", "fine_tune_steps": 2, "fine_tune_batch_size": 16},
    "fitted": {"batch_norm": "recalibrated", "head": "fitted", "head_images": 200},
}
ARCHITECTURES = RandomSearch(SPACE, seed=0).ask(8)


@pytest.fixture(scope="module")
def digits() -> Split:
    return split(load("digits"), 0.25, seed=0)


@pytest.fixture(scope="module")
def supernet(digits: Split) -> Supernet:
    """A supernet whose weights have been moved a little by a few steps, so that errors differ between paths."""
    network = build_supernet(small_config(), digits.dataset, seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    rng = seeds.generator(0, "steps")
    images_NCHW, labels_N = digits.train_images_NCHW[:128] / 8.0 - 1, digits.train_labels_N[:128]
    for _ in range(40):
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(images_NCHW, SPACE.sample(rng)), labels_N).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network


Make = Callable[..., SupernetEvaluator]


@pytest.fixture
def make(digits: Split, supernet: Supernet) -> Make:
    def evaluator(
        mode: str = "batch",
        *,
        of: Split = digits,
        network: Supernet = supernet,
        limits: dict[str, float] | None = None,
        seed: int = 0,
        **changes: Any,
    ) -> SupernetEvaluator:
        config: Config = small_config(
            seed=seed,
            selector={"cost": ""},
            evaluation={
                **{**CHANGES[mode], "images": 100, "batch_size": 40, "calibration_images": 96},
                "costs": ["parameters"],
                **changes,
            },
        )
        return SupernetEvaluator(
            supernet=network,
            space=SPACE,
            images=draw_images(of, config, torch.device("cpu")),
            settings=config.evaluation,
            costs=Costs(config.evaluation.costs, limits or {}, network, of.dataset.image_shape_CHW),
            device=torch.device("cpu"),
        )

    return evaluator


def score_all(evaluator: SupernetEvaluator, architectures: list[Architecture]) -> dict[Architecture, Evaluation]:
    found = list(evaluator.evaluate(architectures))
    assert [one.architecture for one in found] == architectures
    return {one.architecture: one for one in found}


@MODES
def test_a_score_depends_neither_on_the_order_nor_on_what_was_scored_before(make: Make, mode: str) -> None:
    together = score_all(make(mode), ARCHITECTURES)
    assert len({one.objectives for one in together.values()}) > 4
    used = make(mode)
    assert score_all(used, ARCHITECTURES[::-1]) == together
    assert score_all(used, [*ARCHITECTURES, *ARCHITECTURES]) == together
    for architecture in ARCHITECTURES:
        assert make(mode).evaluate_one(architecture) == together[architecture]


@MODES
def test_scoring_leaves_the_supernet_as_it_was(make: Make, supernet: Supernet, mode: str) -> None:
    evaluator = make(mode)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    modes = {name: module.training for name, module in supernet.named_modules()}
    random = torch.get_rng_state()
    score_all(evaluator, ARCHITECTURES)
    after = supernet.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    assert {name: module.training for name, module in supernet.named_modules()} == modes
    assert all(parameter.grad_fn is None and parameter.requires_grad for parameter in supernet.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.fixture
def known_by_many_keys() -> Architecture:
    assert SPACE.synonyms is not None
    rng = np.random.default_rng(0)
    found = max((SPACE.sample(rng) for _ in range(100)), key=lambda one: len(SPACE.synonyms(one)))  # type: ignore[misc]
    assert len(SPACE.synonyms(found)) > 3
    return found


@MODES
@pytest.mark.parametrize("by", [0, 1])
def test_a_network_is_as_good_as_the_best_of_the_keys_that_are_scored(
    make: Make, known_by_many_keys: Architecture, mode: str, by: int
) -> None:
    assert SPACE.synonyms is not None
    several = make(mode, keys=3, score=SCORES[by])
    scores = [several.score(key) for key in SPACE.synonyms(known_by_many_keys)[:3]]
    assert len(set(scores)) == 3
    assert several.evaluate_one(known_by_many_keys).objectives[by] == min(found[by] for found in scores)
    assert make(mode).evaluate_one(known_by_many_keys).objectives[:2] == scores[0]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_key_without_a_finite_loss_is_not_the_best(
    make: Make, known_by_many_keys: Architecture, broken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [0.2, 0.1, 0.3]
    losses[broken] = math.nan
    evaluator = make(keys=3)
    monkeypatch.setattr(evaluator, "score", lambda key, left=iter(losses): (next(left), 0.5))
    assert evaluator.evaluate_one(known_by_many_keys).objectives[0] == (0.2 if broken == 1 else 0.1)


@MODES
def test_bfloat16_scores_about_the_same(make: Make, mode: str) -> None:
    full, rounded = (make(mode, precision=precision) for precision in ("float32", "bfloat16"))
    losses = np.array([[one.score(architecture)[0] for architecture in ARCHITECTURES] for one in (full, rounded)])
    assert not np.array_equal(*losses)
    np.testing.assert_allclose(*losses, rtol=0.1)


@MODES
def test_isomorphic_architectures_have_equal_scores(make: Make, mode: str) -> None:
    evaluator = make(mode)
    pairs = isomorphic(6)
    for architecture, twin in pairs:
        first, second = evaluator.evaluate([architecture, twin])
        assert first.objectives == second.objectives != ()
        assert (first.architecture, second.architecture) == (architecture, twin)


def test_loss_and_error_are_those_of_the_path_on_the_images(make: Make, supernet: Supernet) -> None:
    evaluator = make()
    assert [len(labels_N) for _, labels_N in evaluator.images.scored] == [34, 33, 33]
    for architecture in ARCHITECTURES:
        canonical = SPACE.canonicalise(architecture)
        with torch.no_grad():
            logits_NK = torch.cat([supernet(images_NCHW, canonical) for images_NCHW, _ in evaluator.images.scored])
        labels_N = torch.cat([labels_N for _, labels_N in evaluator.images.scored])
        loss, error, *_ = evaluator.evaluate_one(architecture).objectives
        assert loss == pytest.approx(float(functional.cross_entropy(logits_NK.double(), labels_N)), rel=1e-6)
        assert error == int((logits_NK.argmax(1) != labels_N).sum()) / 100


def test_a_recalibrated_score_is_that_of_a_subnet_recalibrated_by_hand(make: Make, supernet: Supernet) -> None:
    evaluator = make("recalibrated")
    assert sum(len(images_NCHW) for images_NCHW in evaluator.images.calibration) == 96
    for architecture in ARCHITECTURES:
        subnet = supernet.subnet(SPACE.canonicalise(architecture))
        layers = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the plain average over all batches
        with torch.no_grad():
            subnet.train()
            for images_NCHW in evaluator.images.calibration:
                subnet(images_NCHW)
            subnet.eval()
            logits_NK = torch.cat([subnet(images_NCHW) for images_NCHW, _ in evaluator.images.scored])
        labels_N = torch.cat([labels_N for _, labels_N in evaluator.images.scored])
        loss, error, *_ = evaluator.evaluate_one(architecture).objectives
        assert loss == pytest.approx(float(functional.cross_entropy(logits_NK.double(), labels_N)), rel=1e-6)
        assert error == int((logits_NK.argmax(1) != labels_N).sum()) / 100


def test_a_fine_tuned_score_is_that_of_a_supernet_with_the_weights_of_the_fine_tuned_path(
    make: Make, supernet: Supernet, digits: Split
) -> None:
    evaluator = make("fine-tuned", batch_norm="batch")
    for architecture in ARCHITECTURES:
        canonical = SPACE.canonicalise(architecture)
        moved = build_supernet(small_config(), digits.dataset, seed=0)
        weights = fine_tuned(supernet, canonical, evaluator.images.fine_tuning, 0.01)
        moved.load_state_dict({**supernet.state_dict(), **weights})
        expected = make("batch", network=moved).evaluate_one(architecture)
        found = evaluator.evaluate_one(architecture)
        assert found.objectives == pytest.approx(expected.objectives, rel=1e-6)
        assert found != make("batch").evaluate_one(architecture)


def test_a_fitted_score_does_not_depend_on_the_shared_classifier(make: Make, supernet: Supernet, digits: Split) -> None:
    other = build_supernet(small_config(), digits.dataset, seed=0)
    other.load_state_dict(supernet.state_dict())
    with torch.no_grad():
        for parameter in other.classifiers[0].parameters():
            parameter.mul_(-3).add_(1)
    assert score_all(make("fitted", network=other), ARCHITECTURES) == score_all(make("fitted"), ARCHITECTURES)
    assert score_all(make("batch", network=other), ARCHITECTURES) != score_all(make("batch"), ARCHITECTURES)


def test_a_fitted_classifier_beats_the_shared_one_of_a_barely_trained_supernet(make: Make) -> None:
    shared, fitted = (score_all(make(mode), ARCHITECTURES) for mode in ("recalibrated", "fitted"))
    losses = [[found[one].objectives[0] for one in ARCHITECTURES] for found in (shared, fitted)]
    assert sum(losses[1]) < 0.9 * sum(losses[0]), losses


def test_fine_tuning_sees_no_validation_images(make: Make, digits: Split) -> None:
    dataset = digits.dataset
    images_NCHW = dataset.train_images_NCHW.clone()
    images_NCHW[digits.validation_rows_N] = 255 - images_NCHW[digits.validation_rows_N]
    other = Split(replace(dataset, train_images_NCHW=images_NCHW), digits.train_rows_N, digits.validation_rows_N)
    assert [len(labels_N) for _, labels_N in make("fine-tuned").images.fine_tuning] == [16, 16]
    for mine, its in zip(
        make("fine-tuned").images.fine_tuning, make("fine-tuned", of=other).images.fine_tuning, strict=True
    ):
        assert torch.equal(mine[0], its[0]) and torch.equal(mine[1], its[1])


@MODES
def test_validation_labels_have_a_say_and_test_images_have_none(make: Make, digits: Split, mode: str) -> None:
    dataset = digits.dataset
    expected = score_all(make(mode), ARCHITECTURES)

    def scores(**changes: Any) -> dict[Architecture, Evaluation]:
        other = Split(replace(dataset, **changes), digits.train_rows_N, digits.validation_rows_N)
        return score_all(make(mode, of=other), ARCHITECTURES)

    test: dict[str, Any] = {
        "test_images_NCHW": 255 - dataset.test_images_NCHW,
        "test_labels_N": (dataset.test_labels_N + 1) % dataset.classes,
    }
    assert scores(**test) == expected
    learns = mode not in ("batch", "recalibrated")
    for rows_N, matters in ((digits.train_rows_N, learns), (digits.validation_rows_N, True)):
        labels_N = dataset.train_labels_N.clone()
        labels_N[rows_N] = (labels_N[rows_N] + 1) % dataset.classes
        assert (scores(train_labels_N=labels_N) != expected) == matters


def test_the_seed_draws_the_images(make: Make, digits: Split) -> None:
    assert score_all(make(seed=1), ARCHITECTURES) != score_all(make(seed=0), ARCHITECTURES)
    every = make(images=10_000, batch_size=10_000)
    assert [len(labels_N) for _, labels_N in every.images.scored] == [len(digits.validation_rows_N)]
    errors = [make(images=10_000, batch_size=10_000, seed=seed).evaluate_one(ARCHITECTURES[0]) for seed in (0, 1)]
    assert errors[0].objectives[0] == pytest.approx(errors[1].objectives[0], rel=1e-4)


@MODES
def test_weights_that_are_no_numbers_fail_the_paths_through_them(
    make: Make, supernet: Supernet, digits: Split, mode: str
) -> None:
    broken = build_supernet(small_config(), digits.dataset, seed=0)
    broken.load_state_dict(supernet.state_dict())
    edge = next(choice for choice in broken.choices() if choice.block == 5)
    with torch.no_grad():
        for parameter in edge.options[3].parameters():
            parameter.fill_(math.nan)
    through, beside = (3, 3, 3, 3, 3, 3), (3, 3, 3, 3, 3, 2)
    assert SPACE.canonicalise(through)[5] == 3 != SPACE.canonicalise(beside)[5]
    evaluator = make(mode, network=broken)
    assert evaluator.evaluate_one(through) == Evaluation(through, (), "the loss is nan")
    assert evaluator.evaluate_one(beside) == make(mode).evaluate_one(beside)


def test_an_exception_is_the_candidates_failure(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = score_all(make(), ARCHITECTURES)
    evaluator = make()
    bad = dict(zip(ARCHITECTURES, (RuntimeError("out of memory\nmore"), KeyError("x"), AssertionError()), strict=False))
    real = evaluator.score

    def score(architecture: Architecture) -> tuple[float, float]:
        for asked, fault in bad.items():
            if SPACE.canonicalise(asked) == architecture:
                raise fault
        return real(architecture)

    monkeypatch.setattr(evaluator, "score", score)
    found = score_all(evaluator, ARCHITECTURES)
    reasons = [found[one].failure for one in bad]
    assert reasons == ["RuntimeError: out of memory", "KeyError: 'x'", "AssertionError: "]
    assert {one: found[one] for one in ARCHITECTURES if one not in bad} == {
        one: expected[one] for one in ARCHITECTURES if one not in bad
    }


@pytest.mark.parametrize("of", ["score", "cost"])
def test_a_fault_of_the_device_is_not_the_candidates_but_want_of_memory_is(
    make: Make, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    evaluator = make()

    def let_it_raise(fault: Exception) -> None:
        def raises(architecture: Architecture) -> tuple[float, float]:
            raise fault

        monkeypatch.setattr(*((evaluator, "score") if of == "score" else (evaluator.costs, "of")), raises)

    kinds = [torch.AcceleratorError] if hasattr(torch, "AcceleratorError") else []  # older torch has none
    for fault in [RuntimeError("CUDA error: an illegal access"), *(kind("an illegal access") for kind in kinds)]:
        let_it_raise(fault)
        with pytest.raises(RuntimeError, match="an illegal access"):
            evaluator.evaluate_one(ARCHITECTURES[0])
    let_it_raise(torch.OutOfMemoryError("CUDA out of memory\nmore"))
    assert evaluator.evaluate_one(ARCHITECTURES[0]).failure == "OutOfMemoryError: CUDA out of memory"


def test_costs_are_those_of_the_canonical_network(make: Make, supernet: Supernet, digits: Split) -> None:
    shape = digits.dataset.image_shape_CHW
    counts = [cost(supernet, shape) for cost in (parameters.parameters, macs.macs)]
    for architecture, found in score_all(make(costs=["parameters", "macs"]), ARCHITECTURES).items():
        assert found.objectives[2:] == tuple(count(SPACE.canonicalise(architecture)) for count in counts)


def test_a_limit_rejects_before_the_network_is_scored(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {one: found.objectives[2] for one, found in score_all(make(), ARCHITECTURES).items()}
    limit = sorted(costs.values())[4]  # what costs as much as the limit keeps it
    evaluator = make(limits={"parameters": limit})
    scored: list[Architecture] = []
    real = evaluator.score
    monkeypatch.setattr(evaluator, "score", lambda one: scored.append(one) or real(one))  # type: ignore[func-returns-value]
    for architecture, found in score_all(evaluator, ARCHITECTURES).items():
        if costs[architecture] <= limit:
            assert found.objectives
        else:
            assert found.failure == f"constraint: parameters {costs[architecture]:g} > {limit:g}"
            assert SPACE.canonicalise(architecture) not in scored
    assert 0 < len(scored) < len(ARCHITECTURES)


def test_a_cost_that_is_known_is_not_measured_again(make: Make) -> None:
    evaluator = make()
    canonical = SPACE.canonicalise(ARCHITECTURES[0])
    evaluator.costs.known[canonical] = (1.0,)
    assert evaluator.evaluate_one(ARCHITECTURES[0]).objectives[2:] == (1.0,)


def isomorphic(count: int) -> list[tuple[Architecture, Architecture]]:
    """Pairs of different keys of one network."""
    rng = seeds.generator(0, "isomorphic")
    pairs: list[tuple[Architecture, Architecture]] = []
    first: dict[Architecture, Architecture] = {}
    while len(pairs) < count:
        key = SPACE.sample(rng)
        twin = first.setdefault(SPACE.canonicalise(key), key)
        if twin != key:
            pairs.append((twin, key))
    return pairs


def test_candidates_are_fine_tuned_by_fast_depthwise_convolutions(make: Make) -> None:
    settings = {"in_channels": 1, "classes": 10, "resolution": 8, "channels": 4, "head_channels": 8}
    network = seeded(nas_bench_macro.supernet, 0, **settings)
    make("fine-tuned", network=network)
    assert any(isinstance(module, DepthwiseConv2d) for module in network.modules())


@pytest.mark.parametrize("scored_on", ["validation", "train"])
def test_the_images_of_the_named_split_are_scored(make: Make, digits: Split, scored_on: str) -> None:
    mean_C, std_C = digits.mean_std_C
    images_NCHW = {"validation": digits.validation_images_NCHW, "train": digits.train_images_NCHW}[scored_on]
    theirs = {one.numpy().round(4).tobytes() for one in (images_NCHW - mean_C[:, None, None]) / std_C[:, None, None]}
    evaluator = make(scored_on=scored_on)
    assert sum(len(batch) for batch, _ in evaluator.images.scored) == 100
    assert {one.numpy().round(4).tobytes() for batch, _ in evaluator.images.scored for one in batch} <= theirs


class WithoutLinear(Supernet):
    """Logits are means over a convolution's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 10, 3)

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        del architecture
        return self.convolution(images_NCHW).mean((2, 3))  # type: ignore[no-any-return]


def test_a_network_without_a_classifier_of_its_own_is_scored_by_what_it_gives(make: Make) -> None:
    assert make(network=WithoutLinear()).score(ARCHITECTURES[0])[1] <= 1
    with pytest.raises(UserError, match=r"expected an nn\.Linear"):
        make("fitted", network=WithoutLinear())
