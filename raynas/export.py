"""A finalist as a model of its own: a program and weights that load without raynas, proven to compute the same."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from raynas import shapes
from raynas.architecture import decode
from raynas.checkpoint import corrupt, load_weights, weights_file
from raynas.config import Config
from raynas.data import load, split
from raynas.errors import UserError
from raynas.plan import build_supernet
from raynas.run import same_data
from raynas.run_record import read_run
from raynas.storage import Folder

WEIGHTS = weights_file()
EXAMPLES = 8
TOLERANCE = 1e-4
"""Largest difference of logits that the exported program may show: it may order float32 sums otherwise."""

CHECK = """
import sys, torch
model, examples = sys.argv[1:]
saved = torch.load(examples, weights_only=True)
program = torch.export.load(model).module()
print(float((program(saved["images"]) - saved["logits"]).abs().max()))
assert "raynas" not in sys.modules
"""


def export_finalist(run: Folder, config: Config, output: str, rank: int | None) -> dict[str, Any]:
    """Write `model.pt2`, `weights.safetensors` and `card.json` of a finalist (None: the best on validation).

    The model takes float32 images (N, C, H, W) normalised by the card's mean and std (in grey levels 0..255) and
    gives logits (N, K), for any N. It is loaded again in a clean process and compared with the network that was
    trained; raises UserError if the folder is not empty or there is no such finalist.
    """
    result = _finalist(run, rank)
    versions = run.read_json("versions.json")
    target = Folder(output)
    if target.names():
        raise UserError(f"--output {output} is not empty; name a new folder.")
    target.check_writable()
    place = run / f"finalists/{result['rank']}"
    weights = load_weights(place, WEIGHTS)
    dataset = load(config.data.name, resolution=config.data.resolution)
    same_data(run, dataset.fingerprint)
    parts = split(dataset, config.data.validation_fraction, config.seed)
    supernet = build_supernet(config, dataset, seed=config.seed, stand_alone=True)
    network = supernet.subnet(decode(result["architecture"])).finished().eval()
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise corrupt(place, WEIGHTS, "its tensors are not those of the architecture") from None
    mean_C, std_C = parts.mean_std_C
    images_NCHW = (dataset.test_images_NCHW[:EXAMPLES].float() - mean_C[:, None, None]) / std_C[:, None, None]
    program = torch.export.export(network, (images_NCHW,), dynamic_shapes=({0: torch.export.Dim("images", min=1)},))
    with torch.no_grad():
        difference = _verify(program, images_NCHW, network(images_NCHW))
    if not difference <= TOLERANCE:  # NaN too
        raise RuntimeError(f"the exported model differs from the trained one by {difference:g} in its logits")
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    target.write("model.pt2", buffer.getvalue())
    target.write(WEIGHTS, place.read(WEIGHTS))
    card = {
        **result,
        "space": config.space.name,
        "space_settings": config.space.settings | config.retraining.space_settings,
        "data": config.data.name,
        "classes": dataset.classes,
        "input_CHW": list(images_NCHW.shape[1:]),
        "mean": mean_C.tolist(),
        "std": std_C.tolist(),
        "recipe": config.retraining.model_dump(),
        "seed": config.seed,
        "largest_logit_difference_after_loading": difference,
        "versions": versions,
    }
    target.write_json("card.json", card)
    return card


def _finalist(run: Folder, rank: int | None) -> dict[str, Any]:
    results = [
        run.read_json(f"finalists/{name}/result.json", shapes.Finalist)
        for name in run.names("finalists")
        if run.exists(f"finalists/{name}/result.json")
    ]
    # a run that was ranked anew may hold finalists that are none any more
    named = {(trial.rank, trial.architecture) for trial in read_run(run, with_gap=False).finalists}
    trained = [one for one in results if one["failure"] is None and (one["rank"], one["architecture"]) in named]
    if not trained:
        raise UserError(f"{run.location} has no finalist that was trained; run `raynas retrain {run.location}` first.")
    asked = [one for one in trained if rank in (None, one["rank"])]
    if not asked:
        ranks = ", ".join(str(one["rank"]) for one in trained)
        raise UserError(f"{run.location} has no trained finalist of rank {rank}; choose --rank from {ranks}.")
    best: dict[str, Any] = min(asked, key=lambda one: (one["validation_error"], one["rank"]))
    return best


def _verify(program: Any, images_NCHW: torch.Tensor, logits_NK: torch.Tensor) -> float:
    """The largest difference of the logits of the saved program, loaded in a process that knows no raynas."""
    with tempfile.TemporaryDirectory() as place:
        model, examples = Path(place, "model.pt2"), Path(place, "examples.pt")
        torch.export.save(program, model)
        torch.save({"images": images_NCHW, "logits": logits_NK}, examples)
        done = subprocess.run(
            [sys.executable, "-I", "-c", CHECK, str(model), str(examples)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the exported model does not load: {done.stderr.strip().splitlines()[-1]}")
        return float(done.stdout)
