"""What a configuration asks for: which supernets are trained, and which member searches with which of them."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, create_model

from raynas import seeds
from raynas.config import (
    Config,
    MemberSettings,
    PartitionSettings,
    Settings,
    SpaceSettings,
    TrainingSettings,
    content_hash,
    validate,
)
from raynas.errors import UserError, closest, raise_mistake_of_user
from raynas.members import load_member, load_module, members
from raynas.method import Method
from raynas.partition import check_split, possible_parts
from raynas.space import SearchSpace
from raynas.strategy import knows_limits, learns

if TYPE_CHECKING:
    from raynas.data import Dataset
    from raynas.supernet import Supernet


MEASURED = "latency_ms"
"""The cost that is measured, not predicted."""


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How a space is split after a joint warm-up; the partitions are decided then, and written to `file`."""

    settings: PartitionSettings
    warm_up: str
    file: str


@dataclass(frozen=True, slots=True)
class SupernetPlan:
    """One supernet to train; its id is the hash of all that its files depend on.

    begin, end: the steps of the schedule that it is trained for.
    split, part: of which split it is which partition's, and so goes on from the weights of the split's warm-up.
    parts: the ids of its partitions' supernets: it has no weights of its own, and is trained when they are.
    """

    id: str
    label: str
    rule: str
    rule_settings: Mapping[str, Any]
    training: TrainingSettings
    seed: int
    begin: int
    end: int
    split: SplitPlan | None = None
    part: int | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """One member of the population: its strategy, what it minimises, and the supernet that scores for it.

    limits: the most that each objective may be, infinite where nothing is said.
    """

    name: str
    strategy: str
    settings: Mapping[str, Any]
    derivation: str | None
    objectives: tuple[str, ...]
    supernet: str
    seed: int
    limits: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration with every name resolved."""

    config: Config
    space: SearchSpace
    supernets: tuple[SupernetPlan, ...]
    members: tuple[MemberPlan, ...]

    @property
    def rankers(self) -> tuple[SupernetPlan, ...]:
        """The supernets that score for members: not those that others are made of."""
        scoring = {member.supernet for member in self.members}
        return tuple(one for one in self.supernets if one.id in scoring)

    def supernet(self, supernet_id: str) -> SupernetPlan:
        """The supernet of this id."""
        return next(supernet for supernet in self.supernets if supernet.id == supernet_id)


def state_file(supernet: str) -> str:
    """The file that says how a supernet's training ended."""
    return f"supernets/{supernet}/state.json"


def make_plan(config: Config) -> Plan:
    """Resolve every name of a configuration; raises UserError for a name or setting that does not exist."""
    space = load_space(config.space)
    _check_stand_alone(config, space)
    supernets: dict[str, SupernetPlan] = {}
    members = []
    for settings in config.members:
        assert settings.name is not None  # Config names every member
        method = load_method(settings.method)
        _check_space(config, settings, method)
        needed = _supernets(config, space, settings, method, supernets)
        supernets |= {one.id: one for one in needed}
        supernet = needed[-1]
        objectives = _objectives(config, settings, method)
        member = MemberPlan(
            name=settings.name,
            strategy=method.strategy,
            settings=settings.settings,
            derivation=method.derivation,
            objectives=objectives,
            supernet=supernet.id,
            seed=seeds.integer(config.seed, "member", settings.name),
            limits=tuple(config.constraints.get(name, math.inf) for name in objectives),
        )
        what = f"members.{settings.name}.rule_settings"
        build_rule(supernet, space, what)
        if supernet.training.optimizer != "sgd" and supernet.rule == "darts2":
            raise UserError(
                f'members.{settings.name}: darts2 looks one step of SGD ahead; set training.optimizer = "sgd" for it.'
            )
        if supernet.split is not None:  # what a rule refuses of a part is told before the warm-up is trained
            for part in possible_parts(space, supernet.split.settings, seed=supernet.seed):
                build_rule(supernet, part.restrict(space), f"{what}, for a partition")
        build_strategy(member, space, space.uniform_probabilities())
        members.append(member)
    _check_keys(config, space, supernets.values())
    for cost in config.evaluation.costs:
        load_member("raynas.costs", cost)
    for proxy in config.selector.proxies:
        load_member("raynas.proxies", proxy)
    for predictor in config.selector.predictors:
        load_member("raynas.predictors", predictor)
    load_member("raynas.aggregators", config.selector.aggregator)
    return Plan(config, space, tuple(supernets.values()), tuple(members))


