"""What the folder of a run holds, read for people: the report and the summary both start here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from raynas import plan, shapes
from raynas.config import SpaceSettings
from raynas.errors import UserError
from raynas.evaluation import REJECTED
from raynas.plan import state_file
from raynas.space import SearchSpace
from raynas.storage import Folder

Row: TypeAlias = dict[str, Any]
"""One line of a table; what was not measured, and what was not a number, is None."""


@dataclass(frozen=True, slots=True)
class SupernetRecord:
    """A supernet: its `state.json` and the columns of its `curves.parquet`."""

    identity: str
    state: Mapping[str, Any]
    curves: Mapping[str, list[Any]]

    @property
    def label(self) -> str:
        """What people call it."""
        return str(self.state.get("label", self.identity))

    @property
    def collapse(self) -> str | None:
        """One sentence on a rule that derives mostly skips, as DARTS is known to (Zela et al., ICLR 2020)."""
        counts = ((self.curves.get(f"derived_{one}") or [None])[-1] for one in ("skips", "operations"))
        skips, operations = (round(count or 0) for count in counts)  # means over the last steps
        if skips <= operations / 2:
            return None
        return (
            f"{self.label} may have collapsed: {skips} of the {operations} operations that it derives are skips. "
            "Compare what its members found with what others did; fewer steps or another training rule may help."
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """An architecture that is trained from scratch; `result` is None until its training has ended.

    rank: by consensus; None before there is a ranking.
    """

    rank: int | None
    role: str
    architecture: str
    name: str
    result: Mapping[str, Any] | None
    curves: Mapping[str, list[Any]]

    @property
    def title(self) -> str:
        """Its role and rank."""
        return self.role if self.rank is None else f"{self.role} {self.rank}"

    @property
    def failure(self) -> str | None:
        """Why it has no accuracy, if it failed."""
        return None if self.result is None else self.result.get("failure")

    def value(self, key: str) -> Any:
        """An entry of its result, or None."""
        return None if self.result is None else _number(self.result.get(key))


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as far as it has come: a stage that has not run left None or nothing."""

    name: str
    config: Mapping[str, Any]
    config_text: str
    versions: Mapping[str, Any]
    seconds: Mapping[str, float]
    supernets: tuple[SupernetRecord, ...]
    evaluations: Mapping[str, list[Row]]
    ended: Mapping[str, Mapping[str, Any]]
    ranking: list[Row] | None
    agreement: Mapping[str, Any] | None
    gap: Mapping[str, Any] | None
    trials: tuple[Trial, ...]

    @property
    def finalists(self) -> tuple[Trial, ...]:
        """The trials of the finalists, by rank."""
        return tuple(trial for trial in self.trials if trial.role == "finalist")

    @property
    def chosen(self) -> Trial | None:
        """The finalist with the lowest stand-alone validation error: the test set takes no part in the choice."""
        trained = [trial for trial in self.finalists if trial.value("validation_error") is not None]
        return min(trained, key=lambda trial: (trial.value("validation_error"), trial.rank), default=None)

    @property
    def costs(self) -> tuple[str, ...]:
        """The names of the costs that were measured."""
        return tuple(self.section("evaluation").get("costs", ("parameters", "macs")))

    @property
    def main_cost(self) -> str | None:
        """The cost against which accuracies are drawn."""
        return self.section("selector").get("cost") or next(iter(self.costs), None)

    @property
    def rankers(self) -> tuple[str, ...]:
        """The names of the supernets, proxies, short trainings and predictors that rank."""
        columns = self.ranking[0] if self.ranking else {}
        return tuple(name.removeprefix("rank_") for name in columns if name.startswith("rank_"))

    @property
    def members(self) -> dict[str, str]:
        """The method of each member, in the configuration's order."""
        listed = {str(entry.get("name") or entry["method"]): str(entry["method"]) for entry in self.config["members"]}
        return listed | {name: name for name in self.evaluations if name not in listed}

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the configuration, empty if it is not there."""
        return self.config.get(name) or {}

    @property
    def trained_otherwise(self) -> str | None:
        """One sentence on finalists' costs, where other networks are trained than were searched."""
        changes = self.section("retraining").get("space_settings")
        if not changes:
            return None
        settings = ", ".join(f"{name} = {value}" for name, value in changes.items())
        return (
            f"Trained from scratch with {settings}: these costs are of those networks; the limits and the ranking's "
            "costs are of the networks that were searched."
        )

    @property
    def by_accuracy_alone(self) -> bool:
        """Whether the finalists are the first of the ranking, and no cost has a say."""
        return bool(self.section("selector").get("cost") == "")

    @property
    def finalists_in_words(self) -> str | None:
        """One sentence on how the finalists stand for the Pareto set, or that there is none; None where unknown."""
        if self.by_accuracy_alone:
            return "The finalists are the first of the ranking, whatever they cost."
        volumes = (self.agreement or {}).get("hypervolume")
        if not volumes or not volumes["front"]:
            return None
        share = 100 * volumes["finalists"] / volumes["front"]
        return f"The finalists cover {share:.0f} % of the hypervolume of the Pareto set (of rank and {self.main_cost})."

    def supernet_label(self, identity: str) -> str:
        """What the supernet `identity` is called."""
        return next((net.label for net in self.supernets if net.identity == identity), identity)

    def row(self, trial: Trial) -> Row:
        """The ranking's line of a trial, empty if there is none."""
        return next((row for row in self.ranking or () if row["architecture"] == trial.architecture), {})

    def rank_of(self) -> dict[str, int]:
        """The consensus rank by architecture."""
        return {row["architecture"]: int(row["rank"]) for row in self.ranking or ()}

    def found_by(self, architecture: str) -> list[str]:
        """The members that scored this network, under any of its encodings."""
        return [
            member
            for member, rows in self.evaluations.items()
            if any(architecture in (row["canonical"], row["architecture"]) for row in rows if row["failure"] is None)
        ]

    def failures(self) -> list[tuple[str, str, int, str]]:
        """Where something failed, why, how often, and the first example; constraints are not failures."""
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for net in self.supernets:
            if net.state.get("failure"):
                found[f"supernet {net.label}", net.identity] = [(str(net.state["failure"]), "")]
        for member, end in self.ended.items():
            if end.get("failure"):
                found[f"member {member}", ""] = [(str(end["failure"]), "")]
        for member, rows in self.evaluations.items():
            for row in rows:
                if row["failure"] is not None and not is_rejected(row):
                    alike = re.sub(r"\d+(\.\d+)?", "0", row["failure"])  # the same reason with other numbers
                    found.setdefault((f"member {member}", alike), []).append((row["failure"], row["name"]))
        for trial in self.trials:
            if trial.failure:
                found[trial.title, trial.name] = [(trial.failure, trial.name)]
        return [(where, told[0][0], len(told), told[0][1]) for (where, _), told in found.items()]


