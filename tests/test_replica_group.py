"""A replica group: what its members see when one of them is gone."""

from __future__ import annotations

import multiprocessing
import os
import socket

import pytest
import torch

from raynas.replica_group import ReplicaGroup, lost_partner

CPU = torch.device("cpu")


def _join_and_die(port: int) -> None:
    ReplicaGroup.join(rank=1, world=2, address="127.0.0.1", port=port, device=CPU).sum(torch.ones(1))
    os._exit(1)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_sum_with_one_who_is_gone_fails_as_a_lost_partner(port: int) -> None:
    partner = multiprocessing.get_context("spawn").Process(target=_join_and_die, args=(port,))
    partner.start()
    group = ReplicaGroup.join(rank=0, world=2, address="127.0.0.1", port=port, device=CPU)
    try:
        group.sum(torch.ones(1))
        partner.join()
        with pytest.raises(RuntimeError) as raised:
            group.sum(torch.ones(1))
    finally:
        torch.distributed.destroy_process_group()
    assert lost_partner(raised.value)


def test_a_group_that_is_never_complete_fails_as_a_lost_partner(port: int) -> None:
    with pytest.raises(RuntimeError) as raised:
        ReplicaGroup.join(rank=0, world=2, address="127.0.0.1", port=port, device=CPU, timeout_s=1.0)
    assert lost_partner(raised.value)


def test_other_faults_of_torch_are_no_lost_partner() -> None:
    assert not lost_partner(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as raised:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not lost_partner(raised.value)
