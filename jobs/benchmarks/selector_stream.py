"""What the selector and the pool bear: evaluations of many members that stream through, and the ranking of many.

    python jobs/benchmarks/selector_stream.py --evaluations 100000 --members 1000

Members submit batches of distinct networks of a large space, from --callers processes at once. Prints evaluations per
second, the memory that the selector has gained, evaluations per second that the evaluator pool hands to workers which
answer at once and back, and the seconds in which 100,000 candidates of 12 rankers are ranked, one score in ten missing,
with and without calibration.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from types import SimpleNamespace

import numpy as np
import ray

from raynas import seeds
from raynas.architecture import Architecture
from raynas.config import check
from raynas.distributed.cluster import connect
from raynas.distributed.evaluator_pool import EvaluatorPool
from raynas.distributed.selector_actor import Selector
from raynas.evaluation import Evaluation
from raynas.members import load_member
from raynas.plan import Plan, load_space, make_plan
from raynas.selector import rank
from raynas.storage import Folder

SPACE = {"name": "search_spaces.mobilenet_chain"}
RANKERS = 12
CALIBRATED = 24


class Measured(Selector):
    """The selector, and what it takes of memory."""

    def cpu_s(self) -> float:
        """Seconds of CPU that its process has taken."""
        return time.process_time()

    def mebibytes(self) -> float:
        """The largest resident size of its process so far."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Instant:
    """A worker that has every score at once."""

    def ready(self) -> None:
        """It is."""

    def evaluate(
        self, supernet: str, weights: list[ray.ObjectRef], architectures: list[Architecture], costs: dict[str, float]
    ) -> list[Evaluation]:
        """The same for all."""
        return [Evaluation(one, (1.0, 0.5, 1e6, 1e6)) for one in architectures]


class InstantPool(EvaluatorPool):
    """The pool with such workers; it needs no weights."""

    async def cpu_s(self) -> float:
        """Seconds of CPU that its process has taken."""
        return time.process_time()

    def _hire(self) -> ray.actor.ActorHandle:
        return ray.remote(Instant).options(num_cpus=0).remote()

    async def _joined(self, supernet: str) -> None:
        return None

    async def _weights(self, supernet: str) -> list[ray.ObjectRef]:
        return []


class Caller:
    """Submits for some of the members, in turn."""

    def __init__(self, plan: Plan, members: list[str], evaluations: int, batch: int, seed: int) -> None:
        rng = seeds.generator(seed, "stream")
        drawn = [plan.space.sample(rng) for _ in range(evaluations * len(members))]
        ones = [Evaluation(one, (1.0, 0.5, 1e6, 1e6)) for one in drawn]
        share = {member: ones[m :: len(members)] for m, member in enumerate(members)}
        self.batches = [
            (member, end, share[member][end - batch : end])
            for end in range(batch, evaluations + 1, batch)
            for member in members
        ]

    def ready(self) -> int:
        """How many evaluations it will submit."""
        return sum(len(batch) for _, _, batch in self.batches)

    def submit(self, selector: ray.actor.ActorHandle) -> None:
        """Submit all, and wait until the selector has taken them."""
        ray.get([selector.submit.remote(*batch) for batch in self.batches])

    def evaluate(self, pool: ray.actor.ActorHandle) -> None:
        """Have all scored, with a batch of every member on the way at once."""
        ray.get([pool.evaluate.remote("supernet", [one.architecture for one in batch]) for _, _, batch in self.batches])


def main() -> None:
    """Stream, rank, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=1_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4, help="of the evaluator pool")
    options = parser.parse_args()
    _stream(options)
    _rank()


def _stream(options: argparse.Namespace) -> None:
    names = [f"member_{n}" for n in range(options.members)]
    plan = make_plan(check({"space": SPACE, "members": [{"method": "random_search"}]}))
    connect(None)
    with tempfile.TemporaryDirectory() as place:
        selector = ray.remote(Measured).options(num_cpus=0).remote(plan, Folder(place))
        each = options.evaluations // options.members
        callers = [
            ray.remote(Caller).options(num_cpus=0).remote(plan, names[c :: options.callers], each, options.batch, c)
            for c in range(options.callers)
        ]
        total = sum(ray.get([caller.ready.remote() for caller in callers]))
        before, before_s = ray.get(selector.mebibytes.remote()), ray.get(selector.cpu_s.remote())
        began = time.perf_counter()
        ray.get([caller.submit.remote(selector) for caller in callers])
        rate, taken_s = total / (time.perf_counter() - began), ray.get(selector.cpu_s.remote()) - before_s
        gained = ray.get(selector.mebibytes.remote()) - before
        known = ray.get(selector.standing.remote())["networks"]
        places = SimpleNamespace(bundle_count=options.workers)  # its workers need none
        pool = (
            ray.remote(InstantPool)
            .options(num_cpus=0, max_concurrency=len(names))
            .remote(plan.config, b"", Folder(place), places)
        )
        before_s, began = ray.get(pool.cpu_s.remote()), time.perf_counter()
        ray.get([caller.evaluate.remote(pool) for caller in callers])
        pooled, cpu_s = total / (time.perf_counter() - began), ray.get(pool.cpu_s.remote()) - before_s
    print(
        f"{total:,} evaluations of {options.members:,} members in batches of {options.batch}: {rate:,.0f} a second; "
        f"{total / taken_s:,.0f} for each CPU second of the selector's process"
    )
    print(f"{known:,} networks known; the selector has gained {gained:.0f} MiB")
    print(
        f"through the pool and {options.workers} workers that answer at once: {pooled:,.0f} a second; "
        f"{total / cpu_s:,.0f} for each CPU second of the pool's process"
    )


def _rank() -> None:
    rng = seeds.generator(0, "ranking")
    space = load_space(check({"space": SPACE}).space)
    candidates: dict[Architecture, None] = {}
    while len(candidates) < 100_000:
        candidates[space.canonicalise(space.sample(rng))] = None
    networks = list(candidates)
    truth_A = rng.normal(size=len(networks))
    scores_RA = truth_A + rng.normal(size=(RANKERS, len(networks)))
    scores_RA[rng.random(scores_RA.shape) < 0.1] = np.nan
    scores = {f"ranker_{r}": row.tolist() for r, row in enumerate(scores_RA)}
    costs = {"macs": rng.random(len(networks)).tolist()}
    accuracies = {networks[a]: float(truth_A[a]) for a in rng.permutation(len(networks))[:CALIBRATED]}
    for aggregator, known in (("kemeny", None), ("reliability", None), ("reliability", accuracies)):
        began = time.perf_counter()
        rule = load_member("raynas.aggregators", aggregator)
        rank(networks, scores, costs, aggregator=rule, finalists=3, cost="macs", seed=0, accuracies=known)
        told = f", {CALIBRATED} calibrated" if known else ""
        print(f"{len(networks):,} by {RANKERS}, {aggregator}{told}: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
