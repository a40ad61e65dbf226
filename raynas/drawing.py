"""Drawings of architectures as SVG: a graph of nodes with its operations on the arrows, or a chain of boxes."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from raynas.space import Connection, is_none, is_skip, topological

COLOURS = ("#0f83c9", "#d55e00", "#009e73", "#b95f96", "#a87a00", "#6f6fd0", "#4aa3b8", "#b5524a")
"""Okabe and Ito's colour-blind safe hues, darkened where needed to be read on white and on black."""
QUIET = "#808894"
"""The colour of what computes nothing (a skip, an identity)."""

LETTER, LINE, MARGIN = 6.3, 20.0, 8.0  # pixels: the widest mean letter at 11 px, a label's height, the picture's edge
ROWS = 10  # boxes of a chain in one column

Point = tuple[float, float]


def palette(operations: Iterable[str]) -> dict[str, str]:
    """A colour for each operation, in the order given; what computes nothing is grey."""
    active = [name for name in dict.fromkeys(operations) if name and not is_none(name) and not is_skip(name)]
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(active)}


def draw(connections: Sequence[Connection], colours: Mapping[str, str] | None = None, title: str = "") -> str:
    """Draw an architecture as one `<svg>` element that follows the page's text and card colours.

    Connections whose operation is `none` are left out; those on no way from an input to an output are faint.
    colours: the colour per operation or first word of it, as `palette` makes it (None: one of these connections).
    """
    colours = palette(connection.operation for connection in connections) if colours is None else colours
    if _is_chain(connections):
        shapes, width, height = _chain(connections, colours)
    else:
        shapes, width, height = _graph(connections, colours)
    name = html.escape(title or "architecture")
    return (
        f'<svg class="drawing" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="{name}" xmlns="http://www.w3.org/2000/svg"><title>{name}</title>{"".join(shapes)}</svg>'
    )


def _colour(operation: str, colours: Mapping[str, str]) -> str:
    """The operation's, or that of its first word: of "K5 2/3" the one of "K5"."""
    return colours.get(operation) or colours.get(operation.partition(" ")[0], QUIET)


def _is_chain(connections: Sequence[Connection]) -> bool:
    follows = all(a.target == b.source for a, b in itertools.pairwise(connections))
    stops = [connections[0].source, *(connection.target for connection in connections)] if connections else []
    return follows and len(set(stops)) == len(stops)


# --- a chain: boxes from top to bottom, in columns ---------------------------------------------------------------


def _chain(connections: Sequence[Connection], colours: Mapping[str, str]) -> tuple[list[str], float, float]:
    box = 16 + LETTER * max((len(connection.operation) for connection in connections), default=4)
    number = LETTER * len(str(len(connections))) + 8
    pitch, column, high = LINE + 12, box + number + 26, min(len(connections), ROWS)
    columns = max(1, math.ceil(len(connections) / ROWS))
    centre = MARGIN + number + box / 2
    shapes = []
    for index, connection in enumerate(connections):
        if is_none(connection.operation):
            continue
        x, y = centre + index // ROWS * column, MARGIN + LINE + 12 + index % ROWS * pitch
        if index % ROWS or not index:
            shapes.append(_arrow((x, y - 12), (x, y), QUIET))
        else:  # from the foot of the column before
            side, foot = x - column / 2 - number / 2 + 4, y + ROWS * pitch - 5
            above, from_x = y - 16, x - column
            shapes.append(
                _line([(from_x, foot - 7), (from_x, foot), (side, foot), (side, above), (x, above), (x, y)], QUIET)
            )
        shapes.append(_text((x - box / 2 - 6, y + LINE / 2), str(index + 1), anchor="end", opacity=0.6))
        shapes.append(_plate((x, y + LINE / 2), connection.operation, colours, width=box))
    bottom = MARGIN + LINE + 12 + high * pitch
    last = centre + (columns - 1) * column, MARGIN + LINE + ((len(connections) - 1) % ROWS + 1) * pitch
    shapes += [_node((centre, MARGIN + LINE / 2), "input"), _arrow(last, (last[0], last[1] + 12), QUIET)]
    shapes.append(_node((last[0], last[1] + 12 + LINE / 2), "output"))
    return shapes, 2 * MARGIN + columns * column - 18, bottom + LINE + MARGIN


# --- a graph: nodes from top to bottom, longer arrows in lanes to the right and left -----------------------------


