"""A run's settings: one TOML file, checked before anything starts."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from raynas.errors import UserError, closest, reason
from raynas.members import full_path, load_member, members


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python takes `true` for 1, and so does pydantic."""
        kinds: list[Any] = [cls.model_fields[info.field_name or ""].annotation]
        while kinds and isinstance(value, bool):
            kind = kinds.pop()
            if kind in (int, float):
                raise ValueError(f"expected a number, but got {str(value).lower()}; give one")
            if get_origin(kind) not in (tuple, dict):  # of int | None, and of Annotated
                kinds.extend(get_args(kind))
        return value

    def _refuse_idle(self, needs: str, *names: str) -> None:
        """Raises ValueError for what is idle, unless it is the default, which a run's config.toml names too."""
        for name in names:
            if (came := getattr(self, name)) != type(self).model_fields[name].default:
                raise ValueError(
                    f"expected {needs} where {name} is set, but got {name} = {came} alone; set it, or leave that out"
                )

    def _refuse_twice(self, *lists: str) -> None:
        """Raises ValueError for what a list names more than once."""
        for setting in lists:
            names = getattr(self, setting)
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"expected {setting} that differ, but got {', '.join(twice)} twice; name each once")


AnySettings = TypeVar("AnySettings", bound=Settings)

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What every library takes for a seed."""


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and gpus % 1:
        raise ValueError(f"expected a share of a GPU or a whole number of them, but got {gpus:g}; Ray grants no other")
    return gpus


GPUs = Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)]
"""What Ray can grant to one actor."""

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
"""What convolutions and matrices are multiplied in."""

PRECISION = "auto: bfloat16 on GPUs that are fast with it; on CPUs with AMX ask for bfloat16"
"""Said of each of three settings."""

Epochs = Annotated[
    float,
    Field(gt=0, strict=True),
    AfterValidator(lambda epochs: int(epochs) if epochs.is_integer() else epochs),
    PlainSerializer(lambda epochs: epochs),
]
"""Of a short training; a whole number is an int, so that it has one name."""

LOGS = 100
"""How many points a training curve has."""

MOST_PARTITIONS = 64
"""Each is a supernet to train; "Deeper Insights" goes to as many, one for each of its networks."""

DEFAULT_SPACE = "search_spaces.nas_bench_201"


class SpaceSettings(Settings):
    """Which search space, and the settings of its supernet() (channels, cells per stage ...)."""

    name: str = Field(DEFAULT_SPACE, description="one of `raynas list spaces`, or a module of your own")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="of its supernet(): see `raynas list spaces`; with name left out too, { channels = 8, "
        "cells_per_stage = 1 }",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """A bare name is one of the spaces that come with raynas; the built-in run uses a small network."""
        if not isinstance(values, dict):
            return values
        name = values.get("name", DEFAULT_SPACE)
        if isinstance(name, str):
            name = full_path("search_spaces", name)
        small = {"channels": 8, "cells_per_stage": 1} if "name" not in values else {}
        return {**values, "name": name, "settings": values.get("settings", small)}


class DataSettings(Settings):
    """Which images, how they are split and augmented."""

    name: str = Field("digits", description="one of `raynas list datasets`, or a function of your own")
    resolution: int | None = Field(
        None, ge=1, le=1024, description="side in pixels to which images are resized; left out: as they are"
    )
    validation_fraction: float = Field(0.25, gt=0, lt=1, description="share of the training images, for scores")
    crop_padding: int = Field(1, ge=0, description="pixels of padding for random crops")
    flip: bool = Field(False, description="mirror training images at random")
    cutout: int = Field(0, ge=0, description="side in pixels of the erased square")


class TrainingSettings(Settings):
    """How supernets are trained."""

    steps: int = Field(800, ge=1, description="optimisation steps")
    batch_size: int = Field(64, ge=1, description="images a step, over all replicas")
    learning_rate: float = Field(0.05, gt=0, description="the first; it falls to zero on a cosine")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    optimizer: Literal["sgd", "muon"] = Field("sgd", description="muon: of the convolutions' kernels, in place of SGD")
    muon_turn: float = Field(
        0.02, gt=0, lt=1, description="a kernel's step as a share of the kernel's norm, at the first learning rate"
    )
    gradient_clip: float = Field(5.0, gt=0, description="largest norm of the gradient")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    crop_padding: int | None = Field(
        None, ge=0, description="pixels of padding for random crops while supernets train; left out: data.crop_padding"
    )
    averaging: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the steps, the last ones, whose weights are averaged; not those of a joint warm-up; "
        "0: none",
    )
    averaging_decay: float | None = Field(
        None, gt=0, lt=1, description="of an exponential moving average over these steps; left out: their plain mean"
    )
    snapshots: int = Field(
        0, ge=0, le=20, description="late weights to publish beside the last, to measure how stable the ranking is"
    )
    precision: Precision = Field("auto", description=PRECISION)
    replicas: int = Field(1, ge=1, description="data-parallel workers of each supernet")
    cpus_per_replica: int = Field(1, ge=1)
    gpus_per_replica: GPUs = Field(0.0, description="a share of a GPU, or whole GPUs")
    checkpoint_every_s: float = Field(20.0, ge=0, description="seconds between checkpoints of a supernet")

    @model_validator(mode="after")
    def _agree(self) -> TrainingSettings:
        if self.averaging_decay is not None and not self.averaging:
            raise ValueError(
                "averaging_decay is of an average that is not taken; set averaging, e.g. to 0.25, or leave it out"
            )
        if self.optimizer == "sgd":
            self._refuse_idle('optimizer = "muon"', "muon_turn")
        if self.batch_size % self.replicas:
            raise ValueError(
                f"expected a batch_size that {self.replicas} replicas can share equally, but got {self.batch_size}; "
                "change either"
            )
        if self.replicas > 1 and 0 < self.gpus_per_replica < 1:
            raise ValueError(
                f"expected a GPU for each of {self.replicas} replicas, as NCCL refuses two on one, but got "
                f"gpus_per_replica = {self.gpus_per_replica:g}; set it to 1, or replicas to 1"
            )
        if len(self.snapshot_steps) < self.snapshots:
            raise ValueError(
                f"expected at most {len(self.snapshot_steps)} snapshots of the late ones of {self.steps} steps, but "
                f"got {self.snapshots}; lower snapshots, or raise steps"
            )
        return self

    def changed(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """What a member trains with: its own changes, and these settings but where those make them idle."""
        merged = {**self.model_dump(), **changes}
        for switch, off, idle in (("averaging", 0, "averaging_decay"), ("optimizer", "sgd", "muon_turn")):
            if merged[switch] == off and idle not in changes:
                del merged[idle]
        return merged

    def augmented(self, data: DataSettings) -> DataSettings:
        """How images are augmented while supernets train."""
        return data if self.crop_padding is None else data.model_copy(update={"crop_padding": self.crop_padding})

    @property
    def log_every(self) -> int:
        """Steps between two points of the training curve."""
        return max(1, self.steps // LOGS)

    @property
    def snapshot_steps(self) -> list[int]:
        """The steps at which weights are kept: evenly over the last quarter, on points of the curve, not the last.

        Where weights are averaged, snapshots are averages too, and so begin within those steps.
        """
        begin, first = 0.75, 0
        if self.averaging:
            begin, first = max(begin, 1 - self.averaging), 1
        shares = ((number + first) / (self.snapshots + first) for number in range(self.snapshots))
        wanted = (self.steps * (begin + (1 - begin) * share) for share in shares)
        points = {self.log_every * max(1, round(step / self.log_every)) for step in wanted}
        return sorted(step for step in points if (begin if self.averaging else 0) * self.steps < step < self.steps)


class EvaluationSettings(Settings):
    """How an architecture is scored with a supernet's weights, and which costs it is given."""

    batch_norm: Literal["batch", "recalibrated"] = Field(
        "batch", description="whose statistics: those of the batch at hand, or estimated anew from training images"
    )
    scored_on: Literal["validation", "train"] = Field(
        "validation",
        description="whose images: training images show what a path has learnt, whether it generalises or not",
    )
    images: int = Field(360, ge=2, description="so many of them")
    batch_size: int = Field(512, ge=2, description="images that are scored at a time")
    calibration_images: int = Field(512, ge=2, description="training images for recalibrated BatchNorm")
    fine_tune_steps: int = Field(0, ge=0, description="SGD steps that each candidate's own copy takes before it scores")
    fine_tune_learning_rate: float = Field(0.01, gt=0, description="of these steps")
    fine_tune_batch_size: int = Field(64, ge=2, description="training images a step")
    head: Literal["shared", "fitted"] = Field(
        "shared", description="the supernet's classifier, or one fitted to each candidate's features"
    )
    head_images: int = Field(
        2000, ge=2, description="training images that each candidate's own classifier is fitted to"
    )
    head_l2: float = Field(1e-3, gt=0, description="of the fitted classifier, on standardised features")
    keys: int = Field(
        1, ge=1, description="how many keys of a network to score, which differ in weights: the best counts"
    )
    score: Literal["loss", "error"] = Field("loss", description="what is ranked by: the lower the better")
    costs: tuple[str, ...] = Field(("parameters", "macs"), description="names from `raynas list costs`")
    precision: Precision = Field("auto", description=PRECISION)
    workers: int | None = Field(
        None, ge=1, description="evaluator actors; left out: as many as the cluster has room for"
    )
    cpus_per_worker: int = Field(1, ge=1)
    gpus_per_worker: GPUs = Field(0.0, description="a share of a GPU, or whole GPUs")

    @model_validator(mode="after")
    def _have_effect(self) -> EvaluationSettings:
        self._refuse_twice("costs")
        if self.head == "fitted" and self.scored_on == "train":
            raise ValueError(
                'head = "fitted" is fitted to training images, so expected scored_on = "validation", but got "train"; '
                "leave out either"
            )
        if self.head == "shared":
            self._refuse_idle('head = "fitted"', "head_images", "head_l2")
        if not self.fine_tune_steps:
            self._refuse_idle("fine_tune_steps, e.g. 5,", "fine_tune_learning_rate", "fine_tune_batch_size")
        return self


