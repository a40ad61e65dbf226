"""DARTS: methods.md 4.3 and test list item 4; what every rule must do is in test_training_rules.py."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from raynas import seeds
from raynas.config import Precision
from raynas.device import autocast
from raynas.replica_group import ReplicaGroup
from raynas.space import ChoiceBlock, SearchSpace
from raynas.supernet import Choices, Supernet
from raynas.trainer import Trainer
from raynas.training_rule import Batch
from raynas.training_rules import darts2
from raynas.training_rules.darts1 import Darts1
from raynas.training_rules.darts2 import Darts2
from search_spaces import darts_cell
from search_spaces.darts_cell import EDGES
from search_spaces.nas_bench_201 import CONV_3X3, NONE, POOL, SKIP, SPACE
from tests.helpers import make_trainer, small_config

ORDERS = ["darts1", "darts2"]
STRONG = {"alpha_learning_rate": 0.05, "alpha_weight_decay": 0.0}


# The paper's own example: L_train = w^2 - 2 a w + a^2, L_validation = a w - 2 a + 1


class Quadratic(Supernet):
    """One weight w, and an architecture parameter a: the log-odds of two choices."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(-2.0))

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        (weights,) = architecture
        assert isinstance(weights, Tensor)
        return torch.stack([weights[1].log() - weights[0].log(), self.w])


def quadratic_loss(logits: Tensor, labels: Tensor) -> Tensor:
    a, w = logits
    return (w - a).square() if labels.item() == 0 else a * w - 2 * a + 1


TRAIN, VALIDATION = (Batch(torch.zeros(1), torch.tensor(kind)) for kind in (0, 1))


def after_search(order: str, xi: float) -> tuple[float, float]:
    """(a, w) after 200 steps from (2, -2); the weight's own step is the one that is looked ahead."""
    space = SearchSpace("line", (ChoiceBlock("a", ("x", "y")),))
    rule: Any = {"darts1": Darts1, "darts2": Darts2}[order](space, seed=0, **STRONG)
    rule.alpha[0].data = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    network = Quadratic()
    optimizer = torch.optim.SGD(network.parameters(), lr=xi)
    if order == "darts2":
        rule.look_at(optimizer)
    for number in range(200):
        optimizer.zero_grad()
        rule.step(
            network,
            TRAIN,
            VALIDATION,
            loss=quadratic_loss,
            rng=seeds.generator(0, number),
            number=number,
            group=ReplicaGroup(),
        )
        optimizer.step()
    low, high = rule.alpha[0].tolist()
    return high - low, float(network.w.detach())


def test_the_papers_example_converges_to_its_solution_with_second_order_alone() -> None:
    assert after_search("darts2", xi=0.5) == pytest.approx((1, 1), abs=0.02)
    assert after_search("darts1", xi=0.5) == pytest.approx((2, 2), abs=0.02)


# The gradients


def step_of(trainer: Trainer) -> tuple[Batch, Batch]:
    """Both batches of the next step."""
    return trainer._batch("train", trainer.train), trainer._batch("validation", trainer.validation)


def own_gradients(trainer: Trainer, weights: dict[str, Tensor], batch: Batch, by: list[Tensor]) -> list[Tensor]:
    """Plain autograd of the mixture's loss, without the rule's own code."""
    mixture = [alpha.softmax(0).float() for alpha in trainer.rule.alpha]  # type: ignore[attr-defined]
    value = trainer._loss(functional_call(trainer.supernet, weights, (batch.images_NCHW, mixture)), batch.labels_N)
    found = torch.autograd.grad(value, by, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(by, found, strict=True)]


def test_first_order_moves_alpha_by_the_validation_loss_alone() -> None:
    trainer = make_trainer("darts1")
    rule = trainer.rule
    assert isinstance(rule, Darts1)
    train, validation = step_of(trainer)
    expected = own_gradients(trainer, dict(trainer.supernet.named_parameters()), validation, rule.alpha)
    found = rule.alpha_gradients(trainer.supernet, train, validation, trainer._loss, ReplicaGroup())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(parameter.grad is None for parameter in trainer.supernet.parameters())