def load_space(settings: SpaceSettings) -> SearchSpace:
    """The SPACE of a search space's module; or, where it has a function `space`, what that makes of the settings.

    The function takes, by name, those settings of supernet() that change the choices themselves.
    """
    name = settings.name
    module = load_module(name, "space", "search_spaces")
    if not isinstance(space := getattr(module, "SPACE", None), SearchSpace) or not hasattr(module, "supernet"):
        raise UserError(f"{name} is no search space: expected SPACE and supernet() in it; see search_spaces/.")
    if (make := getattr(module, "space", None)) is None:
        return space
    what = "space.settings"
    known = {key: value for key, value in settings.settings.items() if key in inspect.signature(make).parameters}
    return _built(make, what, **_arguments(make, what, known, {}))  # type: ignore[no-any-return]


def load_method(name: str) -> Method:
    """The METHOD of a method's file."""
    method = load_member("raynas.methods", name, "METHOD")
    if not isinstance(method, Method):
        raise UserError(f"expected a raynas.method.Method as METHOD of {name}, but got {method!r}; make it one.")
    return method


def build_supernet(config: Config, dataset: Dataset, *, seed: int, stand_alone: bool = False) -> Supernet:
    """The untrained network of the run's space for these images, its weights drawn from the seed.

    stand_alone: the one whose subnets are trained from scratch, with the settings of retraining.space_settings.
    """
    from raynas.supernet import seeded  # torch is loaded only where networks are built

    build = load_module(config.space.name, "space", "search_spaces").supernet
    channels, height, _ = dataset.image_shape_CHW
    given = dict(zip(GIVEN["search_spaces"], (channels, dataset.classes, height), strict=True))
    what = "retraining.space_settings" if stand_alone else "space.settings"
    settings = _stand_alone(config).settings if stand_alone else config.space.settings
    arguments = _arguments(build, what, settings, given)
    return _built(seeded, what, build, seed, **arguments)  # type: ignore[no-any-return]


def build_rule(supernet: SupernetPlan, space: SearchSpace, what: str = "members.rule_settings") -> Any:
    """The training rule of a supernet; one that has a schedule is given the number of steps.

    what: how its settings are called where they are refused.
    """
    rule = load_member("raynas.training_rules", supernet.rule)
    given: dict[str, Any] = {"seed": supernet.seed}
    if "steps" in inspect.signature(rule).parameters:
        given["steps"] = supernet.training.steps
    arguments = _arguments(rule, what, supernet.rule_settings, given, space)
    return _built(rule, what, space, **arguments)


def build_strategy(member: MemberPlan, space: SearchSpace, probabilities: Sequence[NDArray[np.float64]]) -> Any:
    """The strategy of a member; what searches what its rule learnt, or aims below limits, is given those."""
    strategy = load_member("raynas.strategies", member.strategy)
    given: dict[str, Any] = {"seed": member.seed}
    if learns(strategy):
        given["probabilities"] = probabilities
    if knows_limits(strategy):
        given["limits"] = member.limits
    what = f"members.{member.name}.settings"
    return _built(strategy, what, space, **_arguments(strategy, what, member.settings, given, space))


GIVEN = {
    "search_spaces": ("in_channels", "classes", "resolution"),
    "raynas.training_rules": ("seed", "steps"),
    "raynas.strategies": ("seed", "probabilities", "limits"),
}
"""What raynas itself gives to the members of those families that have settings of their own; it cannot be set."""


def own_settings(package: str, name: str) -> type[Settings]:
    """The settings of a space's supernet(), a training rule or a strategy; the first two load torch."""
    member = load_member(package, name, "supernet" if package == "search_spaces" else None)
    return _settings(_signature(member), GIVEN[package])


