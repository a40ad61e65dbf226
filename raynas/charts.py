"""The report's charts, as the plain data and layout that plotly.js draws."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from raynas import belief
from raynas.drawing import COLOURS, QUIET
from raynas.run_record import Row, RunRecord, best_so_far, is_random
from raynas.units import accuracy, cost, cost_axis, cost_name

Figure: TypeAlias = dict[str, Any]
"""{"data": traces, "layout": layout}; the page adds fonts and the colours that follow light and dark."""

INK = "@ink"
"""Stands for the page's text colour, which differs between light and dark."""
SUPERNET_COLOURS = ("#5b7fa6", "#c08a2d", "#8a63b8", "#3f9184", "#b0506a", "#7d8a3c")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")
POINTS = 250  # of a curve: more would only draw noise over noise
FEW_EPOCHS = 12  # up to so many, each is marked


def member_colours(record: RunRecord) -> dict[str, str]:
    """One colour per member for the whole report; the random baseline is grey."""
    searching = [name for name, method in record.members.items() if not is_random(method)]
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(searching)}
    return {name: colours.get(name, QUIET) for name in record.members}


def supernet_colours(record: RunRecord) -> dict[str, str]:
    """One colour per supernet, by identity."""
    return {net.identity: SUPERNET_COLOURS[index % len(SUPERNET_COLOURS)] for index, net in enumerate(record.supernets)}


