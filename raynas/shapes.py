"""What the files in a run's folder hold, and of which types: they are checked against it before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, TypeAlias

import pyarrow as pa
from pydantic import AfterValidator, Field, ValidatorFunctionWrapHandler, WrapValidator
from typing_extensions import TypedDict

from raynas.evaluation import SCORES

Known: TypeAlias = Annotated[float, Field(allow_inf_nan=False)] | None
"""A number, or None for what is not known."""

Encoding: TypeAlias = Annotated[str, Field(pattern=r"^\d+(-\d+)*$")]
"""An architecture as `raynas.architecture.encode` writes it."""


class Stage(TypedDict):
    """An entry of `timings.json`."""

    stage: str
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


Timings: TypeAlias = list[Stage]


class Data(TypedDict):
    """`data.json`."""

    fingerprint: str


class Learnt(TypedDict):
    """What a supernet's `state.json` says of a distribution."""

    rule: str
    failure: str | None
    probabilities: list[Annotated[list[float], Field(min_length=1)]] | None


class State(Learnt):
    """A supernet's `state.json`."""

    label: str
    snapshots: list[int]
    settings: dict[str, Any]
    partitions: Any
    steps: NotRequired[int]
    images_per_s: NotRequired[Known]


class Split(TypedDict):
    """A warm-up's `split_*.json`: of each partition, of each block, its choices."""

    choices: list[list[list[int]]]


class Joined(TypedDict):
    """`partitions.json` of a supernet that is made of others."""

    partitions: list[list[list[int]]]
    parts: list[str]
    warm_up: str
    settings: dict[str, Any]


class Ended(TypedDict):
    """An entry of `members.json`."""

    state: str
    failure: NotRequired[str | None]


Members: TypeAlias = dict[str, Ended]


class Result(TypedDict):
    """`result.json` of what was trained from scratch, but for its costs."""

    architecture: Encoding
    role: str
    failure: str | None
    validation_error: float | None
    test_error: NotRequired[float | None]
    name: NotRequired[str]
    validation_images: NotRequired[int]


class FinalistResult(Result):
    """The same of a finalist."""

    rank: int


def _numbers(result: Any, known: ValidatorFunctionWrapHandler) -> Any:
    """Costs have names of their own: what is not called otherwise is a number."""
    known(result)
    for name, value in result.items():
        if name not in Result.__annotations__ and not isinstance(value, float | int | None):
            raise ValueError(f"expected a number of {name}, but got {value!r}")
    if result["failure"] is None and result["validation_error"] is None:
        raise ValueError("expected a validation_error, or a failure")
    return result


Trained: TypeAlias = Annotated[Result, WrapValidator(_numbers)]
Finalist: TypeAlias = Annotated[FinalistResult, WrapValidator(_numbers)]


class Belief(TypedDict):
    """How far a ranker is believed."""

    ranker: str
    agreement: Known
    agreement_error: Known
    weight: Known
    weight_error: Known


class Front(TypedDict):
    """How many candidates are on the Pareto set."""

    likely: int
    possible: int


class Hypervolume(TypedDict):
    """Of the Pareto set and of the finalists on it."""

    front: float
    finalists: float


class Rung(TypedDict):
    """How many candidates were trained for so many epochs."""

    epochs: float
    candidates: int


class Race(TypedDict):
    """What short trainings have settled."""

    trained: list[Rung]
    best: int
    undecided: int | None


class Disputed(TypedDict):
    """An architecture on which rankers disagree."""

    name: str
    ranks: dict[str, Known]


def _square(agreement: dict[str, Any]) -> dict[str, Any]:
    count = len(agreement["rankers"])
    if [len(row) for row in agreement["tau"]] != [count] * count:
        raise ValueError(f"expected a row and a column of tau for each of {count} rankers")
    return agreement


class _Agreement(TypedDict):
    rankers: list[str]
    tau: list[list[Known]]
    most_disputed: list[Disputed]
    candidates: int
    aggregator: NotRequired[str]
    calibrated: NotRequired[int]
    undecided: NotRequired[int | None]
    last_undecided: NotRequired[int | None]
    belief: NotRequired[list[Belief]]
    front: NotRequired[Front | None]
    hypervolume: NotRequired[Hypervolume | None]
    race: NotRequired[Race | None]


Agreement: TypeAlias = Annotated[_Agreement, AfterValidator(_square)]
"""`agreement.json`."""


class Correlation(TypedDict):
    """A rank correlation and its interval."""

    value: Known
    low: Known
    high: Known


class Correlations(TypedDict):
    """Of a ranker with training from scratch."""

    tau: NotRequired[Correlation | None]
    rho: NotRequired[Correlation | None]


class Point(TypedDict):
    """An architecture that was ranked and trained from scratch, or meant to be."""

    name: str
    role: str
    rank: int | None
    stand_alone_error: Known
    parameters: NotRequired[Known]


class NearBest(TypedDict):
    """How likely the chosen is nearly the best."""

    name: str
    probability: float
    within: float


class Stability(TypedDict):
    """How stable one group of rankings is."""

    name: str
    s_tau: Known
    gt_tau: Known
    gt_tau_std: Known
    top: dict[str, Known]
    of: int


class Gap(Correlations):
    """`gap.json`."""

    n: NotRequired[int]
    sentence: NotRequired[str]
    missing: NotRequired[str | None]
    value_gap: NotRequired[Known]
    regret: NotRequired[Known]
    points: NotRequired[list[Point]]
    baseline: NotRequired[dict[str, Correlations]]
    rankers: NotRequired[dict[str, Correlations]]
    near_best: NotRequired[NearBest | None]
    stability: NotRequired[list[Stability]]


# --- tables: columns that are named here must be there, filled unless nullable; all others hold numbers ---------------


def _filled(kind: pa.DataType, *names: str) -> list[pa.Field]:
    return [pa.field(name, kind, nullable=False) for name in names]


def evaluations(objectives: Sequence[str] = SCORES) -> pa.Schema:
    """The columns of `evaluations/<member>.parquet`."""
    return pa.schema(
        [
            *_filled(pa.int64(), "index"),
            *_filled(pa.string(), "architecture", "canonical", "name", "member", "supernet"),
            *((name, pa.float64()) for name in objectives),
            ("failure", pa.string()),
            *_filled(pa.int64(), "seed"),
            ("wall_s", pa.float64()),
        ]
    )


def ranking(costs: tuple[str, ...] = ()) -> pa.Schema:
    """The columns of `ranking.parquet`."""
    return pa.schema(
        [
            *_filled(pa.int64(), "rank"),
            *_filled(pa.string(), "architecture", "name"),
            *((name, pa.float64()) for name in ("consensus", *costs)),
            *_filled(pa.bool_(), "calibration", "on_front", "finalist"),
        ]
    )


def candidates(costs: tuple[str, ...] = ()) -> pa.Schema:
    """The columns of `candidates.parquet`."""
    named = [(name, pa.float64()) for name in costs]
    return pa.schema([*_filled(pa.string(), "architecture"), *_filled(pa.bool_(), "calibration"), *named])


SNAPSHOTS = pa.schema(_filled(pa.string(), "architecture"))
RACE = pa.schema([*_filled(pa.string(), "architecture"), *_filled(pa.float64(), "score")])
SUPERNET_CURVES = pa.schema(_filled(pa.float64(), "step"))
STAND_ALONE_CURVES = pa.schema([*_filled(pa.float64(), "epoch"), ("validation_error", pa.float64())])
