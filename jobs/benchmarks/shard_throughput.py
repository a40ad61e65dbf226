"""Images per second of the `uniform` step in a shard, against the same step in a bare loop in one process.

    python jobs/benchmarks/shard_throughput.py --data parquet:../shared/data/cifar10

Both train NAS-Bench-201 (C=16, N=1, batch 128) on the same batches and paths with one thread, in turn, A B A B ...;
what is quoted is the median of the ratios of neighbours, since a busy machine drifts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import ray
import torch
from torch.nn import functional

from raynas import device as devices
from raynas import seeds
from raynas.augmentation import Augmenter
from raynas.config import Config, check
from raynas.data import Dataset, batch_indices, load, split
from raynas.distributed.cluster import connect
from raynas.distributed.shards import Replica
from raynas.plan import build_supernet, make_plan
from raynas.storage import Folder
from raynas.trainer import LOGS

HALVES = 10
"""Times that each of the two trains; the first is not counted."""
BATCH = 128


class BareLoop:
    """What anybody would write for SPOS in one process."""

    def __init__(self, config: Config, dataset: Dataset) -> None:
        device = devices.prepare(1)
        training, parts = config.training, split(dataset, config.data.validation_fraction, config.seed)
        self.config, self.step, self.space = config, 0, make_plan(config).space
        self.images_NCHW, self.labels_N = parts.train_images_NCHW, parts.train_labels_N
        self.augmenter = Augmenter(parts, config.data, device)
        self.network = build_supernet(config, dataset, seed=config.seed)
        self.network.to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )

    def train(self, steps: int) -> float:
        """Seconds of the next `steps` steps."""
        seed, began = self.config.seed, time.perf_counter()
        for _ in range(steps):
            rows = torch.from_numpy(batch_indices(len(self.labels_N), BATCH, self.step, seed, "train"))
            draws = self.augmenter.draw(seeds.generator(seed, "augmentation", "train", self.step), BATCH)
            path = self.space.sample(seeds.generator(seed, "paths", self.step))
            self.optimizer.zero_grad(set_to_none=True)
            logits_NK = self.network(self.augmenter(self.images_NCHW[rows], draws), path)
            loss = functional.cross_entropy(logits_NK, self.labels_N[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.training.gradient_clip)
            self.optimizer.step()
            self.step += 1
        return time.perf_counter() - began


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
    dataset = load(options.data, resolution=options.resolution)
    connect(None)
    with tempfile.TemporaryDirectory() as place:
        actor = ray.remote(Replica).options(num_cpus=1)
        shard = actor.remote(make_plan(config).supernets[0], config, ray.put(dataset.to_numpy()), Folder(place))
        ray.get(shard.join.remote(0, 1, "", 0))
        bare, ratios = BareLoop(config, dataset), []
        for half in range(HALVES):
            plain_s, began = bare.train(steps), time.perf_counter()
            ray.get([shard.advance.remote() for _ in range(LOGS // HALVES)])
            shard_s = time.perf_counter() - began
            if half:
                ratios.append(plain_s / shard_s)
                rates = (BATCH * steps / taken for taken in (shard_s, plain_s))
                print("shard {:,.0f}, bare loop {:,.0f} images/s, ratio {:.3f}".format(*rates, ratios[-1]), flush=True)
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"median ratio {statistics.median(ratios):.3f}, quartiles {low:.3f} to {high:.3f}, n = {len(ratios)}")


if __name__ == "__main__":
    main()
