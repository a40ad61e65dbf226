"""What several tests need: a small run on real digits, and trainers for it."""

from __future__ import annotations

from typing import Any

import torch

from raynas import device as devices
from raynas.config import Config, check
from raynas.data import Dataset, load, split
from raynas.plan import (
    MemberPlan,
    Plan,
    SupernetPlan,
    build_rule,
    build_supernet,
    load_space,
    make_plan,
    predicted_limits,
)
from raynas.short_training import ShortTrainingEvaluator
from raynas.trainer import Trainer

SMALL: dict[str, Any] = {
    "space": {"name": "nas_bench_201", "settings": {"channels": 4, "cells_per_stage": 1}},
    "training": {"steps": 12, "batch_size": 32, "checkpoint_every_s": 0.0},
    "evaluation": {"images": 64, "batch_size": 32, "workers": 1},
    "search": {"evaluations": 12, "batch_size": 4},
    "selector": {"leaders": 6, "finalists": 1},
    "retraining": {"epochs": 1, "calibration": 2},
    "members": [
        {"method": "random_search"},
        {
            "method": "regularized_evolution",
            "training_rule": "fair",
            "settings": {"population_size": 4, "tournament_size": 2},
        },
    ],
}


def small_config(**changes: Any) -> Config:
    """A run that takes seconds; `changes` replace whole sections' keys."""
    values = {key: dict(value) if isinstance(value, dict) else value for key, value in SMALL.items()}
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change} if isinstance(change, dict) else change
    return check(values)


def short_training(config: Config, dataset: Dataset, epochs: float) -> ShortTrainingEvaluator:
    """The ranker `short_<epochs>` of a run, in this process."""
    return ShortTrainingEvaluator(
        epochs=epochs,
        supernet=build_supernet(config, dataset, seed=config.seed, stand_alone=True),
        canonicalise=load_space(config.space).canonicalise,
        split=split(dataset, config.data.validation_fraction, config.seed),
        data=config.data,
        retraining=config.retraining,
        seed=config.seed,
        device=devices.prepare(1),
    )


def config_for(rule: str, **changes: Any) -> Config:
    """A small run that the rule can train: with elastic layers where it needs them, with few images to measure on."""
    needs: dict[str, Any] = {}
    if rule == "ordered_dropout":
        needs = {"space": {"name": "nats_size", "settings": {"width_multiple": 0.25}}}
    elif rule.endswith("_pt"):
        needs = {"data": {"validation_fraction": 0.05}}
    return small_config(**{**needs, **changes})


def rule_plan(rule: str, config: Config | None = None, **rule_settings: Any) -> tuple[Plan, SupernetPlan]:
    """A plan with one supernet, trained by `rule`."""
    base = config or config_for(rule)
    member = {"method": "random_search", "training_rule": rule, "rule_settings": rule_settings}
    plan = make_plan(check({**base.model_dump(exclude_unset=True), "members": [member]}))
    return plan, plan.supernets[0]


def make_trainer(
    rule: str, config: Config | None = None, group: Any = None, end: int | None = None, **rule_settings: Any
) -> Trainer:
    """A trainer of the small supernet on digits, on the CPU."""
    plan, supernet = rule_plan(rule, config, **rule_settings)
    torch.set_flush_denormal(True)
    dataset = load(plan.config.data.name, resolution=plan.config.data.resolution)
    return Trainer(
        supernet=build_supernet(plan.config, dataset, seed=supernet.seed),
        rule=build_rule(supernet, plan.space),
        split=split(dataset, plan.config.data.validation_fraction, plan.config.seed),
        training=supernet.training,
        data=plan.config.data,
        seed=supernet.seed,
        device=torch.device("cpu"),
        group=group,
        end=end,
        limits=predicted_limits(plan.config),
    )


__all__ = ["MemberPlan", "make_trainer", "rule_plan", "small_config"]
