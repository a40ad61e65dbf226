"""How well each proxy ranks NAS-Bench-201, beside what was published: tau-b against CIFAR-10 test accuracies.

    python jobs/benchmarks/proxies.py --architectures 1000

Scores cells drawn at random from the benchmark's keys, at its own width and depth, on one batch of CIFAR-10 training
images, in this process. Published figures are of two kinds: ZiCo's table is of all 15,625 keys; the reproduction in
VKDNW's repository is of the 9,445 whose every operation lies between the input and the output. Scores are kept in
--scores, and the same command again continues. --record writes the table to records/proxies.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.progress import track
from scipy.stats import rankdata

from raynas import device
from raynas.architecture import Architecture, encode
from raynas.config import DataSettings
from raynas.data import load, split
from raynas.members import members
from raynas.proxy_evaluator import ProxyEvaluator
from raynas.rank_correlation import bootstrap_interval, kendall_tau_b
from raynas.supernet import seeded
from search_spaces.nas_bench_201 import EDGES, NONE, SPACE, supernet

SHARED = Path(__file__).parents[3] / "shared/data"
RECORDS = Path(__file__).parent / "records/proxies.md"

TRUTH = "c10_test_200"
ZICO = "ZiCo (ICLR23) table 3"
ZICO_NAMES = {"parameters": "params", "macs": "flops"}
VKDNW = {
    "macs": 0.623,
    "grad_norm": 0.328,
    "snip": 0.431,
    "synflow": 0.561,
    "jacob_cov": 0.616,
    "naswot": 0.571,
    "zen": 0.102,
    "zico": 0.607,
    "az_nas": 0.712,
    "trainable_layers": 0.626,
}
AZ_NAS = ("expressivity", "progressivity", "trainability", "complexity")


def main() -> None:
    """Score what is not scored yet, and print the table."""
    options = _options()
    table = pq.read_table(SHARED / "nb201_cifar10.parquet", columns=["arch_str", TRUTH])
    rows = np.sort(np.random.default_rng(0).permutation(table.num_rows)[: options.architectures])
    table = table.take(rows)
    architectures = [SPACE.parse(name) for name in table["arch_str"].to_pylist()]
    truth_A = table[TRUTH].to_numpy()
    scores, seconds = _scores(options, architectures)
    if set(AZ_NAS) <= scores.keys():
        scores["az_nas"] = az_nas([scores[name] for name in AZ_NAS])
        seconds["az_nas"] = sum(seconds[name] for name in AZ_NAS)
    lines = _table(scores, seconds, truth_A, np.array([_whole(one) for one in architectures]))
    print("\n".join(lines))
    if options.record:
        command = shlex.join(part for part in sys.argv[1:] if part != "--record")
        facts = f"{datetime.datetime.now(tz=datetime.UTC).date()}, {os.cpu_count()} cores, {platform.machine()}"
        with RECORDS.open("a", encoding="utf-8") as records:
            records.write(f"\n## `{command}` ({facts}, torch {version('torch')})\n\n" + "\n".join(lines) + "\n")


def az_nas(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """AZ-NAS's own aggregation of its four parts, each (A,): the sum of log(rank / A), 1 being the worst rank."""
    summed_A: NDArray[np.float64] = np.sum([np.log(rankdata(part_A) / len(part_A)) for part_A in parts], axis=0)
    return summed_A


def _whole(architecture: Architecture) -> bool:
    """Whether every operation of a cell gets something of its input and has a say in its output."""
    edges = [edge for edge, choice in zip(EDGES, architecture, strict=True) if choice != NONE]
    reached, heard = {0}, {3}
    for source, target in edges:  # in the order of their targets
        reached |= {target} if source in reached else set()
    for source, target in sorted(edges, reverse=True):
        heard |= {source} if target in heard else set()
    return all(source in reached and target in heard for source, target in edges)


