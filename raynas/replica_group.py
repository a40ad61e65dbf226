"""The replicas of one shard as its trainer sees them: who am I of how many, and sums over all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT_S = 1800.0
"""Long, since replicas wait while another fetches its images, and while the first uploads a checkpoint. No death is
noticed by it: Ray tells of those, and the whole group is killed then."""


class ReplicaGroup:
    """A group of one needs no communication; `join` makes a group of several out of as many processes."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank = rank
        self.world = world

    @classmethod
    def join(
        cls, *, rank: int, world: int, address: str, port: int, device: torch.device, timeout_s: float = TIMEOUT_S
    ) -> ReplicaGroup:
        """Form a torch.distributed group: NCCL among GPUs, gloo among CPUs; rank 0 hosts the store at address:port.

        A group is disposable: after any death new processes form a new one at a new port.
        """
        if world == 1:
            return cls()
        timeout = timedelta(seconds=timeout_s)
        store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, world, is_master=rank == 0, timeout=timeout, wait_for_workers=False
        )
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
        return cls(rank, world)

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all replicas, the same bits on each; gradients flow through it."""
        if self.world == 1:
            return values
        return _Sum.apply(values)  # type: ignore[no-any-return]

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients of the touched parameters over all replicas, in one flat buffer.

        A parameter that no replica has a gradient for keeps none, as in a single process: the optimiser then leaves
        it alone. The flags behind the gradients carry that knowledge, so replicas may touch different paths.
        """
        if self.world == 1 or not parameters:
            return
        sizes = [parameter.numel() for parameter in parameters]
        flat = torch.zeros(sum(sizes) + len(sizes), dtype=torch.float32, device=parameters[0].device)
        *pieces, flags = flat.split_with_sizes([*sizes, len(sizes)])
        for index, (parameter, piece) in enumerate(zip(parameters, pieces, strict=True)):
            if parameter.grad is not None:
                piece.copy_(parameter.grad.reshape(-1))
                flags[index] = 1.0
        dist.all_reduce(flat)
        for parameter, piece, count in zip(parameters, pieces, flags.tolist(), strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype) if count else None


def lost_partner(fault: BaseException) -> bool:
    """Whether a sum or a rendezvous failed since another replica is gone.

    NCCL and the store have an error of their own for it; gloo has none, but begins with the place in its source.
    """
    return isinstance(fault, dist.DistError) or (type(fault) is RuntimeError and "/gloo/" in str(fault))


class _Sum(torch.autograd.Function):
    """All-reduce whose backward is an all-reduce: d(sum of all losses) / d(own values)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total