def front(record: RunRecord, supernet: str, cost_column: str) -> Figure:
    """Accuracy under one supernet against a cost: every network scored with it, the Pareto set and the finalists.

    Shaded by its probability is what may be on the Pareto set, where that is known. Where no cost chose the finalists
    there is no such set.
    """
    colours = member_colours(record)
    ranked = {row["architecture"]: row for row in record.ranking or ()}
    traces = []
    scored: dict[str, Row] = {}
    for place, (member, rows) in enumerate(record.evaluations.items()):
        shown = {row["canonical"]: row for row in rows if row["supernet"] == supernet and _has(row, cost_column)}
        if not shown:
            continue
        scored |= shown
        marker = {
            "color": colours[member],
            "size": 7,
            "opacity": 0.45 if colours[member] == QUIET else 0.65,
            "symbol": SYMBOLS[place // len(COLOURS) % len(SYMBOLS)],
        }
        traces.append(_evaluations(record, list(shown.values()), member, cost_column, marker))
    chances = {key: ranked.get(key, {}).get("front_probability") or 0.0 for key in scored}
    possible = [row for key, row in scored.items() if chances[key] >= belief.POSSIBLE]
    if possible:
        shade = {"color": INK, "size": 12, "opacity": [chances[row["canonical"]] for row in possible]}
        trace = _evaluations(record, possible, "may be on the Pareto set", cost_column, shade)
        told = [f"on the Pareto set with probability {chances[row['canonical']]:.2f}" for row in possible]
        hover = [f"{one}<br>{chance}" for one, chance in zip(trace["hovertext"], told, strict=True)]
        traces.append(trace | {"hovertext": hover})
    pareto = [row for key, row in scored.items() if ranked.get(key, {}).get("on_front")]
    if pareto and not record.by_accuracy_alone:
        ring = {"color": INK, "size": 12, "symbol": "circle-open", "line": {"width": 1.6}}
        traces.append(_evaluations(record, pareto, "Pareto set of the consensus", cost_column, ring))
    finalists = [row for key, row in scored.items() if ranked.get(key, {}).get("finalist")]
    if finalists:
        star = {"color": "#f2b705", "size": 17, "symbol": "star", "line": {"width": 1.2, "color": INK}}
        trace = _evaluations(record, finalists, "finalists", cost_column, star)
        numbers = [f"#{ranked[row['canonical']]['rank']}" for row in finalists]
        traces.append(trace | {"mode": "markers+text", "text": numbers, "textposition": "top center"})
    return _figure(traces, cost_axis(cost_column), "accuracy with shared weights", percent=True)


def best_accuracy(record: RunRecord) -> Figure:
    """The best accuracy that each member has seen, under its own supernet, by evaluations."""
    traces = []
    for member, rows in record.evaluations.items():
        steps = [(count, 100 * (1 - error), name) for count, error, name in best_so_far(rows)]
        labels = sorted({record.supernet_label(row["supernet"]) for row in rows if row["failure"] is None})
        traces.append(_best(record, member, f"{member} · {', '.join(labels)}", steps, "%{y:.1f} %"))
    return _figure([trace for trace in traces if trace["x"]], "networks scored", "best accuracy so far", percent=True)


def best_rank(record: RunRecord) -> Figure:
    """The best consensus rank that each member has found, by evaluations: members of any supernet compare."""
    ranks = {architecture: float(rank) for architecture, rank in record.rank_of().items()}
    traces = [
        _best(record, member, member, best_so_far(rows, ranks), "rank %{y}")
        for member, rows in record.evaluations.items()
    ]
    ticks = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
    axis = {"type": "log", "autorange": "reversed", "tickvals": ticks, "ticktext": [f"{tick:,}" for tick in ticks]}
    return _figure(
        [trace for trace in traces if trace["x"]], "networks scored", "best consensus rank so far", yaxis=axis
    )


def supernet_curves(record: RunRecord, metric: str) -> Figure:
    """A column of the supernets' curves by training step; long curves as means of equally many steps."""
    colours = supernet_colours(record)
    traces = []
    for net in record.supernets:
        steps, values = _smooth(net.curves.get("step", []), net.curves.get(metric, []))
        if values:
            line = {"color": colours[net.identity], "width": 2}
            traces.append(_line(net.label, steps, values, line, f"step %{{x}}: {_words(metric)} %{{y:.3g}}"))
    return _figure(traces, "training step", _words(metric))


def stand_alone_curves(record: RunRecord) -> Figure:
    """Validation accuracy by epoch of everything that was trained from scratch."""
    traces, told = [], set()
    longest = max((len(trial.curves.get("epoch", [])) for trial in record.trials), default=0)
    for trial in sorted(record.trials, key=lambda trial: trial.role == "finalist"):
        pairs = zip(trial.curves.get("epoch", []), trial.curves.get("validation_error", []), strict=True)
        points = [(epoch, 100 * (1 - error)) for epoch, error in pairs if error is not None]
        is_finalist = trial.role == "finalist"
        line = {"color": COLOURS[0] if is_finalist else QUIET, "width": 2.4 if is_finalist else 1.4}
        hover = f"{trial.title}, epoch %{{x}}: %{{y:.1f}} %"
        trace = _line(trial.role, [x for x, _ in points], [y for _, y in points], line, hover)
        trace |= {"legendgroup": trial.role, "showlegend": trial.role not in told}
        traces.append(trace | ({"mode": "lines+markers"} if longest <= FEW_EPOCHS else {}))
        told.add(trial.role)
    figure = _figure([trace for trace in traces if trace["x"]], "epoch", "validation accuracy", percent=True)
    if longest <= FEW_EPOCHS:
        figure["layout"]["xaxis"]["dtick"] = 1
    return figure


def gap(points: Sequence[Mapping[str, Any]], predictor: str) -> Figure:
    """Stand-alone accuracy against what predicts it: `rank` (of the consensus) or a cost such as `parameters`."""
    traces = []
    for role, symbol, colour, size in (("calibration", "circle", QUIET, 9), ("finalist", "star", "#f2b705", 15)):
        known = [point for point in points if None not in (point["stand_alone_error"], point.get(predictor))]
        shown = [point for point in known if point["role"] == role]
        if shown:
            line = {"width": 1.2, "color": INK} if role == "finalist" else {"width": 0}
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": role if role == "calibration" else "finalists",
                    "x": [point[predictor] for point in shown],
                    "y": [100 * (1 - point["stand_alone_error"]) for point in shown],
                    "hovertext": [
                        f"{wrap(point['name'])}<br>consensus rank {point['rank']}<br>"
                        f"stand-alone {accuracy(point['stand_alone_error'])}"
                        for point in shown
                    ],
                    "hovertemplate": "%{hovertext}<extra></extra>",
                    "marker": {"color": colour, "size": size, "symbol": symbol, "line": line},
                }
            )
    title = "consensus rank (1 = best)" if predictor == "rank" else cost_axis(predictor)
    return _figure(traces, title, "stand-alone accuracy", percent=True)