class SearchSettings(Settings):
    """What each member of the population may do."""

    evaluations: int = Field(128, ge=1, description="architectures that each member has scored")
    batch_size: int = Field(16, ge=1, description="architectures asked for at a time")
    random_baseline: bool = Field(True, description="random_search is a member even if [[members]] does not name it")
    cpus_per_member: float = Field(0.25, gt=0, description="a share of a CPU, or several")


class PartitionSettings(Settings):
    """How a member's supernet is split into several that share less: raynas.partition."""

    blocks: tuple[str, ...] | None = Field(
        None, min_length=1, description="blocks that are split; left out: one, the one whose choices disagree most"
    )
    groups: int = Field(2, ge=2, description="groups of each such block's choices")
    by: Literal["gradient", "lexicographic", "random"] = Field(
        "gradient", description="what puts choices into a group: gradients that agree, their order, or chance"
    )
    warm_up: float = Field(
        0.5, gt=0, lt=1, description="share of training.steps that all partitions are trained as one"
    )
    paths: int = Field(16, ge=1, description="random paths on which a choice's gradient is averaged")
    comparable: Literal["shift", "shift_and_scale", "none"] = Field(
        "shift", description="what makes scores of partitions comparable: agreement in the mean, or in mean and spread"
    )
    reference: int = Field(32, ge=2, description="architectures of each partition on which they are made to agree")

    @property
    def count(self) -> int:
        """How many partitions there are: every group of every block that is split with each of the others'."""
        return int(self.groups ** len(self.blocks or ("one",)))

    @model_validator(mode="after")
    def _few_enough(self) -> PartitionSettings:
        if self.blocks is not None and len(set(self.blocks)) < len(self.blocks):
            raise ValueError(f"expected different blocks, but got {', '.join(self.blocks)}; name each once")
        if self.count > MOST_PARTITIONS:
            raise ValueError(
                f"expected at most {MOST_PARTITIONS} partitions, but {self.groups} groups of {len(self.blocks or '1')} "
                f"blocks are {self.count}; lower groups or name fewer blocks"
            )
        return self


NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
"""Of a member, whose files are called after it."""


class MemberSettings(Settings):
    """One member of the population: a method with its settings and seed."""

    method: str = Field(description="one of `raynas list methods`, or a module of your own")
    name: str | None = Field(None, description="left out: the method's name")
    training_rule: str | None = Field(
        None, description="one of `raynas list rules`, or a module of your own; left out: the method's own"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="of its strategy: see `raynas list strategies`")
    rule_settings: dict[str, Any] = Field(
        default_factory=dict, description="of its training rule: see `raynas list rules`"
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="changes to [training] for this member's supernet"
    )
    partitions: PartitionSettings | None = Field(
        None, description="its supernet is split in so many that share less; left out: only if its method says so"
    )
    supernet_seed: Seed | None = Field(
        None, description="left out: the run's seed; members with equal supernets share one"
    )
    objectives: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description='what it minimises: "score", "cost" or names of evaluation.costs; left out: the method\'s own',
    )

    @field_validator("name")
    @classmethod
    def _names_a_file(cls, name: str | None) -> str | None:
        if name is not None and not NAME.fullmatch(name):
            raise ValueError(
                f"expected letters, digits, _, - and . behind them, as files are called after it, but got {name!r}; "
                "rename it"
            )
        return name


class SelectorSettings(Settings):
    """How rankings are merged, and how many architectures go on."""

    aggregator: str = Field("reliability", description="one of `raynas list aggregators`, or a module of your own")
    leaders: int = Field(32, ge=1, description="best architectures of each member that every supernet scores")
    finalists: int = Field(3, ge=1, description="architectures that are trained from scratch to the end")
    cost: str = Field(
        "macs",
        description='finalists are spread over the front of rank against this cost; "": the first of the ranking',
    )
    proxies: tuple[str, ...] = Field((), description="scores of untrained networks that rank beside the supernets")
    proxy_images: int = Field(64, ge=4, description="training images that proxies look at")
    short_epochs: tuple[Epochs, ...] = Field(
        (),
        description="for which candidates are trained from scratch, to rank beside the supernets: all of them for the "
        "first number, those that may be among the best for the next; 0.2 is a fifth of an epoch; one number is a list "
        "of it, 0 of none",
    )
    predictors: tuple[str, ...] = Field(
        (), description="what is learnt of each supernet's scores of other architectures, to rank beside it"
    )

    @field_validator("short_epochs", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return ((value,) if value else ()) if type(value) in (int, float) else value

    @model_validator(mode="after")
    def _have_effect(self) -> SelectorSettings:
        if any(shorter >= longer for shorter, longer in pairwise(self.short_epochs)):
            raise ValueError(
                f"expected short_epochs that rise, e.g. [1, 3, 9], but got {list(self.short_epochs)}; sort them, and "
                "name each once"
            )
        self._refuse_twice("proxies", "predictors")
        if not self.proxies:
            self._refuse_idle('proxies, e.g. ["zico"],', "proxy_images")
        return self


class RetrainingSettings(Settings):
    """How finalists and calibration architectures are trained from scratch."""

    space_settings: dict[str, Any] = Field(
        default_factory=dict, description="changes to space.settings for the networks that are trained from scratch"
    )
    epochs: int = Field(4, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the gradient; left out: any")
    calibration: int = Field(
        20,
        ge=0,
        description="architectures spread over random search's ranking: they measure the gap and, where the "
        "selector.aggregator heeds them, calibrate the ranking, before which they are trained then",
    )
    precision: Precision = Field("auto", description=PRECISION)
    cpus_per_trial: int = Field(1, ge=1)
    gpus_per_trial: GPUs = Field(0.0, description="a share of a GPU, or whole GPUs")


class TableSettings(Settings):
    """The columns of a ground-truth table that stands in for supernets."""

    key: str = Field("key", description="the architecture, in the space's own notation")
    reward: str = Field("reward", description="what searches see; higher is better")
    report: str = Field("report", description="what is told of the best that is found")
    cost: str | None = Field(None, description="a cost, which methods with a second objective lower; left out: none")


class ClusterSettings(Settings):
    """What the run waits for."""

    wait_s: float = Field(0.0, ge=0, description="seconds to wait for an autoscaling cluster to grow to what is needed")


DEFAULT_MEMBERS = (
    MemberSettings(method="random_search"),
    MemberSettings(method="regularized_evolution"),
    MemberSettings(method="nsga2", training_rule="fair", training={"steps": 240}),
    MemberSettings(method="optuna_tpe"),
    MemberSettings(method="parsec", training={"steps": 200}, rule_settings={"samples": 8}),
)


class Config(Settings):
    """Everything a run depends on."""

    seed: Seed = Field(0, description="of every random draw")
    space: SpaceSettings = SpaceSettings.model_validate({})
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    constraints: dict[str, Annotated[float, Field(gt=0, strict=True)]] = Field(
        default_factory=dict, description="the most that is allowed of a cost, e.g. { macs = 3e6 }"
    )
    search: SearchSettings = SearchSettings()
    members: tuple[MemberSettings, ...] = DEFAULT_MEMBERS
    selector: SelectorSettings = SelectorSettings()
    retraining: RetrainingSettings = RetrainingSettings()
    table: TableSettings | None = None
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="before")
    @classmethod
    def _name_members(cls, values: Any) -> Any:
        """Add the random baseline and give every member a name of its own, in the order of the file."""
        if not isinstance(values, dict):
            return values
        listed = values.get("members", DEFAULT_MEMBERS)
        if not isinstance(listed, list | tuple):
            return values
        members = [member.model_dump() if isinstance(member, MemberSettings) else member for member in listed]
        if not all(isinstance(member, dict) for member in members):
            return values
        members = [dict(member) for member in members]
        search = values.get("search", {})
        baseline = search.get("random_baseline", True) if isinstance(search, dict) else True
        if baseline and all(member.get("method") != "random_search" for member in members):
            members.append({"method": "random_search"})  # last, so that the places in the file stay what they are
        taken: set[str] = {member["name"] for member in members if member.get("name")}
        for member in members:
            if not member.get("name") and isinstance(member.get("method"), str):
                stem = member["method"].rsplit(".", 1)[-1]
                number = next(n for n in range(1, len(members) + 2) if _numbered(stem, n) not in taken)
                member["name"] = _numbered(stem, number)
                taken.add(member["name"])
        return {**values, "members": members}

    @model_validator(mode="after")
    def _agree(self) -> Config:
        names = [member.name for member in self.members]
        if not names:
            raise ValueError("expected at least one [[members]] entry; add one, or leave random_baseline on")
        if len(set(names)) < len(names):
            raise ValueError(f"expected members of different names, but got {names}; rename one")
        wanted = {f"constraints.{cost}": cost for cost in self.constraints}
        if self.selector.cost:
            wanted["selector.cost"] = self.selector.cost
        for setting, cost in wanted.items():
            if cost not in self.evaluation.costs:
                raise ValueError(self._unmeasured(setting, cost))
        return self

    def _unmeasured(self, setting: str, cost: str) -> str:
        """What to say of a cost that is not among those that are measured; raises UserError if one of these is none."""
        costs, known = self.evaluation.costs, members("raynas.costs")
        for one in costs:
            if one not in known:
                load_member("raynas.costs", one)  # its name may be what is wrong
        if cost in known:
            listed = json.dumps([*costs, cost], separators=(",", ":"))
            return f"{setting}: {cost} is not among evaluation.costs; add --set 'evaluation.costs={listed}'"
        return f"{setting}: {cost!r} is not among evaluation.costs; {closest(cost, {*costs, *known})}; correct it"


def _numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}_{number}"


