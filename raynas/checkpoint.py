"""Nested state in one safetensors file: tensors as they are, numbers and structure as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.optim import Optimizer

from raynas.errors import UserError
from raynas.storage import Folder

TENSOR = "__tensor__"
CHECKPOINT = "checkpoint.safetensors"
"""What a training goes on from that was stopped."""


def save_state(folder: Folder, name: str, state: Any) -> None:
    """Write nested dicts and lists of tensors, numbers, strings and None; equal states (order too) are equal bytes."""
    tensors: dict[str, Tensor] = {}
    structure = _take_apart(state, tensors)
    folder.write(name, save(tensors, metadata={"structure": json.dumps(structure)}))


def load_state(folder: Folder, name: str) -> Any:
    """Read what `save_state` wrote, on the CPU, in its order; raises UserError if the file is corrupt."""
    content = folder.read(name)
    try:
        length = int.from_bytes(content[:8], "little")
        structure = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["structure"])
        return _put_together(structure, load(content))
    except KeyError:
        raise corrupt(folder, name, "it holds no state") from None
    except (SafetensorError, ValueError, TypeError) as fault:
        raise corrupt(folder, name, fault) from None


def load_moments(optimizer: Optimizer, moments: Mapping[str, Any]) -> None:
    """Give an optimiser the `state` of its state dict as it comes out of a file; its settings stay as they are."""
    by_index = {int(index): dict(value) for index, value in moments.items()}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": by_index})


def weights_file(step: int | None = None) -> str:
    """What the published weights are called in a supernet's folder, or those that were kept at an earlier step."""
    return "weights.safetensors" if step is None else f"snapshot-{step}.safetensors"


def save_weights(folder: Folder, name: str, weights: dict[str, Tensor]) -> None:
    """Write a state dict as a plain safetensors file."""
    folder.write(name, save({key: value.detach().cpu().contiguous() for key, value in weights.items()}))


def load_weights(folder: Folder, name: str) -> dict[str, Tensor]:
    """Read a state dict, on the CPU; raises UserError if the file is corrupt or not there."""
    if not folder.exists(name):
        raise corrupt(folder, name, "it is not there")
    try:
        return load(folder.read(name))
    except (SafetensorError, ValueError) as fault:
        raise corrupt(folder, name, fault) from None


def check_weights(folder: Folder, name: str) -> None:
    """Raise UserError if the file is not there or not as long as it says itself; the weights are not read."""
    if not folder.exists(name):
        raise corrupt(folder, name, "it is not there")
    header, size = folder.read_header(name)
    try:
        tensors = {key: one for key, one in json.loads(header[8:]).items() if key != "__metadata__"}
        end = len(header) + max((one["data_offsets"][1] for one in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as fault:
        raise corrupt(folder, name, fault) from None
    if size != end:
        raise corrupt(folder, name, f"it has {size:,} bytes instead of {end:,}")


def corrupt(folder: Folder, name: str, fault: object) -> UserError:
    """What to say of a checkpoint that cannot be used; what stands beside it may say that it is done, and goes too."""
    file = folder.path(name)
    return UserError(
        f"{file} is not a whole checkpoint ({fault}); delete the folder {file.rpartition('/')[0]}, and the same "
        "`raynas search` computes it anew."
    )


def _take_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = f"{len(tensors):06d}"
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {TENSOR: key}
    if isinstance(value, dict):
        return {str(key): _take_apart(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_take_apart(item, tensors) for item in value]
    return value


def _put_together(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors[value[TENSOR]]
        return {key: _put_together(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_together(item, tensors) for item in value]
    return value
