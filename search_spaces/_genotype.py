"""How cells of the DARTS space are written down: `Genotype(normal=[('sep_conv_3x3', 0), ...], ...)`."""

from __future__ import annotations

import ast
from typing import Any, TypeAlias

NODES = 4
"""Intermediate nodes of a cell; its inputs are nodes 0 and 1, these are nodes 2 to 5."""
CONCAT = list(range(2, 2 + NODES))

Cell: TypeAlias = tuple[tuple[tuple[str, int], ...], ...]
"""For each intermediate node what it adds up: operations, each with the node that it is applied to."""


def write(normal: Cell, reduction: Cell) -> str:
    """The usual notation if every node adds up two operations; else with one list for each node."""
    flat = all(len(node) == 2 for node in (*normal, *reduction))

    def written(cell: Cell) -> str:
        return str([pair for node in cell for pair in node] if flat else [list(node) for node in cell])

    return (
        f"Genotype(normal={written(normal)}, normal_concat=range(2, 6), "
        f"reduce={written(reduction)}, reduce_concat=range(2, 6))"
    )


def read(text: str) -> tuple[Cell, Cell]:
    """The normal and the reduction cell of a genotype; raises ValueError for what is none."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
        raise ValueError(f"expected Genotype(normal=[('sep_conv_3x3', 0), ...], ...), but got {text!r}")
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    names = ["normal", "normal_concat", "reduce", "reduce_concat"]
    if call.args or len(call.keywords) != len(names) or set(given) != set(names):
        raise ValueError(f"expected {', '.join(names)} in Genotype(...), each once and by name, but got {text!r}")
    for name in ("normal_concat", "reduce_concat"):
        if _numbers(given[name]) != CONCAT:
            raise ValueError(f"expected {name}=range(2, 6), but got {ast.unparse(given[name])}")
    return _cell(given["normal"], "normal"), _cell(given["reduce"], "reduce")


def _numbers(value: ast.expr) -> Any:
    """A list of numbers, written out or as a range; no code of the text is run."""
    try:
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "range" and not value.keywords:
            return list(range(*[ast.literal_eval(one) for one in value.args]))[: NODES + 1]
        return list(ast.literal_eval(value))
    except (ValueError, TypeError):
        return None


def _cell(value: ast.expr, name: str) -> Cell:
    try:
        nodes = ast.literal_eval(value)
    except ValueError:
        nodes = None
    if isinstance(nodes, list) and len(nodes) == 2 * NODES and all(isinstance(one, tuple) for one in nodes):
        nodes = [nodes[first : first + 2] for first in range(0, 2 * NODES, 2)]
    if (
        not isinstance(nodes, list)
        or len(nodes) != NODES
        or not all(
            isinstance(node, list) and all(_is_pair(pair, 2 + i) for pair in node) for i, node in enumerate(nodes)
        )
    ):
        raise ValueError(
            f"expected {2 * NODES} pairs ('operation', node), two for each of nodes 2 to 5 from earlier ones, or "
            f"a list of pairs for each node, as {name}, but got {ast.unparse(value)}"
        )
    return tuple(tuple(node) for node in nodes)


def _is_pair(pair: Any, target: int) -> bool:
    return (
        isinstance(pair, tuple)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and type(pair[1]) is int
        and 0 <= pair[1] < target
    )
