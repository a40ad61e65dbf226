"""Tables of figures for a terminal of 80 columns."""

from __future__ import annotations

from typing import Literal

from rich import box
from rich.table import Table

WIDTHS = (22, 12)
"""At most so many letters of the first and second column of words: a longer name goes on in the next line."""


def figures(title: str, *columns: str, words: int = 1, caption: str | None = None) -> Table:
    """A table whose first `words` columns, at most two, are text and the others numbers, which keep their room."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(columns):
        is_text = index < words
        justify: Literal["left", "right"] = "left" if is_text else "right"
        width = WIDTHS[index] if is_text else None
        table.add_column(column, justify=justify, no_wrap=not is_text, overflow="fold", max_width=width)
    return table
