"""What Tune, the record and the selector cost per evaluation: a population whose evaluators answer at once.

    python jobs/benchmarks/population_overhead.py --members 4 --evaluations 2000

The pool is replaced by an actor that answers with constants; everything else is what a search runs. Prints milliseconds
per evaluation, and what share of it is the selector's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence

import ray

from raynas.architecture import Architecture
from raynas.config import check
from raynas.distributed.cluster import connect
from raynas.distributed.population import run_population
from raynas.distributed.selector_actor import start_selector
from raynas.evaluation import Evaluation
from raynas.plan import make_plan, state_file
from raynas.storage import Folder


class FreePool:
    """Answers as the evaluator pool would, without scoring."""

    def evaluate(self, supernet: str, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """One constant evaluation per architecture."""
        return [Evaluation(one, (1.0, 0.5, 1e6, 1e6)) for one in architectures]


def main() -> None:
    """Print what one evaluation costs besides its score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    config = check(
        {
            "members": [{"method": "random_search", "name": f"random_{n}"} for n in range(options.members)],
            "search": {"evaluations": options.evaluations, "batch_size": options.batch},
        }
    )
    plan = make_plan(config)
    connect(None)
    with tempfile.TemporaryDirectory() as place:
        run = Folder(place)
        for one in plan.supernets:
            run.write_json(state_file(one.id), {"failure": None, "probabilities": None})
        pool = ray.remote(FreePool).options(num_cpus=0).remote()
        selector = start_selector(plan, run)
        ray.get(selector.standing.remote())
        batches: dict[str, float] = {}
        began = time.perf_counter()
        first = 0.0

        def report(task: str, done: float, facts: dict[str, float]) -> None:
            nonlocal first
            first = first or time.perf_counter()
            batches[task] = done

        run_population(plan, run, pool, selector, report)
        ended = time.perf_counter()
        total = sum(batches.values())
        print(f"{options.members} members, {total:,.0f} evaluations in batches of {options.batch}")
        print(f"trials start within {first - began:.1f} s; then {1e3 * (ended - first) / total:.2f} ms per evaluation")
        batch = [Evaluation((n % 5,) * 6, (1.0, 0.5, 1e6, 1e6)) for n in range(options.batch)]
        calls, began = 2000, time.perf_counter()
        ray.get([selector.submit.remote("extra", n * options.batch, batch) for n in range(1, calls + 1)])
        rate = calls * options.batch / (time.perf_counter() - began)
        print(f"the selector takes {rate:,.0f} evaluations/s, {1e3 / rate:.3f} ms each")


if __name__ == "__main__":
    main()
