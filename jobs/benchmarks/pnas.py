"""How well PNAS's surrogate, fitted to cells of up to b blocks, ranks cells of one block more: Spearman's rho.

    python jobs/benchmarks/pnas.py --steps 4000 --seeds 0 1

Trains one supernet of growing cells for each seed on CIFAR-10 as a run of raynas, and has it score the cells of a block
and as many random ones of each larger size; the surrogate is that of the strategy `progressive`, which in a search is
fitted to the best of each size. The same command again continues.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import scipy

from jobs.benchmarks.ranking import SHARED, score_all
from raynas import seeds
from raynas.architecture import Architecture
from raynas.config import load
from raynas.mean_embedding import MeanEmbedding
from raynas.plan import make_plan
from raynas.rank_correlation import spearman_rho
from search_spaces import pnas_cell


def main() -> None:
    """Train, score, and print a line for each seed and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000, help="of the supernet's training, a path of 64 images each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--blocks", type=int, default=4, help="of the largest cells")
    parser.add_argument("--cells", type=int, default=136, help="of each size")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="as of raynas search")
    parser.add_argument("--storage", default="runs/pnas")
    options = parser.parse_args()
    config = load(None, options.set, _changes(options))
    plan, layout = make_plan(config), pnas_cell.Layout(options.blocks, True)
    rng = seeds.generator(0, "cells")
    drawn = {size: _cells(plan.space, size, options.cells, rng) for size in range(1, options.blocks + 1)}
    table = score_all(config, options.storage, [plan.space.print(one) for cells in drawn.values() for one in cells])
    for member in plan.members:
        score = dict(
            zip(
                (one for cells in drawn.values() for one in cells),
                table[plan.supernet(member.supernet).label].to_pylist(),
                strict=True,
            )
        )
        for size, cells in drawn.items():
            loss = -np.mean([score[one] for one in cells])
            told = f"{member.name}  {size} blocks  {len(cells)} cells, mean loss {loss:.3f}"
            if size > 1:
                known = [one for smaller in range(1, size) for one in drawn[smaller]]
                values_A = (scipy.stats.rankdata([score[one] for one in known]) - 0.5) / len(known)
                surrogate = MeanEmbedding([max(len(block.choices) for block in plan.space.blocks)] * 2)
                surrogate.fit([layout.split(one) for one in known], values_A, seeds.generator(0, "surrogate"))
                predicted_A = surrogate.predict([layout.split(one) for one in cells])
                told += f"; rho {spearman_rho(predicted_A, [score[one] for one in cells]):.3f}, fitted to {len(known)}"
            print(told, flush=True)


def _cells(space: Any, size: int, count: int, rng: np.random.Generator) -> list[Architecture]:
    """So many distinct networks of a size; of one block there are not more than 136."""
    found: dict[Architecture, None] = {}
    for _ in range(50 * count):
        found.setdefault(space.canonicalise((size - 1, *space.sample(rng)[1:])))
        if len(found) == count:
            break
    return list(found)


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    settings = {"growing": True, "blocks": options.blocks, "filters": 16, "repeats": 1}
    return {
        "space": {"name": "search_spaces.pnas_cell", "settings": settings},
        "data": {
            "name": f"parquet:{SHARED / 'cifar10'}",
            "resolution": 16,
            "validation_fraction": 0.1,
            "crop_padding": 0,
            "flip": True,
        },
        "training.batch_size": 64,
        "training.steps": options.steps,
        "training.checkpoint_every_s": 120.0,
        "evaluation.images": 1000,
        "evaluation.batch_size": 500,
        "search.random_baseline": False,
        "members": [{"method": "pnas", "name": f"seed_{seed}", "supernet_seed": seed} for seed in options.seeds],
    }


if __name__ == "__main__":
    main()
