"""A limit that no architecture keeps, and a network that does not run, are told before anything is trained."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raynas.config import Config, check
from raynas.costs.macs import macs
from raynas.costs.parameters import parameters
from raynas.data import load
from raynas.errors import UserError
from raynas.feasibility import check_constraints
from raynas.plan import build_supernet, load_space

DIGITS = load("digits")


def config(space: str = "nas_bench_201", **sections: Any) -> Config:
    settings = {"channels": 4, "cells_per_stage": 1} if space == "nas_bench_201" else {}
    return check({"space": {"name": space, "settings": settings}, **sections})


def feasible(config: Config) -> None:
    check_constraints(config, load_space(config.space), DIGITS)


@pytest.mark.parametrize("cost", ["parameters", "macs"])
def test_the_least_cost_is_the_line_between_kept_and_broken_limits(cost: str) -> None:
    plain = config()
    predict = {"parameters": parameters, "macs": macs}[cost](build_supernet(plain, DIGITS, seed=0), (1, 8, 8))
    space = load_space(plain.space)
    least = min(predict(one) for one in itertools.product(*(range(len(block.choices)) for block in space.blocks)))
    feasible(config(constraints={cost: least}))
    with pytest.raises(
        UserError, match=f"constraints.{cost} = .* leaves no architecture.*with {cost} {least:g}; raise"
    ):
        feasible(config(constraints={cost: least - 1}))


OWN = """
import torch
from torch import nn
from raynas.space import ChoiceBlock, SearchSpace
from raynas.supernet import Choice, Supernet

SPACE = SearchSpace("mine", (ChoiceBlock("first", ("wide", "slow")), ChoiceBlock("second", ("wide", "slow"))))


class Wide(nn.Module):  # many parameters, few MACs
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1000, 1, 8, 8))

    def forward(self, x):
        return x + self.shift.sum(0)


class Net(Supernet):
    def __init__(self, classes):
        super().__init__()
        self.first = Choice(0, [Wide(), nn.Conv2d(1, 1, 7, padding=3)])
        self.second = Choice(1, [Wide(), nn.Conv2d(1, 1, 7, padding=3)])
        self.head = nn.Linear(64, classes)

    def forward(self, images_NCHW, architecture):
        return self.head(self.second(self.first(images_NCHW, architecture), architecture).flatten(1))


def supernet(*, in_channels, classes, resolution):
    return Net(classes)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A space whose choices trade parameters for MACs: 64,000 of the ones, or 3,136 of the others, at each block."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_space.py").write_text(OWN)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in ("my_space", "my_cost", "my_proxy", "my_predictor"):
        sys.modules.pop(name, None)


def test_limits_that_only_together_leave_nothing_are_told_together(own: Path) -> None:
    tight = {"parameters": 40_000.0, "macs": 2_000.0}
    for name, limit in tight.items():
        feasible(config("my_space", constraints={name: limit}))
    with pytest.raises(
        UserError, match=r"constraints\.parameters = .* and constraints\.macs = .* leave no architecture"
    ):
        feasible(config("my_space", constraints=tight))


@pytest.mark.parametrize("architecture", [(0, 0), (0, 1), (1, 1)])
def test_limits_that_one_architecture_just_keeps_are_not_refused(architecture: tuple[int, int], own: Path) -> None:
    network = build_supernet(config("my_space"), DIGITS, seed=0)
    limits = {"parameters": parameters(network, (1, 8, 8)), "macs": macs(network, (1, 8, 8))}
    feasible(config("my_space", constraints={name: cost(architecture) for name, cost in limits.items()}))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return float('nan')", "by my_proxy: expected a finite number, but got nan; mend it, or leave it out"),
        ("return network", r"by my_proxy: expected a finite number, but got Subnet\("),
        ("return 1 / 0", r"my_proxy\.py:2 with ZeroDivisionError: division by zero; mend it"),
    ],
)
def test_a_proxy_that_gives_no_score_is_told_before_anything_is_trained(body: str, told: str, own: Path) -> None:
    (own / "my_proxy.py").write_text(f"def my_proxy(network, images_NCHW, labels_N, *, rng):\n    {body}\n")
    with pytest.raises(UserError, match=told):
        feasible(config(selector={"proxies": ["my_proxy"]}))
    feasible(config(selector={"proxies": ["zico", "complexity"]}))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return asked_AF[:, 0] * float('nan')", "by my_predictor: expected finite numbers, but got"),
        ("return asked_AF", "by my_predictor failed: shape mismatch"),
        ("return 1 / 0", r"my_predictor\.py:2 with ZeroDivisionError: division by zero; mend it"),
    ],
)
def test_a_predictor_that_predicts_nothing_is_told_before_anything_is_trained(body: str, told: str, own: Path) -> None:
    (own / "my_predictor.py").write_text(f"def my_predictor(known_NF, ranks_N, asked_AF, *, seed):\n    {body}\n")
    with pytest.raises(UserError, match=told):
        feasible(config(selector={"predictors": ["my_predictor"]}))
    feasible(config(selector={"predictors": ["gradient_boosting"]}))


