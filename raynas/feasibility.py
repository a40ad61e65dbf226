"""Whether a space's network runs at all, and whether any architecture keeps the limits, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from raynas import seeds
from raynas.architecture import Architecture
from raynas.config import Config
from raynas.data import Dataset
from raynas.errors import UserError, raise_mistake_of_user, reason
from raynas.evaluation import in_words
from raynas.fitted_head import features
from raynas.members import load_member, members
from raynas.plan import build_rule, build_supernet, make_plan, predicted_limits
from raynas.prediction import predictions
from raynas.space import SearchSpace
from raynas.supernet import Supernet

STARTS = 8
PREDICTED = 12
WEIGHTINGS = 32


def check_constraints(config: Config, space: SearchSpace, dataset: Dataset) -> None:
    """Raises UserError for a network, proxy or predictor that does not run, and for limits that no architecture keeps.

    No architecture keeps all limits if, for any weights w of sum 1, the least of sum_i w_i cost_i / limit_i is above 1.
    The least is found by a descent over the choices, which is exact for costs that are sums over the blocks.
    """
    supernet = build_supernet(config, dataset, seed=config.seed)
    _run_once(config, space, supernet, dataset, max(len(block.choices) for block in space.blocks))
    _check_use(config, space, supernet, dataset)
    stand_alone = supernet
    if config.retraining.space_settings:
        stand_alone = build_supernet(config, dataset, seed=config.seed, stand_alone=True)
        _run_once(config, space, stand_alone, dataset, 1)
    _check_proxies(config, space, stand_alone, dataset)
    _check_predictors(config, space)
    limits = predicted_limits(config)
    if not limits:
        return
    rng = seeds.generator(config.seed, "feasibility")
    predictors = {name: load_member("raynas.costs", name)(supernet, dataset.image_shape_CHW) for name in limits}
    for weights in [*np.eye(len(limits)), *rng.dirichlet(np.ones(len(limits)), WEIGHTINGS)]:

        def load(architecture: Architecture, weights: np.ndarray = weights) -> float:
            shares = [predictors[name](architecture) / limit for name, limit in limits.items()]
            return float(weights @ shares)

        nearest = min((_descend(load, space, space.sample(rng)) for _ in range(STARTS)), key=load)
        if load(nearest) > 1 + 1e-9:
            which = [name for name, weight in zip(limits, weights, strict=True) if weight]
            asked = " and ".join(f"constraints.{name} = {limits[name]:g}" for name in which)
            least = " and ".join(f"{name} {predictors[name](nearest):g}" for name in which)
            raise UserError(
                f"{asked} {'leave' if len(which) > 1 else 'leaves'} no architecture of {space.name}: the nearest is "
                f"{space.print(nearest)} with {least}; raise the limit, or choose smaller space.settings."
            )


def _run_once(config: Config, space: SearchSpace, supernet: Supernet, dataset: Dataset, count: int) -> None:
    """Two images through the first `count` choices of each block, in supernet and subnets, and the user's own costs."""
    images_NCHW = dataset.train_images_NCHW[:2].float() / 255
    expected = (len(images_NCHW), dataset.classes)
    own_costs = {
        name: load_member("raynas.costs", name)(supernet, dataset.image_shape_CHW)
        for name in config.evaluation.costs
        if name not in members("raynas.costs")
    }
    for number in range(count):
        architecture = tuple(number % len(block.choices) for block in space.blocks)
        what = f"running {space.print(architecture)} of {config.space.name} on images of {dataset.image_shape_CHW}"
        try:
            with torch.no_grad():
                logits = supernet(images_NCHW, architecture), supernet.subnet(architecture)(images_NCHW)
            shapes = {tuple(logits_NK.shape) for logits_NK in logits}
        except Exception as fault:
            raise_mistake_of_user(what, fault)
            if config.space.name.startswith("search_spaces."):
                raise
            told = in_words(fault)  # where what it returned, or lacks, was used
            raise UserError(f"{what} failed with {told}; see `raynas.supernet.Supernet`, and mend it.") from fault
        for name, cost in own_costs.items():
            what = f"evaluation.costs: {name} of {space.print(architecture)}"
            try:
                cost(architecture)
            except Exception as fault:
                raise_mistake_of_user(what, fault)
                raise UserError(f"{what} failed with {in_words(fault)}; mend it.") from fault
        if shapes != {expected}:
            raise UserError(f"{what}: expected logits of shape {expected}, but got {shapes - {expected}}; mend it.")


def _check_use(config: Config, space: SearchSpace, supernet: Supernet, dataset: Dataset) -> None:
    """Raises UserError for a network that a training rule, or the fitted classifier, can do nothing with."""
    for one in make_plan(config).supernets:
        if check := getattr(build_rule(one, space), "check", None):
            check(supernet)
    if config.evaluation.head == "fitted":
        images_NCHW, first = dataset.train_images_NCHW[:2].float() / 255, (0,) * len(space.blocks)
        try:
            with torch.no_grad():
                features(lambda images: supernet(images, first), images_NCHW, supernet.classifiers)
        except ValueError as mistake:
            raise UserError(f'evaluation.head = "fitted": {mistake}') from None


def _check_proxies(config: Config, space: SearchSpace, supernet: Supernet, dataset: Dataset) -> None:
    """Raises UserError for a proxy that gives no score on four images, or has a fault of the user's own."""
    images_NCHW, labels_N = dataset.train_images_NCHW[:4].float() / 255, dataset.train_labels_N[:4]
    network = supernet.subnet((0,) * len(space.blocks)).finished()
    for name in config.selector.proxies:
        what = f"selector.proxies: scoring a network of {space.name} by {name}"
        try:
            score = load_member("raynas.proxies", name)(network, images_NCHW, labels_N, rng=torch.Generator())
        except Exception as fault:
            raise_mistake_of_user(what, fault)
            raise UserError(f"{what} failed: {reason(fault)}; leave it out.") from fault
        if not isinstance(score, float) or not math.isfinite(score):
            raise UserError(f"{what}: expected a finite number, but got {score!r}; mend it, or leave it out.")


def _check_predictors(config: Config, space: SearchSpace) -> None:
    """Raises UserError for a predictor that gives no values for some architectures, or has a fault of the user's."""
    rng = seeds.generator(config.seed, "predictors")
    sample = [space.sample(rng) for _ in range(PREDICTED)]
    measured = {space.canonicalise(one): float(score) for score, one in enumerate(sample)}
    for name in config.selector.predictors:
        what = f"selector.predictors: predicting architectures of {space.name} by {name}"
        predictor = load_member("raynas.predictors", name)
        try:
            values_A = predictions({name: predictor}, space, [measured], sample, seed=config.seed)[name]
        except Exception as fault:
            raise_mistake_of_user(what, fault)
            raise UserError(f"{what} failed: {reason(fault)}; leave it out.") from fault
        if len(measured) > PREDICTED // 2 and not np.isfinite(values_A).all():
            raise UserError(f"{what}: expected finite numbers, but got {values_A}; mend it, or leave it out.")


def _descend(load: Callable[[Architecture], float], space: SearchSpace, start: Architecture) -> Architecture:
    best = start
    for index, block in enumerate(space.blocks):
        variants = [(*best[:index], choice, *best[index + 1 :]) for choice in range(len(block.choices))]
        best = variants[int(np.argmin([load(one) for one in variants]))]
    return best