def _graph(connections: Sequence[Connection], colours: Mapping[str, str]) -> tuple[list[str], float, float]:
    order = topological(connections)
    place = {node: index for index, node in enumerate(order)}
    arrows = [connection for connection in connections if not is_none(connection.operation)]
    lanes = _lanes([tuple(sorted((place[arrow.source], place[arrow.target]))) for arrow in arrows])
    alive = _alive(connections, arrows)

    label = 12 + LETTER * max((len(arrow.operation) for arrow in arrows), default=0)
    node = 14 + LETTER * max(map(len, order), default=2)
    first = (max(label if 0 in lanes else 0, node) + label) / 2 + 8  # the first lane clears the middle's labels

    def offset(lane: int) -> float:
        return math.copysign(first + (abs(lane) - 1) * (label + 8), lane) if lane else 0.0

    left = max(node / 2, label / 2, label / 2 - offset(min(lanes, default=0)))
    right = max(node / 2, label / 2, label / 2 + offset(max(lanes, default=0)))
    x, pitch = MARGIN + left, LINE + 52
    heights = {name: MARGIN + LINE / 2 + index * pitch for name, index in place.items()}

    lines, plates = [], []
    for arrow, lane in zip(arrows, lanes, strict=True):
        start, end = heights[arrow.source], heights[arrow.target]
        faint = arrow not in alive
        colour = _colour(arrow.operation, colours)
        dashed = is_skip(arrow.operation)
        down = 1 if end > start else -1
        middle = (x + offset(lane), (start + end) / 2)
        if lane:
            # a cubic with its inner points at 4/3 of the lane's offset has its vertex on the lane
            edge = math.copysign(node / 2, lane)
            bend = (offset(lane) - edge) * 4 / 3 + edge
            lean = down * min(pitch / 3, abs(end - start) / 6)
            curve = [(x + edge, start), (x + bend, start + lean), (x + bend, end - lean), (x + edge, end)]
            lines.append(_curve(curve, colour, dashed, faint))
        else:
            lines.append(_arrow((x, start + down * LINE / 2), (x, end - down * LINE / 2), colour, dashed, faint))
        if arrow.operation:
            plates.append(_plate(middle, arrow.operation, colours, faint=faint))
    used = {node for arrow in alive for node in (arrow.source, arrow.target)}
    nodes = [_node((x, heights[name]), name, width=node, faint=name not in used) for name in order]
    return [*lines, *nodes, *plates], MARGIN + left + right + MARGIN, 2 * MARGIN + LINE + (len(order) - 1) * pitch


def _lanes(spans: Sequence[tuple[int, ...]]) -> list[int]:
    """A lane per arrow, no two in one side by side: 0 is the middle, 1.. lie to the right and -1.. to the left."""
    lanes = [0] * len(spans)
    taken: dict[int, list[tuple[int, ...]]] = {}
    for index in sorted(range(len(spans)), key=lambda i: spans[i][1] - spans[i][0]):
        low, high = spans[index]
        options = [0] if high - low == 1 else []
        options += [side * lane for lane in range(1, len(spans) + 1) for side in (1, -1)]
        lanes[index] = next(
            lane for lane in options if all(high <= other[0] or other[1] <= low for other in taken.get(lane, []))
        )
        taken.setdefault(lanes[index], []).append((low, high))
    return lanes


def _alive(connections: Sequence[Connection], arrows: Sequence[Connection]) -> set[Connection]:
    """The arrows on some way from an input to an output of the whole graph."""
    sources, targets = {arrow.source for arrow in connections}, {arrow.target for arrow in connections}
    fed, used = sources - targets, targets - sources
    for _ in arrows:
        fed |= {arrow.target for arrow in arrows if arrow.source in fed}
        used |= {arrow.source for arrow in arrows if arrow.target in used}
    return {arrow for arrow in arrows if arrow.source in fed and arrow.target in used}


# --- shapes -------------------------------------------------------------------------------------------------------


def _line(points: Sequence[Point], colour: str, dashed: bool = False, faint: bool = False) -> str:
    path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return _stroke(path, colour, dashed, faint) + _head(points[-2], points[-1], colour, faint)


def _arrow(start: Point, end: Point, colour: str, dashed: bool = False, faint: bool = False) -> str:
    return _line([start, end], colour, dashed, faint)


def _curve(points: Sequence[Point], colour: str, dashed: bool, faint: bool) -> str:
    (a, b), (c, d), (e, f), (g, h) = points
    path = f"M{a:.1f} {b:.1f} C{c:.1f} {d:.1f} {e:.1f} {f:.1f} {g:.1f} {h:.1f}"
    return _stroke(path, colour, dashed, faint) + _head(points[2], points[3], colour, faint)


def _stroke(path: str, colour: str, dashed: bool, faint: bool) -> str:
    style = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{style}{_opacity(faint)}/>'


def _head(before: Point, tip: Point, colour: str, faint: bool) -> str:
    along = math.atan2(tip[1] - before[1], tip[0] - before[0])
    corners = [(tip[0] - 8 * math.cos(along + turn), tip[1] - 8 * math.sin(along + turn)) for turn in (-0.4, 0.4)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (tip, *corners))
    return f'<polygon points="{points}" fill="{colour}"{_opacity(faint)}/>'


def _plate(
    centre: Point, text: str, colours: Mapping[str, str], *, width: float | None = None, faint: bool = False
) -> str:
    width = 10 + LETTER * len(text) if width is None else width
    colour = _colour(text, colours)
    dashes = ' stroke-dasharray="4 3"' if is_skip(text) else ""
    ground = _box(centre, width, 5, 'style="fill:var(--card,#fff)"')
    tint = _box(centre, width, 5, f'fill="{colour}" fill-opacity="0.14" stroke="{colour}"{dashes}')
    return f"<g{_opacity(faint)}>{ground}{tint}{_text(centre, text)}</g>"


def _node(centre: Point, text: str, width: float | None = None, faint: bool = False) -> str:
    width = 14 + LETTER * len(text) if width is None else width
    ground = _box(centre, width, LINE / 2, 'style="fill:var(--ink,#222)"')
    return f"<g{_opacity(faint)}>{ground}{_text(centre, text, fill='var(--card,#fff)')}</g>"


def _box(centre: Point, width: float, radius: float, look: str) -> str:
    left, top = centre[0] - width / 2, centre[1] - LINE / 2
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{LINE:.0f}" rx="{radius:.0f}" {look}/>'


def _text(at: Point, text: str, *, anchor: str = "middle", fill: str = "var(--ink,#222)", opacity: float = 1.0) -> str:
    return (
        f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" dy="0.35em" text-anchor="{anchor}" font-size="11" '
        f'opacity="{opacity}" style="fill:{fill}">{html.escape(text)}</text>'
    )


def _opacity(faint: bool) -> str:
    return ' opacity="0.3"' if faint else ""
