"""How well supernets rank a space whose truth is known: tau-b, rho, P@5 %, best of the top 100, regret, over seeds.

    python jobs/benchmarks/ranking.py --space nas_bench_201 --rule fair --minutes 60 --seeds 0
    python jobs/benchmarks/ranking.py --space nas_bench_macro --rule uniform --minutes 10 --seeds 0 1 2

Trains one supernet per seed on CIFAR-10 as a run of raynas, scores every architecture of the table with each, and
compares with the truth. A minute is what two idle cores do in it, counted in training steps, so that a busy machine
takes longer and finds the same: a path of the benchmark's own reduced network on 128 images takes PATH_S seconds there
and back, a forward pass alone a third of it. The same command again continues; with other [evaluation] settings it
scores the supernets that are trained already. With --set 'selector.predictors=["gradient_boosting"]' a line is added
for each predictor, which sees nothing but the supernets' scores, and one for the consensus of all. --record adds rows
to records/ranking.md.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import shlex
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from raynas.config import Config, SpaceSettings, load
from raynas.distributed import pipeline
from raynas.evaluation import PREDICTOR
from raynas.plan import load_space, make_plan
from raynas.progress import Progress
from raynas.rank_correlation import kendall_tau_b, precision_at_top, regret_at_count, s_tau, spearman_rho
from raynas.run import begin_run, open_run
from raynas.space import SearchSpace
from raynas.storage import Folder

SHARED = Path(__file__).parents[3] / "shared/data"
RECORDS = Path(__file__).parent / "records/ranking.md"
HEADER = f"{'':<28}{'tau-b':>8}{'rho':>8}{'P@5 %':>8}{'best of 100':>13}{'regret':>8}"


@dataclass(frozen=True, slots=True)
class Truth:
    """A table of stand-alone accuracies: its columns, and the reduced network that is trained to rank it."""

    file: str
    key: str
    truth: str
    short: str
    """Accuracies of less training: what a calibration architecture would be known by."""
    runs: tuple[str, ...]
    baselines: tuple[str, ...]
    path_s: float
    """Seconds of one path, 128 images, forward and backward, on two idle cores: of NAS-Bench-201 as it was timed, of
    the others by their ratio to it, measured in turn (medians of 23 random paths)."""
    settings: Mapping[str, Any]


TRUTHS = {
    "nas_bench_201": Truth(
        "nb201_cifar10.parquet",
        "arch_str",
        "c10_test_200",
        "c10_valid_12",
        ("c10_test_200_s1", "c10_test_200_s2", "c10_test_200_s3"),
        ("c10_params", "c10_flops"),
        0.048,
        {"channels": 16, "cells_per_stage": 1},
    ),
    "nas_bench_macro": Truth(
        "nas_bench_macro_1640.parquet",
        "arch",
        "mean_acc",
        "acc_s1",
        ("acc_s1", "acc_s2", "acc_s3"),
        ("params", "flops"),
        0.105,
        {"channels": 16, "head_channels": 320},
    ),
    "nats_size": Truth(
        "nats_size_cifar10.parquet", "arch", "c10_test_90", "c10_test_90", (), ("params", "flops"), 0.18, {}
    ),
}


def main() -> None:
    """Train, score, compare, and print one line per seed and one for the spread."""
    options = checked(options_of(__doc__, RECORDS))
    truth = TRUTHS[options.space]
    config = configure(options, truth)
    names, truth_A, columns = read_table(truth, options.architectures)
    table = score_all(config, options.storage, names)
    plan = make_plan(config)
    labels = {member.name: plan.supernet(member.supernet).label for member in plan.members}
    scores = {name: table[label].to_numpy() for name, label in labels.items()}
    rows = {name: measures(score_A, truth_A) for name, score_A in scores.items()}
    predicted = [name for name in table.column_names if name.startswith(PREDICTOR)]
    merged = {name: measures(table[name].to_numpy(), truth_A) for name in (*predicted, "consensus") if predicted}
    anchors = {name: measures(columns[name], truth_A) for name in truth.baselines}
    runs = [columns[name] for name in truth.runs]
    ceiling = [kendall_tau_b(one, other) for one, other in combinations(runs, 2)]
    minutes = dict(zip(rows, each(options.minutes, options.seeds), strict=True))
    print(f"{options.space}, {len(names)} architectures; budget in minutes of two idle cores")
    print(HEADER)
    for name, row in {**anchors, **{f"{name} ({minutes[name]:g} min)": row for name, row in rows.items()}}.items():
        print(f"{name:<28}" + figures(row))
    if len(rows) > 1:
        values = np.array([list(row.values()) for row in rows.values()])
        mean, spread = values.mean(0), values.std(0, ddof=1)
        for label, part in (("mean over seeds", mean), ("standard deviation", spread)):
            print(f"{label:<28}" + figures(dict(zip(next(iter(rows.values())), part, strict=True))))
        print(f"S-tau between seeds {s_tau(np.array(list(scores.values()))):.3f}")
    for name, row in merged.items():
        print(f"{name:<28}" + figures(row))
    if ceiling:
        print(f"noise ceiling: tau {np.mean(ceiling):.3f} between two single runs of the truth")
    if options.record:
        total = sum(minutes.values())
        _record(options, rows | merged, minutes | dict.fromkeys(merged, total), len(names))


def measures(score_A: NDArray[np.float64], truth_A: NDArray[np.float64]) -> dict[str, float]:
    """Agreement of a score with the truth (accuracies in percent), both (A,), higher is better."""
    return {
        "tau": kendall_tau_b(score_A, truth_A),
        "rho": spearman_rho(score_A, truth_A),
        "top": precision_at_top(score_A, truth_A, 0.05),
        "best": float(np.nanmax(truth_A)) - regret_at_count(score_A, truth_A, 100),
        "regret": regret_at_count(score_A, truth_A, 1),
    }


def paths_per_step(rule: str, settings: Mapping[str, Any], space: SearchSpace) -> float:
    """What a step computes, in paths that are run forward and backward."""
    if rule in (passes := {"fair": 1, "snas": 1, "blank_pt": 1, "darts1": 2, "darts_pt": 2, "darts2": 5}):
        return passes[rule] * max(len(block.choices) for block in space.blocks)
    if rule == "sandwich":
        return 4
    if rule == "ordered_dropout":  # computes all widths and masks: of nats_size, 1.12 s where a random path takes 0.35
        return 3.2
    if rule == "parsec":  # K children on two batches without gradients, and what has weight with them
        samples = settings.get("samples", 16)
        return 2 * samples / 3 + samples / 2  # type: ignore[no-any-return]
    if rule in ("manas", "manas_ls"):  # and the path of the step before on a batch without gradients
        return 4 / 3
    return settings.get("paths", 1)  # type: ignore[no-any-return]


def configure(options: argparse.Namespace, truth: Truth) -> Config:
    """A run whose members' supernets are trained for so many minutes, a member for each seed."""
    place = {"name": f"search_spaces.{options.space}", "settings": dict(truth.settings)}
    space = load_space(SpaceSettings.model_validate(place))
    rule_settings = dict(_pair(text) for text in options.rule_set)
    step_s = truth.path_s * paths_per_step(options.rule, rule_settings, space)
    members = [
        {
            "method": "random_search",
            "name": f"seed_{seed}",
            "training_rule": options.rule,
            "rule_settings": rule_settings,
            "supernet_seed": seed,
            "training": {"steps": math.ceil(60 * minutes / step_s)},
        }
        for seed, minutes in zip(options.seeds, each(options.minutes, options.seeds), strict=True)
    ]
    changes = {
        "space": place,
        "data": {
            "name": f"parquet:{SHARED / 'cifar10'}",
            "resolution": 16,
            "validation_fraction": 0.1,
            "crop_padding": 2,
            "flip": True,
        },
        "training.batch_size": 128,
        "training.checkpoint_every_s": 120.0,
        "evaluation.images": 1000,
        "evaluation.batch_size": 500,
        "search.random_baseline": False,
        "members": members,
    }
    return load(None, options.set, changes)


