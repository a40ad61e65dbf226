"""Nested state in one file: what is written comes back, and what is broken is told in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from raynas.checkpoint import check_weights, load_state, load_weights, save_state, save_weights
from raynas.errors import UserError
from raynas.storage import Folder


def state() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "step": 7,
        "z": [1.5, None, "words", True, [], {}],
        "weights": {"b.weight": torch.randn(3, 2, generator=generator), "a": torch.arange(4)},
        "moments": {"0": {"momentum_buffer": torch.randn(2, 3, 4, 4, generator=generator).half()}},
        "list": [
            torch.tensor(3.5),
            torch.empty(0, 2),
            torch.tensor([True, False]),
            torch.zeros(2, dtype=torch.bfloat16),
        ],
        "curves": [{"step": 1.0, "loss": 0.1 + 0.2, "alpha": 1e-300}],
    }


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(equal(*pair) for pair in zip(first, second, strict=True))
    return type(first) is type(second) and bool(first == second)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def test_nested_state_comes_back_with_its_types_and_in_its_order(folder: Folder) -> None:
    save_state(folder, "state", state())
    assert equal(load_state(folder, "state"), state())


def test_numbers_that_are_not_finite_come_back(folder: Folder) -> None:
    save_state(folder, "state", [math.inf, -math.inf, math.nan])
    up, down, neither = load_state(folder, "state")
    assert (up, down) == (math.inf, -math.inf) and math.isnan(neither)


def test_equal_states_are_equal_bytes(folder: Folder) -> None:
    for name in ("first", "second"):
        save_state(folder, name, state())
    save_state(folder, "third", load_state(folder, "first"))
    assert folder.read("first") == folder.read("second") == folder.read("third")


def test_tensors_that_share_memory_or_lie_in_other_strides_are_written_whole(folder: Folder) -> None:
    base = torch.arange(24.0).reshape(1, 2, 3, 4)
    values = {
        "base": base,
        "view": base[0, 1],
        "turned": base.transpose(1, 3),
        "last": base.to(memory_format=torch.channels_last),
    }
    save_state(folder, "state", values)
    assert equal(load_state(folder, "state"), {name: value.contiguous() for name, value in values.items()})


def test_writing_does_not_change_what_is_written(folder: Folder) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    values = {"parameter": parameter}
    save_state(folder, "state", values)
    loaded = load_state(folder, "state")["parameter"]
    loaded.add_(1)
    assert values == {"parameter": parameter} and parameter.requires_grad and torch.equal(parameter.data, torch.ones(3))


def test_weights_are_a_plain_safetensors_file(folder: Folder, tmp_path: Path) -> None:
    weights = {"b.weight": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), "a": torch.ones(1)}
    save_weights(folder, "weights", weights)
    for found in (load((tmp_path / "weights").read_bytes()), load_weights(folder, "weights")):
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("read", [load_state, load_weights, check_weights])
def test_a_file_that_is_cut_anywhere_is_told_in_one_line(folder: Folder, tmp_path: Path, read: Any) -> None:
    save_state(folder, "whole", {"a": torch.ones(2), "b": 1})
    read(folder, "whole")
    content = folder.read("whole")
    for size in range(len(content)):
        (tmp_path / "cut").write_bytes(content[:size])
        with pytest.raises(UserError, match="not a whole checkpoint") as refused:
            read(folder, "cut")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "header", [b"[]", b"{}", b"7", b'{"__metadata__": 3}', b'{"__metadata__": {"structure": "[{"}}', b"\xff" * 9]
)
def test_a_file_of_another_kind_is_told_in_one_line(folder: Folder, header: bytes) -> None:
    folder.write("other", len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="not a whole checkpoint"):
        load_state(folder, "other")


def test_a_tensor_that_the_structure_names_but_the_file_lacks_is_told(folder: Folder) -> None:
    structure = json.dumps({"a": {"__tensor__": "000000"}})
    header = json.dumps({"__metadata__": {"structure": structure}}).encode()
    folder.write("other", len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="not a whole checkpoint"):
        load_state(folder, "other")