def predicted_limits(config: Config) -> dict[str, float]:
    """The limits on costs that are known beforehand; a measured one is known only where the scoring happens."""
    return {name: limit for name, limit in config.constraints.items() if name != MEASURED}


def _stand_alone(config: Config) -> SpaceSettings:
    settings = {**config.space.settings, **config.retraining.space_settings}
    return config.space.model_copy(update={"settings": settings})


def _check_stand_alone(config: Config, space: SearchSpace) -> None:
    if load_space(_stand_alone(config)).blocks != space.blocks:
        changed = ", ".join(config.retraining.space_settings)
        raise UserError(
            f"retraining.space_settings ({changed}) changes the choices of {space.name}, so that what is found could "
            "not be trained; move that setting to space.settings."
        )


def _check_keys(config: Config, space: SearchSpace, supernets: Iterable[SupernetPlan]) -> None:
    if (keys := config.evaluation.keys) == 1:
        return
    if space.synonyms is None:
        raise UserError(
            f"evaluation.keys = {keys} expects a space that names a network's keys (SearchSpace.synonyms), but "
            f"{space.name} does not; leave it out."
        )
    if any(one.parts or one.rule_settings.get("sampling", "keys") != "keys" for one in supernets):
        raise UserError(
            f"evaluation.keys = {keys} expects supernets that are trained on all keys, but partitions are not, nor is "
            'what sampling = "canonical" or "distinct" trains; leave out either.'
        )


def _check_space(config: Config, member: MemberSettings, method: Method) -> None:
    for name, value in method.space_settings.items():
        if config.space.settings.get(name) != value:
            having = [one for one in members("search_spaces") if name in _settings_of_space(one)]
            raise UserError(
                f"members.{member.name}: {member.method} needs space.settings.{name} = {json.dumps(value)}; set it, "
                f"in a space that has it ({', '.join(having)}), or take another method."
            )


def _settings_of_space(name: str) -> Mapping[str, Any]:
    return inspect.signature(load_module(f"search_spaces.{name}", "space", "search_spaces").supernet).parameters


def _supernets(
    config: Config, space: SearchSpace, member: MemberSettings, method: Method, known: Mapping[str, SupernetPlan]
) -> list[SupernetPlan]:
    """The supernet that scores for a member, after those that it is made of: a warm-up and its partitions'."""
    rule = member.training_rule or method.training_rule
    seed = config.seed if member.supernet_seed is None else member.supernet_seed
    training = validate(TrainingSettings, config.training.changed(member.training), f"members.{member.name}.training.")
    without = {"checkpoint_every_s", "cpus_per_replica", "gpus_per_replica", "crop_padding"}
    if not training.averaging:
        without |= {"averaging", "averaging_decay"}
    if not training.snapshots:
        without.add("snapshots")
    if training.precision == "auto":
        without.add("precision")
    if training.optimizer == "sgd":
        without |= {"optimizer", "muon_turn"}
    content = {
        "space": config.space.model_dump(),
        "data": training.augmented(config.data).model_dump(),
        "rule": rule,
        "rule_settings": member.rule_settings,
        "training": training.model_dump(exclude=without),
        "seed": seed,
        **({"split_seed": config.seed} if seed != config.seed else {}),  # which images are for validation
    }
    penalty = inspect.signature(load_member("raynas.training_rules", rule)).parameters.get("penalty")
    limits = predicted_limits(config)
    if limits and penalty is not None and member.rule_settings.get("penalty", penalty.default):
        content["limits"] = limits  # what is learnt depends on them

    def plan(label: str, depends_on: Mapping[str, Any], **what: Any) -> SupernetPlan:
        identity = content_hash({**content, **depends_on})
        what = {"begin": 0, "end": training.steps, **what}
        return known.get(identity) or SupernetPlan(
            identity, _unused(label, known.values()), rule, member.rule_settings, training, seed, **what
        )

    stem = rule.rsplit(".", 1)[-1]
    settings = member.partitions or (PartitionSettings() if method.partitions else None)
    if settings is None:
        return [plan(stem, {})]
    try:
        check_split(space, settings)
    except UserError as mistake:
        raise UserError(f"members.{member.name}.partitions: {mistake}") from None
    end = round(settings.warm_up * training.steps)
    if not 0 < end < training.steps:
        raise UserError(
            f"members.{member.name}.partitions.warm_up = {settings.warm_up:g} of {training.steps} steps leaves "
            f"{end} for the warm-up and {training.steps - end} for the partitions; each needs one, so change it."
        )
    if sum(step > end for step in training.snapshot_steps) < training.snapshots:
        raise UserError(
            f"members.{member.name}.partitions.warm_up = {settings.warm_up:g} leaves the partitions fewer than "
            f"training.snapshots = {training.snapshots} late steps; lower either."
        )
    how = settings.model_dump(include={"blocks", "groups", "by", "paths"})
    whole = plan(f"{stem}_few_shot", {"end": end, "split": settings.model_dump()})
    warm_up = plan(f"{whole.label}_warm_up", {"end": end}, end=end)
    split = SplitPlan(settings, warm_up.id, f"supernets/{warm_up.id}/split_{content_hash(how)}.json")
    parts = [
        plan(
            f"{whole.label}_part_{part + 1}",
            {"end": end, "split": how, "part": part},
            begin=end,
            split=split,
            part=part,
        )
        for part in range(settings.count)
    ]
    return [warm_up, *parts, replace(whole, split=split, parts=tuple(one.id for one in parts))]