def load(path: str | None, overrides: Iterable[str] = (), changes: Mapping[str, Any] | None = None) -> Config:
    """Read a TOML file (None: the built-in configuration), apply `section.key=value` overrides, and check it.

    Raises UserError in one line for an unreadable file, malformed TOML, and unknown or bad settings.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # as some editors mark what they write
        except OSError as fault:
            raise UserError(f"cannot read the configuration {path}: {reason(fault)}; check the path.") from None
        except UnicodeDecodeError:
            raise UserError(f"{path} is no text: expected a TOML file in UTF-8; check the path.") from None
        except tomllib.TOMLDecodeError as fault:
            raise UserError(f"{path} is not valid TOML: {fault}; mend that line.") from None
    values.setdefault("members", [member.model_dump(exclude_unset=True) for member in DEFAULT_MEMBERS])
    for key, value in (changes or {}).items():
        _put(values, key, value)
    for override in overrides:
        key, equals, text = (part.strip() for part in override.partition("="))
        if not equals or not all(key.split(".")):
            raise UserError(f"expected --set section.key=value, but got {override!r}; see `raynas search --help`.")
        _put(values, key, _value(key, text))
    return check(values)


def check(values: Mapping[str, Any]) -> Config:
    """Validate a run's settings; raises UserError that names the key, what was expected and the closest valid key."""
    return validate(Config, values)


