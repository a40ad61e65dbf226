"""A step is a function of (weights, seed, step): resumed == undisturbed, two replicas == one."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from raynas.checkpoint import load_state, save_state
from raynas.config import Config
from raynas.errors import UserError
from raynas.replica_group import ReplicaGroup
from raynas.storage import Folder
from raynas.trainer import Trainer
from raynas.training_rule import DivergenceError
from tests.helpers import config_for, make_trainer, rule_plan, small_config

STEPS = 2
WIDE = small_config(space={"settings": {"channels": 16, "cells_per_stage": 1}}, training={"learning_rate": 0.01})
"""With 4 channels a channel of almost no variance turns a rounding error of 1e-7 into 1e-2 within one step."""
TOLERANCE = {"rtol": 1e-4, "atol": 5e-5}
"""Of weights after 2 steps: sums over two halves of a batch are rounded otherwise than over the whole, float32."""


def test_supernets_may_be_trained_with_other_crops_than_finalists() -> None:
    wide = {"crop_padding": 3}
    as_data = make_trainer("uniform", small_config(data=wide))
    as_training = make_trainer("uniform", small_config(data={"crop_padding": 0}, training=wide))
    other = make_trainer("uniform", small_config(data={"crop_padding": 0}))
    for trainer in (as_data, as_training, other):
        trainer.advance()
    assert _equal(as_data.weights(), as_training.weights())
    assert not _equal(as_data.weights(), other.weights())


@pytest.mark.parametrize(
    ("rule", "training"),
    [
        ("uniform", {"averaging": 1.0}),  # broken off while the average is taken
        ("uniform", {"averaging": 0.6, "averaging_decay": 0.7}),  # and before
        ("fair", {}),
        ("parsec", {}),
        ("importance", {}),
        ("manas", {}),
        ("manas_ls", {"steps": 6}),  # its one fit is at the last of them
        ("darts1", {}),
        ("darts2", {}),
        ("snas", {}),
        ("uniform", {"optimizer": "muon"}),
    ],
)
def test_resumed_training_equals_undisturbed_training_to_the_bit(
    rule: str, training: dict[str, Any], tmp_path: Path
) -> None:
    config = small_config(training=training)
    undisturbed, first = make_trainer(rule, config), make_trainer(rule, config)
    for _ in range(6):
        undisturbed.advance()
    for _ in range(2):
        first.advance()
    save_state(Folder(str(tmp_path)), "state", first.state_dict())
    resumed = make_trainer(rule, config)
    resumed.load_state_dict(load_state(Folder(str(tmp_path)), "state"))
    assert resumed.step == first.step
    for _ in range(4):
        resumed.advance()
    assert _equal(undisturbed.supernet.state_dict(), resumed.supernet.state_dict())
    assert _equal(undisturbed.weights(), resumed.weights())
    assert [p.tolist() for p in undisturbed.rule.probabilities()] == [p.tolist() for p in resumed.rule.probabilities()]
    assert [point["loss"] for point in undisturbed.curves] == [point["loss"] for point in resumed.curves]


@pytest.mark.parametrize("decay", [None, 0.7])
def test_published_weights_are_the_average_over_the_last_steps_of_an_undisturbed_training(decay: float | None) -> None:
    plain = make_trainer("uniform")
    training = {"averaging": 0.5} if decay is None else {"averaging": 0.5, "averaging_decay": decay}
    averaging = make_trainer("uniform", small_config(training=training))
    history = []
    for _ in range(plain.settings.steps):
        assert _equal(averaging.weights(), averaging.supernet.state_dict()) == (plain.step <= 7)  # the first is copied
        plain.train_step()
        averaging.train_step()
        history.append({name: value.clone() for name, value in plain.supernet.state_dict().items()})
    assert _equal(plain.weights(), averaging.supernet.state_dict())
    weights = [1.0] + [0.0] * 5
    for count in range(1, 6):  # of the 7th step to the 12th
        new = 1 / (count + 1) if decay is None else 1 - decay
        weights = [(1 - new) * weight for weight in weights]
        weights[count] = new
    for name, value in averaging.weights().items():
        expected = sum(weight * state[name] for weight, state in zip(weights, history[6:], strict=True))
        torch.testing.assert_close(value, expected)
    assert not _equal(averaging.weights(), plain.weights())


def test_averaging_snapshots_and_precision_change_the_supernets_id_only_if_they_are_set() -> None:
    ids = [
        rule_plan("uniform", small_config(training=training))[1].id
        for training in (
            {},
            {"averaging": 0.0, "snapshots": 0, "precision": "auto"},
            {"averaging": 0.5},
            {"averaging": 0.5, "averaging_decay": 0.9},
            {"snapshots": 2},
            {"precision": "bfloat16"},
        )
    ]
    assert ids[0] == ids[1] and len(set(ids)) == 5


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"steps": 800}, []),
        ({"steps": 800, "snapshots": 3}, [600, 664, 736]),
        ({"steps": 100, "snapshots": 1}, [75]),
        ({"steps": 12, "snapshots": 3}, [9, 10, 11]),
        ({"steps": 800, "snapshots": 3, "averaging": 1.0}, [648, 704, 752]),
        ({"steps": 800, "snapshots": 3, "averaging": 0.1}, [736, 760, 784]),
    ],
)
def test_snapshots_are_spread_over_the_last_quarter_on_points_of_the_curve(
    training: dict[str, Any], expected: list[int]
) -> None:
    assert make_trainer("uniform", small_config(training=training)).snapshot_steps == expected


def test_more_snapshots_than_late_steps_are_refused() -> None:
    for training in ({"steps": 2, "snapshots": 1}, {"steps": 12, "snapshots": 4}, {"averaging": 0.05, "snapshots": 1}):
        with pytest.raises(UserError, match=r"^training: expected at most \d snapshots of the late ones of \d+ steps"):
            small_config(training=training)


def test_only_a_training_to_the_schedules_end_is_averaged() -> None:
    warm_up = make_trainer("uniform", small_config(training={"averaging": 1.0}), end=6)
    while not warm_up.done:
        warm_up.train_step()
    assert _equal(warm_up.weights(), warm_up.supernet.state_dict())


def test_a_decay_without_an_average_is_refused() -> None:
    with pytest.raises(UserError, match=r"^training: averaging_decay is of an average that is not taken"):
        small_config(training={"averaging_decay": 0.9})


def test_a_truncated_checkpoint_is_told_in_one_line(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    save_state(folder, "state", make_trainer("uniform").state_dict())
    path = tmp_path / "state"
    for size in (0, 5, 100, len(path.read_bytes()) - 1):
        folder.write("broken", path.read_bytes()[:size])
        with pytest.raises(UserError, match=r"not a whole checkpoint.*delete the folder"):
            load_state(folder, "broken")


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    trainer = make_trainer("uniform", small_config(training={"learning_rate": 1e30}))
    with pytest.raises(DivergenceError, match="the loss is"):
        for _ in range(12):
            trainer.advance()


def test_the_learning_rate_falls_from_the_start_value_towards_zero() -> None:
    trainer = make_trainer("uniform")
    rates = [trainer.learning_rate(step) for step in range(trainer.settings.steps + 1)]
    assert rates[0] == trainer.settings.learning_rate and rates[-1] == pytest.approx(0)
    assert rates == sorted(rates, reverse=True)


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Two processes for the two replicas of each test: they wait for each other, so that none can take both."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        ("uniform", {"paths": 2, "sampling": "distinct"}),
        ("fair", {}),
        ("fair", {"spread": True}),
        ("parsec", {"samples": 3}),
        ("importance", {"strength": 0.9}),
        ("manas", {"eta": 1.0}),
        ("darts1", {"alpha_learning_rate": 0.05}),
        ("darts2", {"alpha_learning_rate": 0.01}),
        ("snas", {"alpha_learning_rate": 0.05}),
        ("darts_pt", {"selection": 0.99}),
        ("ordered_dropout", {}),
        ("sandwich", {}),
    ],
)
def test_two_replicas_equal_one_on_the_joined_batch(
    rule: str, settings: dict[str, Any], processes: ProcessPoolExecutor
) -> None:
    """Joined batch statistics, summed gradients, the same paths: only the order of float32 sums differs."""
    single = make_trainer(rule, _wide(rule), **settings)
    expected = _trained(single)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    futures = [processes.submit(_replica, rank, port, rule, settings) for rank in range(2)]
    replicas = [future.result(timeout=600) for future in futures]
    assert _equal(replicas[0], replicas[1])  # replicas are equal, to the bit
    for name, value in expected.items():
        torch.testing.assert_close(replicas[0][name], value, **TOLERANCE)


def _wide(rule: str) -> Config:
    """Elastic for the rules made for it: a cell of poolings alone amplifies rounding errors, as few channels do."""
    elastic = config_for("ordered_dropout", training={"learning_rate": 0.01})
    return elastic if rule in ("ordered_dropout", "sandwich") else WIDE


def _replica(rank: int, port: int, rule: str, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    group = ReplicaGroup.join(rank=rank, world=2, address="127.0.0.1", port=port, device=torch.device("cpu"))
    trainer = make_trainer(rule, _wide(rule), group, **settings)
    learnt = _trained(trainer)
    torch.distributed.destroy_process_group()
    return learnt


def _trained(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The curve's losses, then what is learnt."""
    losses = [trainer.advance()["loss"] for _ in range(STEPS)]
    return {"losses": torch.tensor(losses, dtype=torch.float32), **_learnt(trainer)}


def _learnt(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The weights, and what the rule learnt."""
    pi = {f"pi of {block}": torch.from_numpy(p) for block, p in enumerate(trainer.rule.probabilities())}
    return {**trainer.supernet.state_dict(), **pi}


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)