def _scores(
    options: argparse.Namespace, architectures: Sequence[Architecture]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """Each proxy's scores (A,), NaN where it has none, and its mean CPU seconds; both taken up from the file."""
    path = Path(options.scores)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {(one["proxy"], one["architecture"]): one for one in lines}
    wanted = [(name, one) for one in architectures for name in options.proxies if (name, encode(one)) not in known]
    evaluators = _evaluators(options) if wanted else {}
    with path.open("a") as file:
        for name, architecture in track(wanted, description="scoring"):
            begin = time.process_time()
            evaluation = evaluators[name].measure(architecture)
            line = {
                "proxy": name,
                "architecture": encode(architecture),
                "score": -evaluation.objectives[0] if evaluation.objectives else None,
                "failure": evaluation.failure,
                "seconds": time.process_time() - begin,
            }
            known[name, encode(architecture)] = line
            print(json.dumps(line), file=file, flush=True)
    found = {name: [known[name, encode(one)] for one in architectures] for name in options.proxies}
    return (
        {name: np.array([one["score"] for one in ones], dtype=np.float64) for name, ones in found.items()},
        {name: float(np.mean([one["seconds"] for one in ones])) for name, ones in found.items()},
    )


def _evaluators(options: argparse.Namespace) -> dict[str, ProxyEvaluator]:
    """An evaluator of each proxy, for keys as they are: dead operations count, as in the papers."""
    place = device.prepare(1)
    dataset = load(f"parquet:{SHARED / 'cifar10'}")
    channels, resolution, _ = dataset.image_shape_CHW
    settings = {"in_channels": channels, "classes": dataset.classes, "resolution": resolution}
    images = split(dataset, 0.1, options.seed)
    return {
        name: ProxyEvaluator(
            proxy=name,
            supernet=seeded(supernet, options.seed, **settings),
            canonicalise=SPACE.canonicalise if options.canonical else lambda architecture: architecture,
            split=images,
            data=DataSettings(),
            images=options.images,
            seed=options.seed,
            device=place,
        )
        for name in options.proxies
    }


def _table(
    scores: Mapping[str, NDArray[np.float64]],
    seconds: Mapping[str, float],
    truth_A: NDArray[np.float64],
    whole_A: NDArray[np.bool_],
) -> list[str]:
    """The lines of a table in Markdown."""
    published = {
        one["proxy"]: one["value"]
        for one in pq.read_table(SHARED / "published_proxy_correlations.parquet").to_pylist()
        if (one["source"], one["space"], one["dataset"], one["metric"]) == (ZICO, "NB201", "CIFAR-10", "kendall")
    }
    lines = [
        f"| proxy | tau-b, n = {len(truth_A)} of all keys | published | tau-b, n = {whole_A.sum()} without dead "
        "operations | published | s of a core |",
        "|---|---|---|---|---|---|",
    ]
    for name, score_A in scores.items():
        every = _tau(score_A, truth_A, published.get(ZICO_NAMES.get(name, name)))
        whole = _tau(score_A[whole_A], truth_A[whole_A], VKDNW.get(name))
        lines.append(f"| `{name}` | {every} | {whole} | {seconds[name]:.2f} |")
    return lines


def _tau(score_A: NDArray[np.float64], truth_A: NDArray[np.float64], published: float | None) -> str:
    low, high = bootstrap_interval(kendall_tau_b, score_A, truth_A, seed=0)
    told = "–" if published is None else f"{published:.3f}"
    return f"{kendall_tau_b(score_A, truth_A):.3f} [{low:.3f}, {high:.3f}] | {told}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = members("raynas.proxies")
    parser.add_argument("--architectures", type=int, default=1000, help="score so many, drawn at random")
    parser.add_argument("--proxies", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the images and what proxies draw")
    parser.add_argument("--canonical", action="store_true", help="score canonical forms, as a run does")
    parser.add_argument("--scores", default="runs/proxies.jsonl", help="where scores of these settings are kept")
    parser.add_argument("--record", action="store_true", help="add the table to records/proxies.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
