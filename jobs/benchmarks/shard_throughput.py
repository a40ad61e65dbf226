"""Images per second of the `uniform` step in a shard, against the same step in a bare loop in one process.

    python jobs/benchmarks/shard_throughput.py --data parquet:../shared/data/cifar10

Both train NAS-Bench-201 (C=16, N=1, batch 128) on the same batches and paths with one thread, in turn, A B A B ...;
what is quoted is the median of the ratios of neighbours, since a busy machine drifts.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import ray

from jobs.benchmarks.training_step import BareLoop, Call, make_trainer, spread
from raynas import device as devices
from raynas import seeds
from raynas.config import LOGS, check
from raynas.data import load
from raynas.distributed.cluster import connect
from raynas.distributed.shards import Replica
from raynas.plan import build_supernet, make_plan
from raynas.storage import Folder

HALVES = 10
"""Times that each of the two trains; the first is not counted."""
BATCH = 128


def main() -> None:
    """Print the ratio of shard to bare loop, pair by pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6, help="steps of one point of the curve; a half has 10")
    options = parser.parse_args()
    steps = options.steps * LOGS // HALVES
    config = check(
        {
            "space": {"name": "nas_bench_201", "settings": {"channels": 16, "cells_per_stage": 1}},
            "data": {"name": options.data, "resolution": options.resolution, "crop_padding": 4, "flip": True},
            "training": {"steps": options.steps * LOGS, "batch_size": BATCH, "checkpoint_every_s": 1e9},
            "members": [{"method": "random_search"}],
        }
    )
    space = make_plan(config).space
    dataset = load(options.data, resolution=options.resolution)
    connect(None)
    with tempfile.TemporaryDirectory() as place:
        actor = ray.remote(Replica).options(num_cpus=1)
        shard = actor.remote(make_plan(config).supernets[0], config, ray.put(dataset.to_numpy()), Folder(place))
        ray.get(shard.join.remote(0, 1, "", 0))
        trainer = make_trainer(make_plan(config), dataset, devices.prepare(1))
        bare, ratios = BareLoop(trainer, build_supernet(config, dataset, seed=config.seed)), []
        for half in range(HALVES):
            began = time.perf_counter()
            for step in range(half * steps, (half + 1) * steps):
                path = space.sample(seeds.generator(config.seed, "paths", step))
                bare.step(step, [Call(path, "train", backward=True)])
            plain_s, began = time.perf_counter() - began, time.perf_counter()
            ray.get([shard.advance.remote() for _ in range(LOGS // HALVES)])
            shard_s = time.perf_counter() - began
            if half:
                ratios.append(plain_s / shard_s)
                rates = (BATCH * steps / taken for taken in (shard_s, plain_s))
                print("shard {:,.0f}, bare loop {:,.0f} images/s, ratio {:.3f}".format(*rates, ratios[-1]), flush=True)
    print(spread(ratios))


if __name__ == "__main__":
    main()
