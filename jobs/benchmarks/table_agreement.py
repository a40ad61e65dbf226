"""How well a ranking that `raynas rank --architectures` wrote agrees with a ground-truth table.

    python jobs/benchmarks/table_agreement.py RANKED.parquet TABLE.parquet --key arch_str --truth c10_test_200

Prints Kendall's tau-b with its bootstrap interval, Spearman's rho and P@5 % of every ranker and of the consensus; with
--baseline COLUMN also those of a column of the table, e.g. the parameters.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow.parquet as pq

from raynas.rank_correlation import bootstrap_interval, kendall_tau_b, precision_at_top, spearman_rho

NOT_RANKERS = ("architecture", "name")


def main() -> None:
    """Print one line per ranker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ranked")
    parser.add_argument("table")
    parser.add_argument("--key", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--baseline", action="append", default=[])
    options = parser.parse_args()
    ranked = pq.read_table(options.ranked)
    table = pq.read_table(options.table).to_pydict()
    row_of = {key: row for row, key in enumerate(table[options.key])}
    rows = [row_of[name] for name in ranked["name"].to_pylist()]
    truth_A = np.array(table[options.truth], dtype=np.float64)[rows]
    scores = {name: ranked[name].to_numpy() for name in ranked.column_names if name not in NOT_RANKERS}
    scores |= {name: np.array(table[name], dtype=np.float64)[rows] for name in options.baseline}
    print(f"{'ranker':<16} tau-b [95 % interval]     rho     P@5 %   n = {len(rows)}")
    for name, score_A in scores.items():
        low, high = bootstrap_interval(kendall_tau_b, score_A, truth_A, seed=0)
        tau, rho = kendall_tau_b(score_A, truth_A), spearman_rho(score_A, truth_A)
        top = precision_at_top(score_A, truth_A, 0.05)
        print(f"{name:<16} {tau:.3f} [{low:.3f}, {high:.3f}]   {rho:.3f}   {top:.2f}")


if __name__ == "__main__":
    main()
