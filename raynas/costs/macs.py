"""Multiply-accumulates of the stand-alone network for one image: its convolutions and matrix products.

A bias, a BatchNorm, a pooling and a sum of two paths count nothing (so does torch's own FLOP counter). Published
tables that count a linear layer's bias are higher by the number of classes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula, sdpa_flop_count

from raynas.architecture import Architecture
from raynas.costs._additive import additive
from raynas.supernet import Supernet

ATTENTION_ON_CPUS = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


if ATTENTION_ON_CPUS not in flop_registry:  # torch knows those for GPUs alone, and would count nothing

    @register_flop_formula(ATTENTION_ON_CPUS)
    def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
        """Floating-point operations of both products of an attention, from the shapes of its operands."""
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def macs(supernet: Supernet, image_shape_CHW: tuple[int, int, int]) -> Callable[[Architecture], float]:
    """A function that says how many MACs (one multiply and one add; 2 FLOPs) an architecture's subnet takes."""
    return additive(supernet, partial(count, image_shape_CHW=image_shape_CHW))


def count(subnet: nn.Module, modules: Sequence[nn.Module], *, image_shape_CHW: Sequence[int]) -> list[int]:
    """How many MACs each of these modules of a subnet takes for one image; leaves the subnet in eval mode."""
    device = next(subnet.parameters()).device  # on "meta", shapes alone take several times as long
    image_NCHW = torch.zeros(1, *image_shape_CHW, device=device)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        subnet.eval()(image_NCHW)
    flops = counter.get_flop_counts()
    names = {module: f"{type(subnet).__name__}.{name}".rstrip(".") for name, module in subnet.named_modules()}
    return [sum(flops.get(names[module], {}).values()) // 2 for module in modules]
