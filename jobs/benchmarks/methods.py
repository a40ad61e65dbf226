"""What the methods that learn an architecture find on NAS-Bench-201 with CIFAR-10: its accuracy in the table.

    python jobs/benchmarks/methods.py --methods darts1 snas --minutes 5 --seeds 0 1

Trains the supernets of all methods and seeds as one run of raynas, half of the training images being for validation,
and looks up what each derives. Minutes are those of two idle cores, counted in training steps as in ranking.py. The
same command again continues. --record adds the lines to records/methods.md.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from jobs.benchmarks.ranking import SHARED, TRUTHS, command, machine, paths_per_step
from raynas.config import Config, load
from raynas.distributed import pipeline
from raynas.members import load_member
from raynas.plan import build_strategy, load_method, make_plan, state_file
from raynas.progress import Progress
from raynas.run import begin_run, open_run
from raynas.storage import Folder
from search_spaces.nas_bench_201 import SKIP, SPACE

RECORDS = Path(__file__).parent / "records/methods.md"
TRUTH = TRUTHS["nas_bench_201"]
BATCH = 64
METHODS: dict[str, dict[str, Any]] = {
    "darts1": {"alpha_learning_rate": 3e-3},
    "darts2": {"alpha_learning_rate": 3e-3},
    "darts_pt": {"alpha_learning_rate": 3e-3},
    "blank_pt": {},
    "snas": {},
    "parsec": {"samples": 8},
    "manas": {},
    "manas_ls": {},
}
"""With the settings of their rules; DARTS's learning rate of alpha is for ten times as many steps."""


def main() -> None:
    """Train, derive, look up, and print a line for each method and seed."""
    options = _options()
    config = _config(options)
    folder = open_run(config, options.storage, None)
    with Progress(Console(stderr=True)) as progress:
        run = pipeline.start(config, folder, None, progress)
        begin_run(folder, config, run.fingerprint)
        pipeline.train(run)
    lines = _lines(config, folder)
    print(f"columns: see the head of records/{RECORDS.name}")
    print("\n".join(lines))
    if options.record:
        with RECORDS.open("a", encoding="utf-8") as records:
            records.write("\n".join(lines) + "\n")


def _config(options: argparse.Namespace) -> Config:
    members = []
    for method in options.methods:
        settings, rule = METHODS[method], load_method(method).training_rule
        step_s = TRUTH.path_s * BATCH / 128 * paths_per_step(rule, settings, SPACE)
        members += [
            {
                "method": method,
                "name": f"{method}_{seed}",
                "rule_settings": settings,
                "supernet_seed": seed,
                "training": {"steps": math.ceil(60 * options.minutes / step_s)},
            }
            for seed in options.seeds
        ]
    changes = {
        "space": {"name": "search_spaces.nas_bench_201", "settings": dict(TRUTH.settings)},
        "data": {
            "name": f"parquet:{SHARED / 'cifar10'}",
            "resolution": 16,
            "validation_fraction": 0.5,
            "crop_padding": 2,
            "flip": True,
        },
        "training.batch_size": BATCH,
        "training.checkpoint_every_s": 120.0,
        "search.random_baseline": False,
        "members": members,
    }
    return load(None, options.set, changes)


def _lines(config: Config, folder: Folder) -> list[str]:
    """A row of Markdown for each member."""
    table = pq.read_table(SHARED / TRUTH.file, columns=[TRUTH.key, TRUTH.truth])
    accuracy = dict(zip(table[TRUTH.key].to_pylist(), table[TRUTH.truth].to_pylist(), strict=True))
    every_A = np.array(list(accuracy.values()))
    plan, found = make_plan(config), []
    for member in plan.members:
        place = f"supernets/{member.supernet}"
        state = folder.read_json(state_file(member.supernet))
        curves = folder.read_table(f"{place}/curves.parquet").to_pydict()
        learnt = [np.array(of_block) for of_block in state["probabilities"]]
        if member.derivation:
            derived = load_member("raynas.derivations", member.derivation)(learnt)
        else:
            (derived,) = build_strategy(member, plan.space, learnt).ask(1)
        name = SPACE.print(derived)
        reached = accuracy[name]
        method, _, seed = member.name.rpartition("_")
        found.append(
            f"| {method} | {seed} | {state['steps']:,} | {sum(curves['seconds']) / 60:.1f} | `{name}` | "
            f"{sum(choice == SKIP for choice in derived)} | {reached:.2f} | {100 * np.mean(every_A < reached):.0f} | "
            f"{machine()} | `{command(values=0)}` |"
        )
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="as of raynas search")
    parser.add_argument("--storage", default="runs/methods")
    parser.add_argument("--record", action="store_true", help="add the lines to records/methods.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
