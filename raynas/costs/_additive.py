"""Costs that are sums over the choice blocks: counted once per choice, then added up."""

from collections.abc import Callable, Sequence

from torch import nn

from raynas.architecture import Architecture
from raynas.supernet import Chosen, Subnet, Supernet

Count = Callable[[Subnet, Sequence[nn.Module]], Sequence[int]]
"""What each of these modules of a subnet takes when it runs; the first of them is the subnet itself."""


def additive(supernet: Supernet, count: Count) -> Callable[[Architecture], float]:
    """Count as many subnets as the largest block has choices, which together hold every choice; the rest is a sum.

    Exact wherever a choice's cost does not depend on the other choices, which holds for Choice modules: all options of
    one take and give the same shapes. Several Choice modules that follow one block are counted together.
    """
    blocks = [choice.block for choice in supernet.choices()]
    sizes: dict[int, int] = {choice.block: len(choice.options) for choice in supernet.choices()}
    added = [[0] * sizes[block] for block in sorted(sizes)]
    rest = 0
    for number in range(max(sizes.values(), default=1)):
        architecture = tuple(min(number, sizes[block] - 1) for block in sorted(sizes))
        subnet = supernet.subnet(architecture)
        chosen = [module for module in subnet.modules() if isinstance(module, Chosen)]
        whole, *parts = count(subnet, [subnet, *chosen])
        rest = whole - sum(parts)
        for block, choice in enumerate(architecture):
            added[block][choice] = sum(part for part, of in zip(parts, blocks, strict=True) if of == block)

    def predict(architecture: Architecture) -> float:
        return float(rest + sum(row[choice] for row, choice in zip(added, architecture, strict=True)))

    return predict