def validate(model: type[AnySettings], values: Mapping[str, Any], prefix: str = "") -> AnySettings:
    """Validate settings of one section; `prefix` is where they stand, for the message of the UserError."""
    try:
        return model.model_validate(values)
    except ValidationError as faults:
        raise UserError(
            "; ".join(_explain(model, dict(fault), prefix) for fault in faults.errors()[:3]) + "."
        ) from None


def content_hash(value: Any) -> str:
    """Twelve hexadecimal digits that name a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys under which two nested settings differ."""
    found = []
    for key in sorted({*old, *new}):
        mine, yours = old.get(key), new.get(key)
        if isinstance(mine, Mapping) and isinstance(yours, Mapping):
            found += differences(mine, yours, f"{prefix}{key}.")
        elif mine != yours:
            found.append(f"{prefix}{key}")
    return found


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place: Any = values
    for parent in parents:
        place = place[_index(parent, place, key)] if isinstance(place, list) else place.setdefault(parent, {})
        if not isinstance(place, dict | list):
            raise UserError(f"--set {key}: {parent!r} is a value, not a section; drop what follows it.")
    if isinstance(place, list):
        place[_index(last, place, key)] = value
    else:
        place[last] = value


def _index(text: str, place: list[Any], key: str) -> int:
    if not text.isdecimal() or int(text) >= len(place):
        names = [one.get("name") or one.get("method") if isinstance(one, dict) else one for one in place]
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(names))
        raise UserError(f"--set {key}: expected a number below {len(place)} in place of {text!r}: {listed}.")
    return int(text)