def test_second_order_is_the_validation_gradient_through_the_optimisers_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autograd of L_val(w - xi * (mu * moment + grad L_train + decay * w)), second derivatives and all.

    At a smaller radius, in float64: of these 4 channels some have almost no variance, and 0.01 of a weight goes beyond
    the kinks of the loss.
    """
    monkeypatch.setattr(darts2, "RADIUS", 1e-5)
    trainer = make_trainer("darts2", small_config(training={"weight_decay": 0.05, "steps": 4}))
    trainer.train_step()  # so that there are moments
    trainer.supernet.double()
    for state in trainer.optimizer.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].double()
    rule, lr = trainer.rule, trainer.optimizer.param_groups[0]["lr"]
    assert isinstance(rule, Darts2) and lr == trainer.learning_rate(0)
    train, validation = (Batch(one.images_NCHW.double(), one.labels_N) for one in step_of(trainer))

    def exact_mixture() -> list[Tensor]:
        return [alpha.softmax(0) for alpha in rule.alpha]

    def loss_of(weights: dict[str, Tensor], batch: Batch) -> Tensor:
        logits = functional_call(trainer.supernet, weights, (batch.images_NCHW, exact_mixture()))
        return torch.nn.functional.cross_entropy(logits, batch.labels_N)

    own = dict(trainer.supernet.named_parameters())
    gradients = torch.autograd.grad(loss_of(own, train), list(own.values()), create_graph=True, allow_unused=True)
    ahead = {}
    for (name, weight), gradient in zip(own.items(), gradients, strict=True):
        assert gradient is not None
        moment = trainer.optimizer.state[weight]["momentum_buffer"]
        ahead[name] = weight - lr * (gradient + 0.9 * moment + 0.05 * weight)
    expected = torch.autograd.grad(loss_of(ahead, validation), rule.alpha)
    rule.mixture = lambda device: exact_mixture()  # type: ignore[method-assign]
    found = rule.alpha_gradients(trainer.supernet, train, validation, torch.nn.functional.cross_entropy, ReplicaGroup())
    first = Darts1.alpha_gradients(
        rule, trainer.supernet, train, validation, torch.nn.functional.cross_entropy, ReplicaGroup()
    )
    flat_found, flat_expected, flat_first = map(torch.cat, (found, expected, first))
    error = float((flat_found - flat_expected).norm() / flat_expected.norm())
    assert error < 1e-6 and float((flat_first - flat_expected).norm() / flat_expected.norm()) > 0.1


def test_the_second_order_is_computed_in_full_precision() -> None:
    found = []
    for precision in get_args(Precision)[1:]:
        trainer = make_trainer("darts2")
        rule = trainer.rule
        assert isinstance(rule, Darts2)
        with autocast(torch.device("cpu"), precision):
            gradients = rule.alpha_gradients(trainer.supernet, *step_of(trainer), trainer._loss, ReplicaGroup())
            assert trainer.supernet(step_of(trainer)[0].images_NCHW, rule.mixture(torch.device("cpu"))).dtype == (
                torch.bfloat16 if precision == "bfloat16" else torch.float32
            )
        found.append(torch.cat(gradients))
    assert torch.equal(*found)


@pytest.mark.parametrize("order", ORDERS)
def test_alphas_gradient_leaves_weights_and_moments_as_they_were_to_the_bit(order: str) -> None:
    trainer = make_trainer(order)
    trainer.train_step()
    rule = trainer.rule
    assert isinstance(rule, Darts1)
    trainer.optimizer.zero_grad(set_to_none=True)
    before = {name: value.clone() for name, value in trainer.supernet.state_dict().items()}
    moments = [state["momentum_buffer"].clone() for state in trainer.optimizer.state.values()]
    rule.alpha_gradients(trainer.supernet, *step_of(trainer), trainer._loss, ReplicaGroup())
    after = trainer.supernet.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    assert all(
        torch.equal(state["momentum_buffer"], moment)
        for state, moment in zip(trainer.optimizer.state.values(), moments, strict=True)
    )
    assert all(parameter.grad is None for parameter in trainer.supernet.parameters())


def test_weights_that_the_loss_does_not_reach_have_no_say() -> None:
    trainer = make_trainer("darts2")
    rule = trainer.rule
    assert isinstance(rule, Darts2)
    batches = step_of(trainer)
    found = rule.alpha_gradients(trainer.supernet, *batches, trainer._loss, ReplicaGroup())
    trainer.supernet.unreached = nn.Parameter(torch.full((3,), 1e3))
    again = rule.alpha_gradients(trainer.supernet, *batches, trainer._loss, ReplicaGroup())
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("order", ORDERS)
def test_the_weights_gradient_is_of_the_alpha_that_has_moved(order: str) -> None:
    trainer = make_trainer(order, **STRONG)
    rule = trainer.rule
    assert isinstance(rule, Darts1)
    before = [alpha.detach().clone() for alpha in rule.alpha]
    train, validation = step_of(trainer)
    result = rule.step(
        trainer.supernet,
        train,
        validation,
        loss=trainer._loss,
        rng=seeds.generator(0),
        number=0,
        group=ReplicaGroup(),
    )
    assert not any(torch.equal(a, b) for a, b in zip(before, rule.alpha, strict=True))
    own = dict(trainer.supernet.named_parameters())
    for weight, expected in zip(own.values(), own_gradients(trainer, own, train, list(own.values())), strict=True):
        torch.testing.assert_close(weight.grad, expected)
    mixture = [alpha.softmax(0).float() for alpha in rule.alpha]
    torch.testing.assert_close(result.loss, trainer._loss(trainer.supernet(train.images_NCHW, mixture), train.labels_N))


@pytest.mark.parametrize("order", ORDERS)
def test_validation_images_move_no_weight_but_through_alpha(order: str) -> None:
    """With an alpha that stands still the weights are the same whatever the validation labels are."""

    def weights_after(change: str | None) -> dict[str, Tensor]:
        trainer = make_trainer(order, alpha_learning_rate=0.0, alpha_weight_decay=0.0)
        if change:
            source = getattr(trainer, change)
            source.labels_N = source.labels_N.roll(7)
        trainer.train_step()
        return trainer.supernet.state_dict()  # type: ignore[no-any-return]

    plain, validation = weights_after(None), weights_after("validation")
    assert all(torch.equal(plain[name], validation[name]) for name in plain)
    assert not all(torch.equal(plain[name], value) for name, value in weights_after("train").items())


# What is derived, and the watch


def test_the_strongest_operation_but_none_is_derived_on_every_edge_of_nas_bench_201() -> None:
    weights = [np.array([0.6, 0.1, 0.05, 0.15, 0.1]) for _ in EDGES[:6]]
    weights[2] = np.array([0.1, 0.2, 0.1, 0.2, 0.4])
    assert SPACE.strongest(weights) == (CONV_3X3, CONV_3X3, POOL, CONV_3X3, CONV_3X3, CONV_3X3)
    assert NONE not in SPACE.strongest(SPACE.uniform_probabilities())


def test_two_edges_a_node_are_derived_in_the_darts_space() -> None:
    rng = seeds.generator(0, "weights")
    weights = [rng.dirichlet(np.ones(8)) for _ in darts_cell.SPACE.blocks]
    derived = darts_cell.SPACE.strongest(weights)
    for first in (0, len(EDGES)):
        for target in range(2, 6):
            strengths = {
                block: weights[block][1:].max() for block, (_, into) in enumerate(EDGES, first) if into == target
            }
            kept = sorted(strengths, key=strengths.__getitem__)[-2:]
            for block in strengths:
                assert derived[block] == (1 + int(weights[block][1:].argmax()) if block in kept else 0)


def test_where_no_edge_can_be_left_out_all_are_derived() -> None:
    space = darts_cell.space(variant="s2")
    weights = [np.array([0.4, 0.6]) if block % 2 else np.array([0.7, 0.3]) for block in range(28)]
    assert space.strongest(weights) == (0, 1) * 14


@pytest.mark.parametrize("order", ORDERS)
def test_the_watch_counts_skips_and_measures_entropy(order: str) -> None:
    trainer = make_trainer(order)
    for alpha in trainer.rule.alpha:  # type: ignore[attr-defined]
        alpha.data[SKIP] = 5.0
    trainer.rule.alpha[3].data[CONV_3X3] = 9.0  # type: ignore[attr-defined]
    point = trainer.advance()
    assert (point["derived_skips"], point["derived_operations"]) == (5, 6)
    pi = trainer.rule.probabilities()
    assert point["entropy"] == pytest.approx(-sum((p * np.log(p)).sum() for p in pi))


def test_a_rule_that_looks_ahead_sees_the_learning_rate_of_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer("darts2")
    plain, seen = Darts2.alpha_gradients, []

    def spied(rule: Darts2, *arguments: Any) -> list[Tensor]:
        seen.append(rule.optimizer.param_groups[0]["lr"])
        return plain(rule, *arguments)

    monkeypatch.setattr(Darts2, "alpha_gradients", spied)
    for _ in range(3):
        trainer.train_step()
    assert seen == [trainer.learning_rate(step) for step in range(3)] and len(set(seen)) == 3
