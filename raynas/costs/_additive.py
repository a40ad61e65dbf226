"""Costs that are sums over the choice blocks: counted once per choice, then added up."""

from collections.abc import Callable

from raynas.architecture import Architecture
from raynas.supernet import Subnet, Supernet


def additive(supernet: Supernet, count: Callable[[Subnet], int]) -> Callable[[Architecture], float]:
    """Count the subnet of all first choices and what each other choice adds to it; the rest is a sum of integers.

    Exact wherever a choice's cost does not depend on the other choices, which holds for Choice modules: all options of
    one take and give the same shapes. Several Choice modules that follow one block are counted together.
    """
    sizes: dict[int, int] = {choice.block: len(choice.options) for choice in supernet.choices()}
    first = (0,) * len(sizes)
    base = count(supernet.subnet(first))
    added = tuple(
        (
            0,
            *(
                count(supernet.subnet((*first[:block], choice, *first[block + 1 :]))) - base
                for choice in range(1, size)
            ),
        )
        for block, size in sorted(sizes.items())
    )

    def predict(architecture: Architecture) -> float:
        return float(base + sum(row[choice] for row, choice in zip(added, architecture, strict=True)))

    return predict