def _value(key: str, text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as fault:
        if not text or text[0] in "[{\"'":
            raise UserError(f"--set {key}: expected a TOML value, but got {text!r} ({fault}); mend it.") from None
        return text  # a bare word is a string


def _explain(model: type[Settings], fault: Mapping[str, Any], prefix: str) -> str:
    where = [str(part) for part in fault["loc"]]
    name = (prefix + ".".join(where)).rstrip(".")
    kind, message, came = fault["type"], fault["msg"], f", but got {fault['input']!r}"
    if kind == "extra_forbidden":
        here = _fields(model, where[:-1])
        elsewhere = [path for path in _paths(Config) if path.endswith(f".{where[-1]}")]
        if elsewhere and not difflib.get_close_matches(where[-1], here, cutoff=0.7):
            return f"unknown setting {name!r}; did you mean {' or '.join(map(repr, elsewhere))}"
        return f"unknown setting {name!r}; {closest(where[-1], here)}"
    if kind == "value_error":
        said: str = message.removeprefix("Value error, ")
        return f"{name}: {said}" if name else said
    if kind == "missing":
        return f"{name} is missing; add it"
    if kind in ("model_type", "dict_type"):
        message = "expected a section of settings"
        if isinstance(fault["input"], str) and len(where) == 1 and "name" in _fields(model, where):
            came += f"; set {name}.name = {json.dumps(fault['input'])}"
    elif kind == "too_short":
        return f"{name}: expected at least one entry, but got none; name one, or leave it out"
    elif kind == "tuple_type":
        message = "expected a list"
        if isinstance(fault["input"], dict) and name == "members":
            came += "; write [[members]]"
    elif kind == "string_type" and isinstance(fault["input"], int | float):
        came += f"; write it in quotes, as --set '{name}=\"{json.dumps(fault['input'])}\"'"
    return f"{name}: {message.replace('Input should be', 'expected')}{came}"


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    """The settings in the section at `path`; a number in it is an entry of a list."""
    for part in path:
        if not part.isdigit() and (section := section_of(model, part)) is not None:
            model = section
    return list(model.model_fields)


def _paths(model: type[BaseModel]) -> list[str]:
    """Every setting of every section, dotted."""
    sections = {name: section_of(model, name) for name in model.model_fields}
    return [f"{name}.{key}" for name, section in sections.items() if section for key in section.model_fields]


def section_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The settings that a field holds, or its list's entries hold."""
    annotation = model.model_fields[name].annotation
    options = [annotation, *get_args(annotation)]
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)