def test_a_latency_is_not_known_before_it_is_measured() -> None:
    costs = {"costs": ["macs", "latency_ms"]}
    feasible(config(evaluation=costs, constraints={"latency_ms": 1e-9}))


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("nn.Linear(64, classes)", "nn.Linear(63, classes)", r"my_space\.py:\d+ with RuntimeError: .*shapes"),
        ("nn.Linear(64, classes)", "nn.Linear(64, 3)", r"expected logits of shape \(2, 10\), but got {\(2, 3\)}"),
        (
            "return self.head(",
            "self.head(",
            r"running 0-0 of my_space.* failed with AttributeError: 'NoneType' .*mend it",
        ),
        (", architecture):", "):", r"running 0-0 of my_space on images of .* failed with TypeError: .*mend it"),
        # only the last choice of the second block is at fault
        (
            "self.second = Choice(1, [Wide(), nn.Conv2d(1, 1, 7, padding=3)])",
            "self.second = Choice(1, [Wide(), nn.Conv2d(1, 1, 7)])",
            r"running 1-1 of my_space on images of \(1, 8, 8\)",
        ),
    ],
)
def test_a_network_that_does_not_run_is_told_with_its_line(was: str, now: str, told: str, own: Path) -> None:
    feasible(config("my_space"))
    sys.modules.pop("my_space")
    assert was in OWN
    (own / "my_space.py").write_text(OWN.replace(was, now) + "# other\n")
    with pytest.raises(UserError, match=told):
        feasible(config("my_space"))


def test_a_cost_of_the_users_own_is_tried(own: Path) -> None:
    (own / "my_cost.py").write_text("def my_cost(supernet, shape):\n    return lambda architecture: 1 / 0\n")
    with pytest.raises(UserError, match=r"evaluation\.costs: my_cost of .*my_cost\.py:2 with ZeroDivisionError"):
        feasible(config("my_space", evaluation={"costs": ["macs", "my_cost"]}))
    sys.modules.pop("my_cost")
    (own / "my_cost.py").write_text("def my_cost(supernet, shape):\n    return lambda: 1.0  # takes no architecture\n")
    for space in ("my_space", "nas_bench_201"):
        with pytest.raises(UserError, match=r"evaluation\.costs: my_cost of .* failed with TypeError: .*; mend it"):
            feasible(config(space, evaluation={"costs": ["macs", "my_cost"]}))


@pytest.mark.parametrize(
    ("rule", "space", "told"),
    [
        ("ordered_dropout", "nas_bench_201", "expects a space with elastic layers, but nas_bench_201 has none"),
        ("importance", "nats_size", "expects choices with weights of their own, but those of nats_size share"),
    ],
)
def test_a_rule_that_can_do_nothing_with_the_network_is_told(rule: str, space: str, told: str) -> None:
    members = [{"method": "random_search", "training_rule": rule}]
    with pytest.raises(UserError, match=f"{told}.*; choose"):
        feasible(config(space, members=members))


@pytest.mark.parametrize(
    ("head", "outputs", "told"),
    [
        ("nn.Conv1d(64, classes, 1)", "[..., None]).flatten(1)", "expected an nn.Linear as the classifier of Net"),
        ("nn.Linear(1, classes)", "[..., None]).mean(1)", '^evaluation.head = "fitted": .*features.*shapes'),
    ],
)
def test_a_network_whose_classifier_cannot_be_fitted_is_told(head: str, outputs: str, told: str, own: Path) -> None:
    (own / "my_space.py").write_text(
        OWN.replace("nn.Linear(64, classes)", head).replace(".flatten(1))", f".flatten(1){outputs}")
    )
    feasible(config("my_space"))
    with pytest.raises(UserError, match=told):
        feasible(config("my_space", evaluation={"head": "fitted"}))


def test_settings_of_the_trained_networks_are_named_as_they_stand_in_the_file() -> None:
    with pytest.raises(UserError, match=r"^unknown setting 'retraining\.space_settings\.cels'"):
        feasible(config(retraining={"space_settings": {"cels": 3}}))
