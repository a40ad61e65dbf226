"""Finalists and calibration architectures trained from scratch, one Tune trial each.

The trials run to their end: a scheduler that stops the weaker ones early would cut off the very accuracies that the
ranking is measured against.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray import tune

from raynas import device as devices
from raynas import seeds
from raynas.architecture import Architecture, decode
from raynas.checkpoint import CHECKPOINT, load_state, save_state, save_weights, weights_file
from raynas.config import content_hash
from raynas.data import Dataset, split
from raynas.distributed.cluster import Progress, bundle
from raynas.distributed.population import run_trials
from raynas.errors import UserError, breaks_process
from raynas.evaluation import in_words
from raynas.members import load_member
from raynas.plan import Plan, build_supernet
from raynas.retraining import StandAloneTraining
from raynas.run_files import CANDIDATES
from raynas.storage import Folder

ARCHITECTURE = "architecture.json"
LONGEST = 200
"""Letters of a folder's name."""


Trials = Mapping[str, Mapping[str, Any]]
"""What is trained, a row of `candidates.parquet` or `ranking.parquet`, by its folder."""


def trials(run: Folder) -> Trials:
    """What a ranking names: `finalists/<rank>`, and `calibration/<architecture>` of those that are no finalists."""
    rows = run.read_table("ranking.parquet").to_pylist()
    finalists = {f"finalists/{row['rank']}": row for row in rows if row["finalist"]}
    return {**finalists, **_calibration([row for row in rows if not row["finalist"]])}


def calibration_trials(run: Folder) -> Trials:
    """All calibration architectures, before there is a ranking."""
    return _calibration(run.read_table(CANDIDATES).to_pylist())


def calibration_accuracies(run: Folder) -> dict[Architecture, float]:
    """Minus the validation error of each calibration architecture that was trained; NaN for one that failed."""
    places = [f"{place}/result.json" for place in calibration_trials(run)]
    results = [run.read_json(place) for place in places if run.exists(place)]
    return {
        decode(one["architecture"]): -one["validation_error"] if one["failure"] is None else math.nan for one in results
    }


def retrain(plan: Plan, arrays: Mapping[str, NDArray[Any]], run: Folder, chosen: Trials, report: Progress) -> None:
    """Train from scratch what of the chosen the folder does not hold yet."""
    missing = [place for place, row in chosen.items() if not _has_result(run / place, row)]
    if not missing:
        return
    settings = plan.config.retraining
    trainable = tune.with_resources(
        tune.with_parameters(_retraining_trial, plan=plan, run=run, chosen=chosen, data=[ray.put(arrays)]),
        tune.PlacementGroupFactory([bundle(settings.cpus_per_trial, settings.gpus_per_trial)]),
    )
    results = run_trials(trainable, {"place": tune.grid_search(missing)}, run, "retraining", _Report(report))
    for result in results:
        if result.error:
            raise result.error


def _calibration(rows: Iterable[Mapping[str, Any]]) -> Trials:
    return {_calibration_place(row): row for row in rows if row["calibration"]}


def _calibration_place(row: Mapping[str, Any]) -> str:
    """By architecture, as there is no rank yet; a file system takes names of 255 bytes at most."""
    name = row["architecture"]
    return f"calibration/{name if len(name) <= LONGEST else content_hash(name)}"


def _has_result(folder: Folder, row: Mapping[str, Any]) -> bool:
    """Whether it has one, and of this architecture: of another where the run was ranked anew."""
    return folder.exists("result.json") and bool(folder.read_json("result.json")["architecture"] == row["architecture"])


def _retraining_trial(config: dict[str, Any], *, plan: Plan, run: Folder, chosen: Trials, data: list[Any]) -> None:
    """A Tune trial: what goes wrong in a network's training is that network's failure, and the run goes on.

    A death, a full disk or a broken file is not: Tune begins the trial again, and in the end the run is stopped. It
    does so also with what has broken its process, which is of no use to the next network, and finds the failure.
    """
    place = config["place"]
    row, folder = chosen[place], run / place
    if _has_result(folder, row):
        return
    role = "finalist" if place.startswith("finalists/") else "calibration"
    known = {"architecture": row["architecture"], "name": plan.space.print(decode(row["architecture"])), "role": role}
    known |= {"rank": row["rank"]} if role == "finalist" else {}
    places = [folder, run / _calibration_place(row)]  # a finalist may have calibrated the ranking
    folder.write_json(ARCHITECTURE, known)
    figures: dict[str, Any] = {"validation_error": None, "test_error": None, "epochs": 0, "seconds": 0.0}
    try:
        dataset = Dataset.from_numpy(ray.get(data[0]))
        figures |= _trained(plan, dataset, row["architecture"], places, test=role == "finalist")
    except (ray.exceptions.RayError, UserError):
        raise
    except Exception as fault:
        folder.write_json("result.json", {**known, **figures, "failure": in_words(fault)})
        if breaks_process(fault):
            raise
    else:
        folder.write_json("result.json", {**known, **figures})


def _trained(plan: Plan, dataset: Dataset, encoding: str, places: Sequence[Folder], *, test: bool) -> dict[str, Any]:
    """Train one network to its end, in the first of these folders; its figures for `result.json`.

    It goes on from the first checkpoint of its own: one in a folder of a run that was ranked anew may be another's.

    Its costs are those of the network that is trained; the ranking has those of the network that was searched.
    """
    settings, architecture = plan.config.retraining, decode(encoding)
    device = devices.prepare(settings.cpus_per_trial, settings.gpus_per_trial)
    seed = seeds.integer(plan.config.seed, "stand-alone", encoding)
    supernet = build_supernet(plan.config, dataset, seed=seed, stand_alone=True)
    training = StandAloneTraining(
        supernet.subnet(architecture),
        split(dataset, plan.config.data.validation_fraction, plan.config.seed),
        settings=settings,
        data=plan.config.data,
        seed=seed,
        device=device,
    )
    begun = (load_state(place, CHECKPOINT) for place in places if place.exists(CHECKPOINT))
    if (own := next((state for state in begun if state.get("architecture") == encoding), None)) is not None:
        training.load_state_dict(own)
    if training.curves:  # how far an earlier attempt came; of a trial that reports nothing Tune prints a line
        tune.report(training.curves[-1])
    folder = places[0]
    for point in training.epochs():
        save_state(folder, CHECKPOINT, {"architecture": encoding, **training.state_dict()})
        tune.report(point)
    last = training.curves[-1]
    failure = None if math.isfinite(last["train_loss"]) else f"the loss is {last['train_loss']}"
    supernet.to(device)
    costs = {
        name: load_member("raynas.costs", name)(supernet, dataset.image_shape_CHW)(architecture)
        for name in dict.fromkeys((*plan.config.evaluation.costs, "latency_ms"))
    }
    folder.write_table("curves.parquet", pa.Table.from_pylist(training.curves))
    save_weights(folder, weights_file(), training.network.finished().state_dict())
    return {
        **costs,
        "validation_error": None if failure else last["validation_error"],
        "validation_images": len(training.validation),
        "test_error": training.error(training.test) if test and not failure else None,
        "epochs": training.epoch,
        "seconds": sum(point["seconds"] for point in training.curves),
        "failure": failure,
    }


class _Report(tune.Callback):
    """Tells the progress of each trial."""

    def __init__(self, report: Progress) -> None:
        self.report = report

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Called by Tune after each epoch of a trial."""
        accuracy = 1 - result["validation_error"]
        self.report(trial.config["place"], result["epoch"], {"accuracy": accuracy})