def read_settings(folder: Folder) -> dict[str, Any]:
    """What `config.toml` says; raises UserError for one that was emptied, where defaults would go unseen."""
    settings = folder.read_toml("config.toml")
    if "seed" not in settings:
        raise UserError(f"{folder.path('config.toml')} has no seed, so is not whole; restore what the run wrote there.")
    return settings


def read_run(folder: Folder, *, with_gap: bool = True) -> RunRecord:
    """Read a run's folder; files of stages that have not run may be missing.

    with_gap: False for who measures it anew, whatever `gap.json` holds.
    Raises UserError if there is no `config.toml`, or if a file that is there is broken or lacks something.
    """
    if not folder.exists("config.toml"):
        raise UserError(f"expected the folder of a run, but {folder.path('config.toml')} is not there; check its name.")
    config = read_settings(folder)
    seconds: dict[str, float] = {}
    for entry in read_timings(folder):
        seconds[entry["stage"]] = seconds.get(entry["stage"], 0.0) + float(entry["seconds"])
    evaluations = {}
    for name in folder.names("evaluations"):
        if name.endswith(".parquet"):
            rows = sorted(_rows(folder, f"evaluations/{name}", shapes.evaluations()), key=_index)
            evaluations[rows[0]["member"] if rows else name.removesuffix(".parquet")] = rows
    order = [str(entry.get("name") or entry.get("method")) for entry in config.setdefault("members", [])]
    evaluations = dict(sorted(evaluations.items(), key=lambda item: (*_place(item[0], order), item[0])))
    used = list(dict.fromkeys(row["supernet"] for rows in evaluations.values() for row in rows[:1]))
    supernets = sorted(folder.names("supernets"), key=lambda name: (*_place(name, used), name))
    ranking = _rows(folder, "ranking.parquet", shapes.ranking()) if folder.exists("ranking.parquet") else None
    return RunRecord(
        name=folder.location.rstrip("/").rsplit("/", 1)[-1],
        config=config,
        config_text=folder.read("config.toml").decode(),
        versions=_json(folder, "versions.json", dict[str, Any]) or {},
        seconds=seconds,
        supernets=tuple(_supernet(folder, name) for name in supernets),
        ended=_json(folder, "members.json", shapes.Members) or {},
        evaluations=evaluations,
        ranking=ranking,
        agreement=read_agreement(folder),
        gap=read_gap(folder) if with_gap else None,
        trials=_trials(folder, ranking or []),
    )


def read_timings(folder: Folder) -> list[dict[str, Any]]:
    """The stages that have ended, with their seconds; raises UserError if the file is something else."""
    return _json(folder, "timings.json", shapes.Timings) or []