def _unused(label: str, others: Iterable[SupernetPlan]) -> str:
    """The label, numbered where it is taken."""
    taken = {one.label for one in others}
    numbers = (f"{label}_{number}" for number in count(2))
    return label if label not in taken else next(one for one in numbers if one not in taken)


def _objectives(config: Config, member: MemberSettings, method: Method) -> tuple[str, ...]:
    known = ("loss", "error", *config.evaluation.costs)
    meant = {
        "score": config.evaluation.score,
        "cost": config.selector.cost or next(iter(config.evaluation.costs), "cost"),
    }
    objectives = tuple(meant.get(name, name) for name in member.objectives or method.objectives)
    for name in objectives:
        if name not in known:
            raise UserError(
                f"unknown objective {name!r} of member {member.name}; {closest(name, known)}; "
                "correct it, or add the cost to evaluation.costs."
            )
    return objectives


class _Arguments(Settings):
    """The settings of something that is built; the annotations of a user's own may be of any class."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


def _arguments(
    build: Callable[..., Any], what: str, settings: Mapping[str, Any], given: Mapping[str, Any], *positional: Any
) -> dict[str, Any]:
    """What `build` is called with: `given`, and the settings, which must be keyword-only arguments of their types."""
    signature = _signature(build)
    checked = validate(_settings(signature, given), settings, f"{what}.")
    arguments = {**given, **{name: getattr(checked, name) for name in settings}}
    try:
        signature.bind(*positional, **arguments)
    except TypeError as mistake:
        raise UserError(
            f"{build.__module__}.{build.__qualname__}{signature} cannot be called with "
            f"{', '.join(['the space'] * len(positional) + list(arguments))}: {mistake}; add what it lacks."
        ) from None
    return arguments


def _signature(build: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(build, eval_str=True)
    except NameError:  # an annotation that only type checkers import
        return inspect.signature(build)


def _settings(signature: inspect.Signature, given: Container[str]) -> type[Settings]:
    """The settings of something that is built: its keyword-only arguments, but for those that are `given`."""
    fields: dict[str, Any] = {
        one.name: (
            Any if one.annotation is one.empty or isinstance(one.annotation, str) else one.annotation,
            ... if one.default is one.empty else one.default,
        )
        for one in signature.parameters.values()
        if one.kind is one.KEYWORD_ONLY and one.name not in given
    }
    return create_model("Arguments", __base__=_Arguments, **fields)


def _built(build: Callable[..., Any], what: str, *arguments: Any, **settings: Any) -> Any:
    """Call `build`; raises UserError for settings that it refuses, too little memory, and a fault in a user's file."""
    try:
        return build(*arguments, **settings)
    except (UserError, ValueError) as mistake:
        raise UserError(f"{what}: {mistake}") from None
    except Exception as fault:
        raise_mistake_of_user(what, fault)
        raise
