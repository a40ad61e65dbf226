"""How well FLASH's cost models, fitted to 25 networks, tell the costs of 25 others; and how long its search then takes.

    python jobs/benchmarks/flash.py --seeds 3

The default networks of `width_depth`, untrained, for images of 32x32, on one thread; the costs are those of
raynas.costs. The 25 networks are those of the strategy's start; the others are drawn the same way. Prints for each cost
the median and largest relative error and Kendall's tau; then the seconds from what was told to the architecture that is
asked for next, without a limit and under the median cost as one. Its errors are made up from NN-Degree.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
import torch

from raynas.architecture import Architecture
from raynas.costs.latency_ms import latency_ms
from raynas.costs.macs import macs
from raynas.costs.parameters import parameters
from raynas.evaluation import Evaluation
from raynas.nn_degree import cost_features, degree, fit_cost
from raynas.rank_correlation import kendall_tau_b
from raynas.strategies.shgo import Shgo
from raynas.supernet import seeded
from search_spaces.width_depth import SPACE, supernet


def main() -> None:
    """Print one line per seed and cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    torch.set_num_threads(1)
    for seed in range(parser.parse_args().seeds):
        network = seeded(supernet, seed, in_channels=3, classes=10, resolution=32).eval()
        networks = Shgo(SPACE, seed=seed).ask(25) + Shgo(SPACE, seed=seed + 1000).ask(25)
        for cost in (parameters, macs, latency_ms):
            measure_seed(seed, cost.__name__, networks, cost(network, (3, 32, 32)))


def measure_seed(seed: int, name: str, networks: list[Architecture], predict: Callable[[Architecture], float]) -> None:
    """Print how well one cost is told, and how long two searches take."""
    assert SPACE.cells is not None
    cells = [SPACE.cells(one) for one in networks]
    features_AF = np.array([cost_features(one) for one in cells])
    costs_A = np.array([predict(SPACE.canonicalise(one)) for one in networks])
    found_A = (features_AF @ fit_cost(features_AF[:25], costs_A[:25]))[25:]
    error_A = np.abs(found_A / costs_A[25:] - 1)
    tau = kendall_tau_b(found_A, costs_A[25:])
    taken = []
    for limit in (math.inf, float(np.median(costs_A))):
        strategy = Shgo(SPACE, seed=seed, limits=(math.inf, limit))
        errors = [1 - 1 / (degree(one) ** -0.5 + 1) for one in cells]
        strategy.tell(
            [Evaluation(*told) for told in zip(networks, zip(errors, costs_A.tolist(), strict=True), strict=True)]
        )
        start = time.perf_counter()
        strategy.ask(1)
        taken.append(time.perf_counter() - start)
    print(
        f"seed {seed}  {name:<10}  error: median {np.median(error_A):.1%}, largest {error_A.max():.1%}  tau {tau:.3f}  "
        f"search: {taken[0]:.2f} s without a limit, {taken[1]:.2f} s under one",
        flush=True,
    )


if __name__ == "__main__":
    main()