def read_agreement(folder: Folder) -> Any:
    """What rankers make of each other, or None before there is a ranking; raises UserError for another shape."""
    return _json(folder, "agreement.json", shapes.Agreement)


def read_gap(folder: Folder) -> Any:
    """How far the ranking can be trusted, or None where that is not measured; raises UserError as `read_agreement`."""
    return _json(folder, "gap.json", shapes.Gap)


def load_space(record: RunRecord) -> SearchSpace | None:
    """The run's search space, or None where its module cannot be imported: drawings are then left out."""
    try:
        return plan.load_space(SpaceSettings.model_validate(record.section("space")))
    except Exception:  # whatever a user's own module raises, a report of what was measured is still wanted
        return None


def is_rejected(row: Row) -> bool:
    """Whether an evaluation has no score because the network breaks a constraint."""
    return row["failure"] is not None and str(row["failure"]).startswith(REJECTED)


def is_random(method: str) -> bool:
    """Whether a member is the baseline that the others have to beat."""
    return method.rsplit(".", 1)[-1] == "random_search"


def best_so_far(rows: Iterable[Row], value: Mapping[str, float] | None = None) -> list[tuple[int, float, str]]:
    """Where a member's best value falls, as (networks scored so far, value, name), and once more at its end.

    value: by architecture, to be minimised (None: the error under the member's own supernet).
    """
    steps: list[tuple[int, float, str]] = []
    count = 0
    for count, row in enumerate((row for row in rows if row["failure"] is None), start=1):
        came = row["error"] if value is None else value.get(row["canonical"], value.get(row["architecture"]))
        if came is not None and (not steps or came < steps[-1][1]):
            steps.append((count, came, row["name"]))
    return [*steps, (count, *steps[-1][1:])] if steps and steps[-1][0] < count else steps


def _index(row: Row) -> int:
    return int(row["index"])


def _place(name: str, order: list[str]) -> tuple[bool, int]:
    return name not in order, order.index(name) if name in order else 0


def _json(folder: Folder, name: str, shape: Any) -> Any:
    return folder.read_json(name, shape) if folder.exists(name) else None


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(folder: Folder, name: str, columns: pa.Schema) -> list[Row]:
    return [{key: _number(value) for key, value in row.items()} for row in folder.read_table(name, columns).to_pylist()]


def _curves(folder: Folder, name: str, known: pa.Schema) -> dict[str, list[Any]]:
    if not folder.exists(name):
        return {}
    columns: dict[str, list[Any]] = folder.read_table(name, known).to_pydict()
    return {key: [_number(value) for value in values] for key, values in columns.items()}


def _supernet(folder: Folder, identity: str) -> SupernetRecord:
    state = _json(folder, state_file(identity), shapes.State) or {}
    curves = _curves(folder, f"supernets/{identity}/curves.parquet", shapes.SUPERNET_CURVES)
    return SupernetRecord(identity, state, curves)


def _trials(folder: Folder, ranking: list[Row]) -> tuple[Trial, ...]:
    """The trials on file, and the finalists that are named but not begun."""
    ranks = {row["architecture"]: int(row["rank"]) for row in ranking}
    found: dict[str, Trial] = {}
    for role, part in (("calibration", "calibration"), ("finalist", "finalists")):  # one that is both is a finalist
        trials = [_trial(folder, role, f"{part}/{name}", ranks) for name in folder.names(part)]
        trials.sort(key=lambda trial: trial.result is not None)  # one with a result comes last, and stays
        found |= {trial.architecture: trial for trial in trials if trial.architecture}
    named = {row["architecture"] for row in ranking if row["finalist"]}
    if ranking:  # a run that was ranked anew may hold finalists that are none any more
        found = {name: trial for name, trial in found.items() if trial.role == "calibration" or name in named}
    for row in ranking:
        if row["finalist"] and not (row["architecture"] in found and found[row["architecture"]].role == "finalist"):
            found[row["architecture"]] = Trial(row["rank"], "finalist", row["architecture"], row["name"], None, {})
    return tuple(sorted(found.values(), key=lambda trial: (trial.rank is None, trial.rank or 0, trial.architecture)))


def _trial(folder: Folder, role: str, place: str, ranks: Mapping[str, int]) -> Trial:
    result = _json(folder, f"{place}/result.json", shapes.Trained)
    known = result or _json(folder, f"{place}/architecture.json", dict[str, Any]) or {}
    architecture = str(known.get("architecture", ""))
    curves = _curves(folder, f"{place}/curves.parquet", shapes.STAND_ALONE_CURVES)
    name = str(known.get("name", architecture))
    return Trial(ranks.get(architecture), role, architecture, name, result, curves)
