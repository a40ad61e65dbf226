"""Costs that are sums over the modules that depend on the path, each counted once per form that it takes."""

from collections.abc import Callable, Sequence
from itertools import islice, product

from torch import nn

from raynas.architecture import Architecture
from raynas.supernet import PathModule, Subnet, Supernet

Count = Callable[[Subnet, Sequence[nn.Module]], Sequence[int]]
"""What each of these modules of a subnet takes when it runs; the first of them is the subnet itself."""

TRIED = 100
"""Forms of a module that are looked through for one that is still unknown."""


def additive(supernet: Supernet, count: Count) -> Callable[[Architecture], float]:
    """Count as many subnets as the largest block has choices, which together hold every choice; the rest is a sum.

    Exact wherever what a module takes depends on its own form and those inside it alone. This holds for Choice modules,
    all of whose options take and give the same shapes, and for elastic layers, whose form is the sizes of both ends. A
    pair of sizes that no counted subnet had is counted when it is first asked for, and other unknown ones with it.
    """
    modules = supernet.outermost()
    inside = [[part for part in module.modules() if isinstance(part, PathModule)] for module in modules]
    sizes = supernet.blocks()
    known: list[dict[tuple[tuple[int, ...], ...], int]] = [{} for _ in modules]
    blocks = [sorted({block for part in parts for block in part.blocks()}) for parts in inside]
    rest = 0

    def forms(architecture: Architecture) -> list[tuple[tuple[int, ...], ...]]:
        return [tuple(part.form(architecture) for part in parts) for parts in inside]

    def learn(architecture: Architecture) -> None:
        nonlocal rest
        subnet, places = supernet.cut(architecture)
        whole, *parts = count(subnet, [subnet, *(places[module] for module in modules)])
        rest = whole - sum(parts)
        for taken, form, part in zip(known, forms(architecture), parts, strict=True):
            taken[form] = part

    for number in range(max(sizes.values(), default=1)):
        learn(tuple(min(number, size - 1) for size in sizes.values()))

    def richer(architecture: Architecture) -> Architecture:
        """The same where its unknown forms hang on it; elsewhere choices by which other modules take unknown forms."""
        result, kept = list(architecture), set[int]()
        for taken, form, own in zip(known, forms(architecture), blocks, strict=True):
            kept.update(own if form not in taken else ())
        for taken, parts, own in zip(known, inside, blocks, strict=True):
            free = [block for block in own if block not in kept]
            for choices in islice(product(*(range(sizes[block]) for block in free)), TRIED):
                for block, choice in zip(free, choices, strict=True):
                    result[block] = choice
                if tuple(part.form(tuple(result)) for part in parts) not in taken:
                    kept.update(own)
                    break
        return tuple(result)

    def predict(architecture: Architecture) -> float:
        wanted = forms(architecture)
        if not all(form in taken for taken, form in zip(known, wanted, strict=True)):
            learn(richer(architecture))
        return float(rest + sum(taken[form] for taken, form in zip(known, wanted, strict=True)))

    return predict
