"""How much of a table's front of accuracy against a cost each member of a table search found.

    raynas search --table TABLE.parquet --method netadapt --method nsga2 --repeats 50 --set table.cost=flops ...
    python jobs/benchmarks/trade_off.py table_search.parquet TABLE.parquet --truth c10_test_90 --cost flops

For each of 50 limits, the quantiles of the table's costs from 2 % on, it takes what the best that a search evaluated
within the limit lacks to the best of the table within it. Prints the mean over limits of each member, and the standard
error over seeds. The reward of the search has to be the truth.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

LIMITS = np.linspace(0.02, 1, 50)


def main() -> None:
    """Print one line per member."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searched")
    parser.add_argument("table")
    for name in ("truth", "cost"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    table = pq.read_table(options.table, columns=[options.truth, options.cost])
    truth_A, costs_A = (table[name].to_numpy().astype(np.float64) for name in (options.truth, options.cost))
    limits, lowest = np.quantile(costs_A, LIMITS), truth_A.min()
    best = best_within(limits, truth_A, costs_A, lowest)
    searches: dict[tuple[str, int], list[tuple[float, float]]] = {}
    columns = pq.read_table(options.searched, columns=["method", "seed", "reward", "cost"]).to_pydict()
    for method, seed, reward, cost in zip(*columns.values(), strict=True):
        searches.setdefault((method, seed), []).append((reward, cost))
    for method in dict.fromkeys(method for method, _ in searches):
        missed = []
        for found in (found for (name, _), found in searches.items() if name == method):
            rewards_A, spent_A = np.array(found).T
            missed.append(float(np.mean(best - best_within(limits, rewards_A, spent_A, lowest))))
        error = np.std(missed, ddof=1) / np.sqrt(len(missed)) if len(missed) > 1 else float("nan")
        print(f"{method:<24} {np.mean(missed):.3f} ± {error:.3f}   n = {len(missed)}")


def best_within(
    limits: NDArray[np.float64], truth_A: NDArray[np.float64], costs_A: NDArray[np.float64], lowest: float
) -> NDArray[np.float64]:
    """The highest truth of these architectures within each limit; `lowest` where none of them keeps it."""
    ordered = np.argsort(costs_A, kind="stable")
    highest = np.append(lowest, np.maximum.accumulate(truth_A[ordered]))
    return highest[np.searchsorted(costs_A[ordered], limits, side="right")]


if __name__ == "__main__":
    main()