def regret(
    regrets: Mapping[str, NDArray[np.float64]], spent: Mapping[str, NDArray[np.float64]], x: str, baseline: str
) -> Figure:
    """Mean regret of members' searches, (S, E) each, against what was spent by each evaluation, (E,); 95 % shaded.

    On a logarithmic axis, which a mean of 0 falls out of: it is drawn at a third of the smallest above 0.
    """
    means = {name: regrets[name].mean(0) for name in spent}
    above = [mean[mean > 0].min() for mean in means.values() if (mean > 0).any()]
    floor = min(above, default=1.0) / 3
    searching = [name for name in spent if name != baseline]
    traces = []
    for name, mean_E in means.items():
        searches, evaluations = regrets[name].shape
        half_E = 1.96 * regrets[name].std(0, ddof=min(1, searches - 1)) / math.sqrt(searches)
        colour = COLOURS[searching.index(name) % len(COLOURS)] if name in searching else QUIET
        dash = "6px,4px" if name == baseline or searching.index(name) >= len(COLOURS) else "solid"
        shown = sorted({*range(0, evaluations, -(-evaluations // POINTS)), evaluations - 1})
        at = [float(spent[name][place]) for place in shown]
        low, mid, high = (
            [float(max(curve_E[place], floor)) for place in shown]
            for curve_E in (mean_E - half_E, mean_E, mean_E + half_E)
        )
        quiet = {"line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "legendgroup": _short(name)}
        band = {"type": "scatter", "mode": "lines", "x": at, **quiet}
        traces.append(band | {"y": high})
        traces.append(band | {"y": low, "fill": "tonexty", "fillcolor": _faint(colour)})
        line = {"color": colour, "width": 2.2, "dash": dash, "shape": "hv"}
        hover = f"{html.escape(name)}: %{{y:.3g}} after %{{x:,.0f}}<extra></extra>"
        traces.append(_line(name, at, mid, line, hover) | {"legendgroup": _short(name)})
    figure = _figure(traces, x, "mean regret", yaxis={"type": "log", "exponentformat": "power"})
    figure["layout"]["showlegend"] = True
    return figure


def wrap(text: str, width: int = 46) -> str:
    """A name for a hover label: markup escaped, long names over several lines."""
    lines = re.findall(rf".{{1,{width}}}(?:(?<=[|+,;) -])|$)|.{{1,{width}}}", text)
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def _figure(
    traces: list[dict[str, Any]],
    x: str,
    y: str,
    *,
    percent: bool = False,
    yaxis: Mapping[str, Any] | None = None,
) -> Figure:
    suffix = {"ticksuffix": " %"} if percent else {}
    across = {"title": {"text": html.escape(x, quote=False)}}
    up = {"title": {"text": html.escape(y, quote=False)}, **suffix, **(yaxis or {})}
    return {"data": traces, "layout": {"xaxis": across, "yaxis": up, "showlegend": len(traces) > 1}}


def _evaluations(
    record: RunRecord, rows: Sequence[Row], name: str, cost_column: str, marker: Mapping[str, Any]
) -> dict[str, Any]:
    told = [
        "<br>".join(
            [
                wrap(row["name"]),
                f"accuracy {accuracy(row['error'])}",
                *(f"{cost_name(column)} {cost(column, row.get(column))}" for column in record.costs),
            ]
        )
        for row in rows
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _short(name),
        "x": [row[cost_column] for row in rows],
        "y": [100 * (1 - row["error"]) for row in rows],
        "hovertext": told,
        "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
        "marker": dict(marker),
    }


def _best(
    record: RunRecord, member: str, name: str, steps: Sequence[tuple[int, float, str]], value: str
) -> dict[str, Any]:
    is_baseline = is_random(record.members[member])
    line = {
        "color": member_colours(record)[member],
        "width": 3 if is_baseline else 2.2,
        "dash": "6px,4px" if is_baseline else "solid",
        "shape": "hv",
    }
    told = [wrap(name) for _, _, name in steps]
    trace = _line(name, [count for count, _, _ in steps], [best for _, best, _ in steps], line, "")
    return trace | {"hovertext": told, "hovertemplate": f"%{{hovertext}}<br>{value} after %{{x}} evaluations"}


def _line(name: str, x: list[Any], y: list[Any], line: Mapping[str, Any], hover: str) -> dict[str, Any]:
    name = _short(name)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": y,
        "line": dict(line),
        "hovertemplate": hover,
    }


def _smooth(steps: Sequence[Any], values: Sequence[Any]) -> tuple[list[float], list[float]]:
    known = [(step, value) for step, value in zip(steps, values, strict=False) if value is not None]
    size = -(-len(known) // POINTS) or 1
    groups = [known[start : start + size] for start in range(0, len(known), size)]
    means = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]
    return [step for step, _ in means], [value for _, value in means]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.13)"


def _short(name: str, most: int = 36) -> str:
    """A name for a legend."""
    return html.escape(name if len(name) <= most else f"{name[: most - 1]}…", quote=False)


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _has(row: Row, cost_column: str) -> bool:
    return row["failure"] is None and row["error"] is not None and row.get(cost_column) is not None
