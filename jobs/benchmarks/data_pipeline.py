"""Images per second of raynas' batched augmentation, against torchvision transforms in a PyTorch DataLoader.

    python jobs/benchmarks/data_pipeline.py --data parquet:../shared/data/cifar10

Both crop with padding, flip, normalise and erase a square of every image, and give batches of float32. They take turns,
A B A B ...; what is quoted is the median of the ratios of neighbours. Without workers both are measured in CPU seconds,
which a busy machine leaves alone; workers are processes of their own, so with them it is wall-clock time, which says
something on an idle machine only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import count, islice

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from jobs.benchmarks.training_step import spread
from raynas import device as devices
from raynas.augmentation import Augmenter
from raynas.batches import Batches
from raynas.config import DataSettings
from raynas.data import Split, load, split

PADDING, CUTOUT = 4, 8


class Transformed(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's own datasets hold them, each transformed by itself."""

    def __init__(self, parts: Split) -> None:
        mean_C, std_C = ((value / 255).tolist() for value in parts.mean_std_C)
        side = parts.dataset.image_shape_CHW[1]
        share = CUTOUT**2 / side**2
        self.images = parts.train_images_NCHW.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = parts.train_labels_N.tolist()
        self.transform = v2.Compose(
            [
                v2.RandomCrop(side, padding=PADDING),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean_C, std_C),
                v2.RandomErasing(p=1.0, scale=(share, share), ratio=(1.0, 1.0)),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[row].squeeze())), self.labels[row]


def main() -> None:
    """Print the ratio for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=20, help="of each in a turn")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    options = parser.parse_args()
    device = devices.prepare(1)
    settings = DataSettings(crop_padding=PADDING, flip=True, cutout=CUTOUT)
    parts = split(load(options.data, resolution=options.resolution), 0.1, seed=0)
    batches = Batches(parts.train_images_NCHW, parts.train_labels_N, Augmenter(parts, settings, device), device)
    transformed, steps = Transformed(parts), count()
    for workers in options.workers:
        now = time.perf_counter if workers else time.process_time
        loader = DataLoader(
            transformed,
            options.batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        rates, ratios, stream = [], [], iter(loader)
        for turn in range(options.turns + 1):
            began = now()
            for step in islice(steps, options.batches):
                batches.augmented(step, options.batch, 0, "train")
            ours, began, taken = now() - began, now(), 0
            while taken < options.batches:
                for _ in islice(stream, options.batches - taken):
                    taken += 1
                stream = stream if taken == options.batches else iter(loader)  # the next epoch
            theirs = now() - began
            if turn:  # in the first the workers start
                rates.append(options.batch * options.batches / ours)
                ratios.append(theirs / ours)
        print(f"{workers} workers: raynas {statistics.median(rates):,.0f} images/s, {spread(ratios)}", flush=True)


if __name__ == "__main__":
    main()
