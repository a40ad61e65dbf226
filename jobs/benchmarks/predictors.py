"""How well predictors rank a space whose truth is known, and what they add to the consensus.

    python jobs/benchmarks/predictors.py --space nas_bench_201 --scores runs/ranking/RUN/ranked.parquet

RUN is what jobs/benchmarks/consensus.py leaves: the scores of one supernet, and of proxies, of the architectures of a
table. A predictor is fitted to the supernet's scores and asked for the same architectures, as in a run. Of all of them
the figures have the 95 % interval of a bootstrap over architectures; of random samples (--measured) the mean and the
standard deviation over --draws. `calibrated`: the consensus is told the true accuracies of 24 of each sample, which are
left out of its figures. --record adds the tables to records/predictors.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jobs.benchmarks.ranking import TRUTHS, command, machine, read_table
from raynas import seeds
from raynas.aggregators.borda import borda
from raynas.aggregators.reliability import reliability
from raynas.architecture import Architecture
from raynas.config import SpaceSettings
from raynas.evaluation import ALONE, PREDICTOR
from raynas.members import load_member, members
from raynas.plan import load_space
from raynas.prediction import predictions
from raynas.rank_correlation import bootstrap_interval, kendall_tau_b
from raynas.selector import consensus
from raynas.space import SearchSpace

RECORDS = Path(__file__).parent / "records/predictors.md"
CALIBRATED = 24
RESAMPLES = 200


def main() -> None:
    """Print a table of all architectures, and one of samples of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", choices=sorted(TRUTHS), default="nas_bench_201")
    parser.add_argument("--scores", required=True, help="a Parquet file of `raynas rank --architectures`")
    parser.add_argument("--measured", type=int, nargs="*", default=[200], help="sizes of the samples")
    parser.add_argument("--draws", type=int, default=6, help="samples of each size")
    parser.add_argument("--record", metavar="NAME", help=f"add the tables to records/{RECORDS.name}")
    options = parser.parse_args()
    space = load_space(SpaceSettings(name=f"search_spaces.{options.space}"))
    table = pq.read_table(options.scores)
    networks = [space.canonicalise(space.parse(name)) for name in table["architecture"].to_pylist()]
    names, accuracy, _ = read_table(TRUTHS[options.space], None)
    truth = dict(zip([space.parse(name) for name in names], accuracy.tolist(), strict=True))
    truth_A = np.array([truth[space.parse(name)] for name in table["architecture"].to_pylist()])
    rankers = [name for name in table.column_names if name not in ("architecture", "name", "consensus")]
    rankers.sort(key=lambda name: name.startswith((*ALONE, PREDICTOR)))  # the supernet first
    scores_RA = np.array([table[name].to_numpy() for name in rankers if not name.startswith(PREDICTOR)])
    tables = [f"of all {len(networks)}, {len(set(networks))} networks; {len(scores_RA)} rankers\n"]
    tables[0] += "\n".join(["", *_all(space, networks, scores_RA, truth_A)])
    print(tables[0])
    for size in options.measured:
        samples = [seeds.generator(draw, "sample").permutation(len(networks))[:size] for draw in range(options.draws)]
        lines = _samples(space, networks, scores_RA, truth_A, samples)
        tables.append("\n".join([f"of {size} at random, {options.draws} draws", "", *lines]))
        print("", tables[-1], sep="\n")
    if options.record:
        with RECORDS.open("a", encoding="utf-8") as records:
            records.write(f"\n## {options.record}\n\n`{command()}`; {machine()}\n\n" + "\n\n".join(tables) + "\n")


def columns(
    space: SearchSpace, networks: Sequence[Architecture], score_A: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """What each predictor says of networks whose scores are these."""
    found = {name: load_member("raynas.predictors", name) for name in members("raynas.predictors")}
    measured = dict(zip(networks, score_A.tolist(), strict=True))
    return predictions(found, space, [measured], networks, seed=0)


def _all(
    space: SearchSpace,
    networks: list[Architecture],
    scores_RA: NDArray[np.float64],
    truth_A: NDArray[np.float64],
) -> list[str]:
    told = columns(space, networks, scores_RA[0])
    merged = [consensus(networks, scores_RA, one) for one in (reliability, borda)]
    lines = [
        "| ranker | tau-b alone | less the supernet's | `reliability` with it | less without | `borda` with it |",
        "|---|---|---|---|---|---|",
        f"| the supernet | {_tau(scores_RA[0], truth_A)} | – | {_tau(merged[0], truth_A)} (without predictors) | – | "
        f"{_tau(merged[1], truth_A)} (without predictors) |",
    ]
    for name, column_A in {**told, "all three": None}.items():
        added_RA = np.array([*told.values()]) if column_A is None else column_A[None]
        with_it = [consensus(networks, np.vstack([scores_RA, added_RA]), one) for one in (reliability, borda)]
        alone = "– | –" if column_A is None else f"{_tau(column_A, truth_A)} | {_lead(column_A, scores_RA[0], truth_A)}"
        lines.append(
            f"| {name} | {alone} | {_tau(with_it[0], truth_A)} | {_lead(with_it[0], merged[0], truth_A)} | "
            f"{_tau(with_it[1], truth_A)} |"
        )
    return lines


def _samples(
    space: SearchSpace,
    networks: list[Architecture],
    scores_RA: NDArray[np.float64],
    truth_A: NDArray[np.float64],
    samples: Sequence[NDArray[np.int64]],
) -> list[str]:
    found: dict[str, list[list[float]]] = {}
    for rows in samples:
        some, own_RA, own_A = [networks[row] for row in rows], scores_RA[:, rows], truth_A[rows]
        known_A = np.where(np.arange(len(rows)) < CALIBRATED, own_A, np.nan)
        for name, column_A in {"the supernet": None, **columns(space, some, own_RA[0])}.items():
            with_RA = own_RA if column_A is None else np.vstack([own_RA, column_A])
            calibrated_A = consensus(some, with_RA, reliability, known_A)[CALIBRATED:]
            found.setdefault(name, []).append(
                [
                    kendall_tau_b(own_RA[0] if column_A is None else column_A, own_A),
                    kendall_tau_b(consensus(some, with_RA, reliability), own_A),
                    kendall_tau_b(calibrated_A, own_A[CALIBRATED:]),
                ]
            )
    without = np.array(found["the supernet"])
    lines = [
        "| ranker | tau-b alone | less the supernet's | `reliability` with it | less without | calibrated | less |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, values in found.items():
        cells = [
            f"{_spread(of_one)} | {'–' if name == 'the supernet' else _spread(less)}"
            for of_one, less in zip(np.array(values).T, (np.array(values) - without).T, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _tau(score_A: NDArray[np.float64], truth_A: NDArray[np.float64]) -> str:
    return f"{kendall_tau_b(score_A, truth_A):.3f}"


def _lead(one_A: NDArray[np.float64], other_A: NDArray[np.float64], truth_A: NDArray[np.float64]) -> str:
    """By how much the first's tau exceeds the second's."""

    def lead(one: NDArray[np.float64], other: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
        return kendall_tau_b(one, truth) - kendall_tau_b(other, truth)

    low, high = bootstrap_interval(lead, one_A, other_A, truth_A, seed=0, resamples=RESAMPLES)
    return f"{lead(one_A, other_A, truth_A):+.3f} [{low:+.3f}, {high:+.3f}]"


def _spread(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


if __name__ == "__main__":
    main()