def score_all(config: Config, storage: str, names: Sequence[str]) -> pa.Table:
    """Train what is not trained, and have every ranker score all; the columns are those of `raynas rank`'s file."""
    folder = open_run(config, storage, None)
    plan = make_plan(config)
    for supernet in plan.supernets:
        _reuse(Folder(storage), folder, f"supernets/{supernet.id}")
    with Progress(Console(stderr=True)) as progress:
        run = pipeline.start(config, folder, None, progress)
        begin_run(folder, config, run.fingerprint)
        pipeline.train(run)
        table = pipeline.score(run, [plan.space.parse(name) for name in names])
    folder.write_table("ranked.parquet", table)
    return table


def _reuse(storage: Folder, run: Folder, supernet: str) -> None:
    """Copy a supernet that another run of the storage has trained already; its id says that it is the same."""
    if run.exists(f"{supernet}/state.json"):
        return
    for other in storage.names():
        if storage.exists(f"{other}/{supernet}/state.json"):
            names = (storage / other / supernet).names()
            for name in sorted(names, key=lambda name: name == "state.json"):  # last: it says that all is there
                run.write(f"{supernet}/{name}", storage.read(f"{other}/{supernet}/{name}"))
            return


def read_table(truth: Truth, most: int | None) -> tuple[list[str], NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """The architectures of a table, their accuracies, and its other columns; `most` of them, drawn at random."""
    table = pq.read_table(SHARED / truth.file)
    if most is not None and most < table.num_rows:
        table = table.take(np.sort(np.random.default_rng(0).permutation(table.num_rows)[:most]))
    kept = (truth.truth, truth.short, *truth.runs, *truth.baselines)
    columns = {name: table[name].to_numpy().astype(np.float64) for name in kept}
    return table[truth.key].to_pylist(), columns[truth.truth], columns


def figures(row: Mapping[str, float]) -> str:
    """A row of `measures`, under HEADER."""
    return f"{row['tau']:>8.3f}{row['rho']:>8.3f}{100 * row['top']:>8.1f}{row['best']:>13.2f}{row['regret']:>8.2f}"


def _record(
    options: argparse.Namespace, rows: Mapping[str, Mapping[str, float]], minutes: Mapping[str, float], count: int
) -> None:
    with RECORDS.open("a", encoding="utf-8") as records:
        for name, row in rows.items():
            told = " | ".join(
                [
                    f"{row['tau']:.3f}",
                    f"{row['rho']:.3f}",
                    f"{100 * row['top']:.1f}",
                    f"{row['best']:.2f}",
                    f"{row['regret']:.2f}",
                ]
            )
            records.write(
                f"| {options.record} | {options.space} | {name} | {minutes[name]:g} | {count} | {told} | "
                f"{machine()} | `{command()}` |\n"
            )


def command(values: int = 1) -> str:
    """What was asked for, without --record and its `values`."""
    asked = sys.argv[1:]
    if "--record" in asked:
        place = asked.index("--record")
        del asked[place : place + 1 + values]
    return shlex.join(asked)


def machine() -> str:
    """When and where a figure was measured."""
    date = datetime.datetime.now(tz=datetime.UTC).date()
    return f"{date} | {os.cpu_count()} cores, {platform.machine()}, torch {version('torch')}"


def each(minutes: Sequence[float], seeds: Sequence[int]) -> list[float]:
    """The minutes of each seed."""
    return list(minutes) * len(seeds) if len(minutes) == 1 else list(minutes)


def _pair(text: str) -> tuple[str, Any]:
    key, _, _ = text.partition("=")
    return key, tomllib.loads(text)[key]


def options_of(description: str | None, records: Path) -> argparse.ArgumentParser:
    """The options of a benchmark that trains supernets on a space of TRUTHS."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", choices=sorted(TRUTHS), default="nas_bench_201")
    parser.add_argument("--rule", default="fair")
    parser.add_argument("--rule-set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the rule")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0], help="one for all seeds, or one for each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="as of raynas search")
    parser.add_argument("--architectures", type=int, help="score so many, drawn at random; left out: all of the table")
    parser.add_argument("--storage", default="runs/ranking")
    parser.add_argument("--record", metavar="NAME", help=f"add rows of this name to records/{records.name}")
    return parser


def checked(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says; a mistake ends the program."""
    options = parser.parse_args()
    if len(options.minutes) not in (1, len(options.seeds)):
        parser.error("--minutes takes one number, or one for each of the --seeds")
    return options


if __name__ == "__main__":
    main()
