"""What a run's folder holds, read before the run goes on: a broken file is told at once, not when its turn comes."""

from __future__ import annotations

from raynas import shapes
from raynas.checkpoint import CHECKPOINT, check_weights, load_state, weights_file
from raynas.config import Config
from raynas.evaluation import SCORES
from raynas.plan import state_file
from raynas.run_record import read_agreement, read_gap, read_timings
from raynas.storage import Folder

CANDIDATES = "candidates.parquet"
"""All that is ranked, with what every ranker says."""

JOINED = "partitions.json"
"""What a supernet that is made of others has in the place of weights."""


def check_files(run: Folder, config: Config) -> None:
    """Read all that a continued run takes up; raises UserError for a file that is broken or lacks something.

    Of weights, which may be many, only what they say of themselves.
    """
    for read in (read_timings, read_agreement, read_gap):
        read(run)
    if run.exists("members.json"):
        run.read_json("members.json", shapes.Members)
    for name in run.names("supernets"):
        place = run / f"supernets/{name}"
        if run.exists(state_file(name)):
            state = run.read_json(state_file(name), shapes.State)
            if state["failure"] is None and place.exists(JOINED):
                place.read_json(JOINED, shapes.Joined)
            elif state["failure"] is None:
                for step in (None, *state["snapshots"]):
                    check_weights(place, weights_file(step))
        else:
            _check_checkpoint(place)
        for file in place.names():
            if file.startswith("split_"):
                place.read_json(file, shapes.Split)
    for name in run.names("evaluations"):
        run.read_table(f"evaluations/{name}", shapes.evaluations((*SCORES, *config.evaluation.costs)))
    for name in run.names("race"):
        run.read_table(f"race/{name}", shapes.RACE)
    if run.exists(CANDIDATES):
        run.read_table(CANDIDATES, shapes.candidates(config.evaluation.costs))
    if run.exists("ranking.parquet"):
        run.read_table("ranking.parquet", shapes.ranking(config.evaluation.costs))
    for place in (run / f"{part}/{name}" for part in ("finalists", "calibration") for name in run.names(part)):
        if place.exists("result.json"):
            place.read_json("result.json", shapes.Trained)
        else:
            _check_checkpoint(place)


def _check_checkpoint(place: Folder) -> None:
    if place.exists(CHECKPOINT):
        load_state(place, CHECKPOINT)
