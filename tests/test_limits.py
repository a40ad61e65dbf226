"""Limits in every method: what rules learn of them, and that no method's best breaks one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raynas import seeds
from raynas.config import check
from raynas.costs.parameters import parameters
from raynas.data import load, split
from raynas.limits import Limits
from raynas.members import load_member, members
from raynas.plan import build_rule, build_strategy, build_supernet, load_method, load_space, make_plan
from raynas.scoring_images import draw_images
from raynas.search import search
from raynas.space import SearchSpace
from raynas.supernet_evaluator import Costs, SupernetEvaluator
from raynas.trainer import Trainer
from raynas.training_rules.darts_pt import DartsPt
from search_spaces.mobilenet_chain import SMALL as CHAIN
from search_spaces.nas_bench_201 import SPACE
from search_spaces.pnas_cell import SMALL as GROWING
from tests.helpers import SMALL, config_for, make_trainer, rule_plan, small_config

LEARNING = {
    "darts1": {"alpha_learning_rate": 0.1},
    "darts2": {"alpha_learning_rate": 0.1},
    "darts_pt": {"alpha_learning_rate": 0.1},
    "snas": {"alpha_learning_rate": 0.1},
    "parsec": {"samples": 4, "distribution_learning_rate": 0.1},
    "manas": {"eta": 0.3},
    "manas_ls": {"stack": 50},
}
"""Rules that learn a distribution, quickly."""

ELSEWHERE: dict[str, dict[str, Any]] = {
    "scarlet": {"name": "mobilenet_chain", "settings": CHAIN},
    "pnas": {"name": "pnas_cell", "settings": {**GROWING, "blocks": 2}},
    "flash": {"name": "width_depth", "settings": {"channels": 4, "counts": [2], "depths": [1, 2], "links": [0, 1]}},
}
"""Spaces for methods that need another."""


def uniform(space: SearchSpace) -> list[torch.Tensor]:
    return [torch.from_numpy(p).requires_grad_() for p in space.uniform_probabilities()]


def test_the_expected_excess_is_the_mean_cost_above_the_limit_of_what_is_drawn() -> None:
    predict = parameters(build_supernet(small_config(), load("digits"), seed=0), (1, 8, 8))
    rng = seeds.generator(0, "weights")
    weights = [rng.dirichlet(np.ones(5)) for _ in SPACE.blocks]
    drawn = [predict(tuple(int(rng.choice(5, p=p)) for p in weights)) for _ in range(3000)]
    limit = 0.8 * float(np.mean(drawn))
    found = Limits(SPACE, {"parameters": predict}, {"parameters": limit}).excess([torch.from_numpy(p) for p in weights])
    error = np.std(drawn) / np.sqrt(len(drawn)) / limit
    assert float(found) == pytest.approx(np.mean(drawn) / limit - 1, abs=4 * error)


def test_several_limits_add_up_and_those_that_are_kept_have_no_say() -> None:
    costs = {"ones": lambda a: 10.0 + sum(c == 1 for c in a), "threes": lambda a: 10.0 + sum(c == 3 for c in a)}
    weights = uniform(SPACE)
    both = Limits(SPACE, costs, {"ones": 8.0, "threes": 20.0})
    excess = both.excess(weights)
    assert float(excess.detach()) == pytest.approx((10 + 6 / 5) / 8 - 1)
    excess.backward()  # type: ignore[no-untyped-call]
    for one in weights:
        assert one.grad is not None and one.grad.tolist() == [0, 1 / 8, 0, 0, 0]
    assert float(Limits(SPACE, costs, {"ones": 12.0, "threes": 12.0}).excess(weights).detach()) == 0


def trained(rule: str, limits: dict[str, float], **settings: Any) -> Trainer:
    steps = 100 if "manas" in rule else 8  # a round tells of one path alone
    training = {"steps": steps + 1, "batch_size": 8}
    trainer = make_trainer(
        rule, config_for(rule, constraints=limits, training=training), **{**LEARNING[rule], **settings}
    )
    for _ in range(steps):
        trainer.train_step()
    return trainer


@pytest.mark.parametrize("rule", LEARNING)
def test_what_a_rule_learns_costs_less_under_a_limit(rule: str) -> None:
    """All choices begin alike, and so above a limit of three quarters of what they cost on average."""
    predict = parameters(make_trainer(rule).supernet, (1, 8, 8))
    plain = Limits(SPACE, {"parameters": predict}, {"parameters": 1.0})
    mean = 1 + float(plain.excess(uniform(SPACE)).detach())
    limits = {"parameters": 0.75 * mean}
    free, kept = (trained(rule, limits, penalty=penalty).rule.probabilities() for penalty in (0.0, 5.0))
    costs = [float(plain.excess([torch.from_numpy(p) for p in learnt])) for learnt in (free, kept)]
    assert costs[1] < costs[0]
    point = make_trainer(rule, small_config(constraints=limits), **LEARNING[rule]).advance()
    assert point["excess"] == pytest.approx(1 / 3, abs=0.1)
    assert "excess" not in make_trainer(rule, **LEARNING[rule]).advance()


@pytest.mark.parametrize("rule", sorted(LEARNING.keys() - {"manas"}))  # manas keeps room for the penalty within [0, 1]
def test_a_limit_that_is_kept_changes_nothing(rule: str) -> None:
    free, kept = (trained(rule, limits) for limits in ({}, {"parameters": 1e9}))
    assert all(torch.equal(a, b) for a, b in zip(free.weights().values(), kept.weights().values(), strict=True))


def test_a_limit_has_no_say_any_more_when_selection_has_fixed_all_blocks() -> None:
    config = config_for("darts_pt", constraints={"parameters": 1.0}, training={"steps": 12, "batch_size": 8})
    trainer = make_trainer("darts_pt", config)
    figures = [trainer.train_step()[1] for _ in range(12)]
    rule = trainer.rule
    assert isinstance(rule, DartsPt)
    penalties = rule.penalties(rule.alpha, rule.mixture(torch.device("cpu")))
    assert all(figure["excess"] > 0 for figure in figures) and not any(one.any() for one in penalties)


def test_a_supernet_is_trained_anew_for_another_limit_only_if_its_rule_learns_to_keep_it() -> None:
    def identity(rule: str, limits: dict[str, float], **settings: Any) -> str:
        return rule_plan(rule, small_config(constraints=limits), **settings)[1].id

    small, large, latency = {"macs": 1e5}, {"macs": 2e5}, {"latency_ms": 1.0}
    assert identity("fair", small) == identity("fair", large) == identity("fair", {})
    assert len({identity("snas", limits) for limits in (small, large, {})}) == 3
    assert identity("snas", small, penalty=0.0) == identity("snas", large, penalty=0.0)
    costs = {"costs": ["parameters", "macs", "latency_ms"]}
    measured = rule_plan("snas", small_config(constraints=latency, evaluation=costs))[1].id
    assert measured == rule_plan("snas", small_config(evaluation=costs))[1].id


def test_a_negative_penalty_is_refused() -> None:
    with pytest.raises(Exception, match="penalty >= 0"):
        make_plan(check({"members": [{"method": "snas", "rule_settings": {"penalty": -1.0}}]}))


@pytest.mark.parametrize("method", members("raynas.methods"))
def test_no_methods_best_breaks_a_limit_that_about_half_of_the_networks_break(method: str) -> None:
    space = {**SMALL["space"], **ELSEWHERE.get(method, {})}
    space["settings"] = {**space["settings"], **load_method(method).space_settings}
    base = small_config(space=space, members=[{"method": method}])
    dataset = load("digits")
    supernet = build_supernet(base, dataset, seed=0)
    whole = load_space(base.space)
    predict = parameters(supernet, dataset.image_shape_CHW)
    rng = seeds.generator(0, "keys")
    limit = float(np.median([predict(whole.canonicalise(whole.sample(rng))) for _ in range(60)]))
    config = small_config(space=space, members=[{"method": method}], constraints={"parameters": limit})
    plan = make_plan(config)
    member, rule = plan.members[0], build_rule(plan.supernets[0], whole)
    costs = Costs(config.evaluation.costs, config.constraints, supernet, dataset.image_shape_CHW)
    evaluator = SupernetEvaluator(
        supernet=supernet,
        space=whole,
        images=draw_images(split(dataset, config.data.validation_fraction, config.seed), config, torch.device("cpu")),
        settings=config.evaluation,
        costs=costs,
        device=torch.device("cpu"),
    )
    derived = [load_member("raynas.derivations", member.derivation)(rule.probabilities())] if member.derivation else []
    strategy = build_strategy(member, whole, rule.probabilities())
    found = [
        one
        for batch in search(strategy, evaluator, member.objectives, evaluations=12, batch_size=4, first=derived)
        for one in batch
    ]
    scored = [one for one in found if one.objectives]
    best = min(scored, key=lambda one: one.objectives)
    assert predict(whole.canonicalise(best.architecture)) <= limit
    assert all(one.failure and one.failure.startswith("constraint: ") for one in found if not one.objectives)
