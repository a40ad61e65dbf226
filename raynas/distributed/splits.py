"""Splitting a run's supernet after its joint warm-up, and joining the partitions' supernets to one that scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import torch

from raynas import device as devices
from raynas import shapes
from raynas.augmentation import Augmenter
from raynas.batches import Batches
from raynas.checkpoint import load_weights, weights_file
from raynas.config import Config, PartitionSettings
from raynas.data import Dataset, split
from raynas.gradient_likeness import gradient_likeness
from raynas.partition import Partition, joint_probabilities, split_space
from raynas.plan import Plan, SplitPlan, SupernetPlan, build_supernet, load_space, state_file
from raynas.run_files import JOINED
from raynas.storage import Folder

MOST_DEATHS = 5


@dataclass(frozen=True, slots=True)
class Joined:
    """A supernet that is made of its partitions' supernets, by their ids; its scale is that of the warm-up's."""

    partitions: tuple[Partition, ...]
    parts: tuple[str, ...]
    warm_up: str
    settings: PartitionSettings


async def decide_split(plan: SupernetPlan, config: Config, data: ray.ObjectRef, run: Folder, at_work: set[str]) -> None:
    """Split the space by the weights of a partition's joint warm-up, and write down its partitions beside them.

    at_work: what of the run holds room in the cluster; this joins it.
    """
    assert plan.split is not None
    if run.read_json(state_file(plan.split.warm_up))["failure"] is None:
        task = ray.remote(_choices_of_partitions).options(
            num_cpus=plan.training.cpus_per_replica, num_gpus=plan.training.gpus_per_replica, max_retries=MOST_DEATHS
        )
        at_work.add(plan.split.file)
        try:
            choices = await task.remote(plan, plan.split, config, data, run)
        finally:
            at_work.discard(plan.split.file)
        run.write_json(plan.split.file, {"choices": choices})


def read_split(run: Folder, plan: SplitPlan) -> tuple[Partition, ...]:
    """The partitions that were decided after the warm-up."""
    return tuple(Partition(tuple(map(tuple, one))) for one in run.read_json(plan.file, shapes.Split)["choices"])


def join_parts(plan: SupernetPlan, whole: Plan, run: Folder, state: dict[str, Any]) -> None:
    """Write down what a supernet is made of, and its state; it has failed if any of its parts has."""
    assert plan.split is not None
    ended = {one: run.read_json(state_file(one)) for one in plan.parts}
    failed = [f"is made of {one['label']}, which {one['failure']}" for one in ended.values() if one["failure"]]
    if failed:
        state["failure"] = failed[0]
    else:
        partitions = read_split(run, plan.split)
        made_of = {
            "partitions": [one.choices for one in partitions],
            "parts": plan.parts,
            "warm_up": plan.split.warm_up,
            "settings": plan.split.settings.model_dump(),
        }
        run.write_json(f"supernets/{plan.id}/{JOINED}", made_of)
        learnt = [one["probabilities"] for one in ended.values()]
        state["snapshots"] = next(iter(ended.values()))["snapshots"]  # all parts have them at the same steps
        state["probabilities"] = [p.tolist() for p in joint_probabilities(whole.space, partitions, learnt)]
    run.write_json(state_file(plan.id), state)


def read_joined(run: Folder, supernet: str) -> Joined | None:
    """What a supernet (of `id@step`: its weights of that step) is made of; None if it has weights of its own."""
    identity, at, step = supernet.partition("@")
    name = f"supernets/{identity}/{JOINED}"
    if not run.exists(name):
        return None
    found = run.read_json(name, shapes.Joined)
    return Joined(
        tuple(Partition(tuple(map(tuple, one))) for one in found["partitions"]),
        tuple(f"{part}{at}{step}" for part in found["parts"]),
        found["warm_up"],
        PartitionSettings.model_validate(found["settings"]),
    )


def _choices_of_partitions(
    plan: SupernetPlan, split_plan: SplitPlan, config: Config, arrays: Mapping[str, Any], run: Folder
) -> list[Any]:
    """A Ray task: each partition's choices of every block; equal weights give equal ones, however often it dies."""
    settings, space = split_plan.settings, load_space(config.space)
    device = devices.prepare(plan.training.cpus_per_replica, plan.training.gpus_per_replica)
    dataset = Dataset.from_numpy(arrays)
    supernet = build_supernet(config, dataset, seed=plan.seed)
    supernet.load_state_dict(load_weights(run, f"supernets/{split_plan.warm_up}/{weights_file()}"))
    supernet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = split(dataset, config.data.validation_fraction, config.seed)
    augmenter = Augmenter(images, plan.training.augmented(config.data), device)
    likeness = partial(
        gradient_likeness,
        supernet,
        space,
        Batches(images.train_images_NCHW, images.train_labels_N, augmenter, device),
        paths=settings.paths,
        batch_size=plan.training.batch_size,
        seed=plan.seed,
        precision=plan.training.precision,
    )
    partitions = split_space(space, settings, seed=plan.seed, likeness=likeness)
    return [one.choices for one in partitions]
