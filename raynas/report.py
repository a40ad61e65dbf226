"""The report of a run: one HTML file that says what was found, what it costs and how far to trust the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raynas import belief, charts, near_best, stability
from raynas.architecture import decode
from raynas.drawing import draw, palette
from raynas.page import Html, Page, definitions, element, join, table, wide
from raynas.run_record import RunRecord, Trial, best_so_far, is_rejected, load_space, read_run
from raynas.space import SearchSpace
from raynas.storage import Folder
from raynas.units import accuracy, cost, cost_name, duration, interval, rank, signed

CURVES = ("step", "loss", "seconds", "images_per_s", "learning_rate", "derived_operations")
"""Of a supernet, without a chart of their own; others are its rule's."""


def write_report(folder: Folder) -> str:
    """Write `report.html` into a run's folder and return its path; stages that have not run are named in it.

    Raises UserError if plotly is not installed, or if the folder is no run's or holds broken files.
    """
    record = read_run(folder)
    space = load_space(record)
    page = Page(f"{record.name} · raynas")
    page.section("finalists", "Finalists", _finalists(record, space, page))
    page.section("trust", "How far to trust the ranking", _trust(record, page))
    page.section("front", "Accuracy against cost", _front(record, page))
    page.section("members", "Members of the search", _members(record, page))
    page.section("supernets", "Supernets", _supernets(record, space, page))
    page.section("failures", "Failures", _failures(record))
    page.section("time", "Time per stage", _time(record))
    page.section("settings", "Settings and versions", _settings(record))
    folder.write("report.html", page.write(_headline(record, space)))
    return folder.path("report.html")


# --- headline -----------------------------------------------------------------------------------------------------


def _headline(record: RunRecord, space: SearchSpace | None) -> Html:
    top = element(
        "div", element("h1", record.name), element("span", _extent(record, space), _class="soft"), _class="top"
    )
    trust = element(
        "div", element("p", "Can the ranking be trusted?", _class="eyebrow"), _verdict(record), _class="trust"
    )
    return element("header", top, element("div", _choice(record, space), trust, _class="hero"))


def _extent(record: RunRecord, space: SearchSpace | None) -> str:
    rows = [row for rows in record.evaluations.values() for row in rows]
    distinct = len({row["canonical"] for row in rows if row["failure"] is None})
    parts = [_plural(len(record.supernets), "supernet")] if record.supernets else []
    if rows:
        size = f" of {space.size:,}" if space else ""
        parts += [f"{_plural(len(record.evaluations), 'member')} made {_plural(len(rows), 'evaluation')}"]
        parts += [f"{distinct:,} distinct networks scored{size}"]
    if record.seconds:
        parts.append(duration(sum(record.seconds.values())))
    return " · ".join(parts)


def _choice(record: RunRecord, space: SearchSpace | None) -> Html:
    trial = record.chosen
    if trial is None or trial.result is None:
        leader = record.ranking[0] if record.ranking else None
        text = element("p", "No architecture chosen yet: no finalist has been trained from scratch.", _class="sentence")
        if leader is None:
            return element("div", text)
        price = definitions(_costs(record, leader))
        leading = element("p", "Leading the ranking so far:"), element("code", leader["name"], _class="name"), price
        return join([element("div", text, *leading), _picture(space, leader["architecture"], leader["name"])])
    tested = trial.value("test_error")
    error = trial.value("validation_error") if tested is None else tested
    kind = "validation" if tested is None else "test"
    found = record.found_by(trial.architecture)
    facts = {"validation accuracy": accuracy(trial.value("validation_error"))} if tested is not None else {}
    facts |= _costs(record, {**record.row(trial), **trial.result})
    why = f"Lowest stand-alone validation error of {_plural(len(record.finalists), 'finalist')}"
    why += "; the test set took no part in the choice." if tested is not None else "."
    if found:
        why += f" Scored by {', '.join(found)}."
    return join(
        [
            element(
                "div",
                element("p", "Chosen architecture, trained from scratch", _class="eyebrow"),
                element("p", accuracy(error), " ", element("small", f"{kind} accuracy"), _class="big"),
                definitions(facts),
                element("code", trial.name, _class="name"),
                element("p", why, _class="note"),
            ),
            _picture(space, trial.architecture, trial.name),
        ]
    )


def _verdict(record: RunRecord) -> Html:
    if record.gap is None:
        return _waiting(
            "Not measured yet: gap.json is written once finalists and calibration architectures are trained."
        )
    rows = {"consensus ranking": record.gap.get("tau")}
    rows |= {f"counting {name}": found.get("tau") for name, found in record.gap.get("baseline", {}).items()}
    return join([element("p", record.gap.get("sentence", ""), _class="sentence"), _intervals(rows, "Kendall's tau-b")])


# --- sections -----------------------------------------------------------------------------------------------------


def _finalists(record: RunRecord, space: SearchSpace | None, page: Page) -> Html:
    chosen = record.chosen
    cards = (
        element("div", *(_card(record, trial, space, trial is chosen) for trial in record.finalists), _class="cards")
        if record.finalists
        else _waiting("No finalist has been named yet: the ranking, or what calibrates it, has not been made.")
    )
    if record.trained_otherwise:
        cards = join([element("p", record.trained_otherwise, _class="note"), cards])
    figure = charts.stand_alone_curves(record)
    if not figure["data"]:
        return cards
    note = "Finalists and calibration architectures; curves that still rise at the end were cut short."
    return join([cards, element("div", page.chart("Training from scratch", figure, note, 280), _class="grid")])


def _card(record: RunRecord, trial: Trial, space: SearchSpace | None, is_chosen: bool) -> Html:
    row = record.row(trial)
    if trial.failure:
        state = element("p", _warning("failed"), " ", trial.failure)
    elif trial.result is None:
        state = element("p", element("span", "not trained yet", _class="badge"))
    else:
        facts = {
            "validation accuracy": accuracy(trial.value("validation_error")),
            "test accuracy": accuracy(trial.value("test_error")),
        }
        state = definitions(facts | _costs(record, {**row, **trial.result}))
    ranks = [f"{label} {rank(row.get(f'rank_{label}'))}" for label in record.rankers]
    badges = [element("span", f"consensus rank {trial.rank}", _class="badge")]
    badges += [element("span", "chosen", _class="badge star")] if is_chosen else []
    notes = [element("p", "Rank by ", " · ".join(ranks), _class="note")] if row and ranks else []
    if found := record.found_by(trial.architecture):
        notes.append(element("p", f"Scored by {', '.join(found)}", _class="note"))
    return element(
        "div",
        element("div", join(badges, " ")),
        _picture(space, trial.architecture, trial.name),
        state,
        *notes,
        element("code", trial.name, _class="name"),
        _class="card chosen" if is_chosen else "card",
    )


def _trust(record: RunRecord, page: Page) -> Html:
    pieces: list[Html] = []
    if record.gap is None:
        pieces.append(_waiting("The gap has not been measured yet: gap.json is missing."))
    else:
        pieces.append(_gap(record, record.gap, page))
    if record.agreement is None:
        pieces.append(_waiting("The rankers have not been compared yet: agreement.json is missing."))
    else:
        pieces.append(_agreement(record.agreement))
    return join(pieces)


def _gap(record: RunRecord, gap: Mapping[str, Any], page: Page) -> Html:
    measures = {"consensus": gap} | dict(gap.get("rankers", {}))
    measures |= {f"counting {name}": found for name, found in gap.get("baseline", {}).items()}
    points = gap.get("points", [])
    count = gap.get("n", len(points))
    figures = []
    if points:
        note = "A ranking to trust falls from left to right."
        figures.append(page.chart("Does a better rank train better?", charts.gap(points, "rank"), note))
        for name in gap.get("baseline", {}):
            note = "The baseline: what the cost alone foretells."
            title = f"Would counting {cost_name(name)} do?"
            figures.append(page.chart(title, charts.gap(points, name), note))
    facts = {
        "trained from scratch": str(count),
        "value gap: stand-alone minus shared weights": _points(gap.get("value_gap")),
        "regret of taking the first": _points(gap.get("regret")),
    }
    intervals = [
        element("div", element("h3", f"{title}, 95 % interval"), scale, _class="card")
        for key, title in (("tau", "Kendall's tau-b"), ("rho", "Spearman's rho"))
        if (scale := _intervals({name: found.get(key) for name, found in measures.items()}, title))
    ]
    near = [element("p", told, _class="note")] if (told := near_best.in_words(gap)) else []
    return join([definitions(facts), *near, _grid(figures), _grid(intervals), _stability(gap)])


def _stability(gap: Mapping[str, Any]) -> Html:
    """What other seeds and late steps make of the ranked architectures; nothing in a gap that has none."""
    rows = stability.rows(gap)
    if not rows:
        return Html()
    note = f"{stability.NOTE} {gap.get('missing') or ''}"
    return element(
        "div",
        element("h3", "Stability of the rankings"),
        table(stability.HEADERS, rows, numeric=range(1, len(stability.HEADERS))),
        element("p", note, _class="note"),
        _class="card",
    )


def _agreement(agreement: Mapping[str, Any]) -> Html:
    rankers = agreement["rankers"]
    head = element("tr", element("th", ""), *(element("th", name) for name in rankers))
    lines = [
        element("tr", element("td", name, _class="l"), *(_heat(value) for value in values))
        for name, values in zip(rankers, agreement["tau"], strict=True)
    ]
    heat = element("div", element("table", head, *lines, _class="heat"), _class="scroll")
    disputed = table(
        ("architecture", *rankers),
        [
            (element("code", entry["name"], _class="name"), *(rank(entry["ranks"].get(name)) for name in rankers))
            for entry in agreement["most_disputed"][:8]
        ],
        numeric=range(1, len(rankers) + 1),
    )
    told = " ".join(
        filter(
            None, (belief.undecided_in_words(agreement), belief.race_in_words(agreement), belief.sentence(agreement))
        )
    )
    believed = element(
        "div",
        element("h3", "How far rankers are to be believed"),
        table(belief.HEADERS, belief.rows(agreement), numeric=range(1, len(belief.HEADERS))),
        element("p", f"{told} {belief.NOTE}", _class="note"),
        _class="card",
    )
    card = f"card {wide(len(rankers))}".strip()
    return element(
        "div",
        believed,
        element("div", element("h3", "Agreement between rankers (Kendall's tau)"), heat, _class=card),
        element("div", element("h3", "Most disputed: rank by each ranker"), disputed, _class=card),
        _class="grid",
    )


def _front(record: RunRecord, page: Page) -> Html:
    column = record.main_cost
    scored = {row["supernet"] for rows in record.evaluations.values() for row in rows if row["failure"] is None}
    if not scored or column is None:
        return _waiting("Nothing has been scored yet: evaluations/ holds no evaluation.")
    figures = [
        page.chart(
            f"Supernet {net.label}" if len(scored) > 1 else f"Accuracy against {cost_name(column)}",
            charts.front(record, net.identity, column),
            height=400,
        )
        for net in record.supernets
        if net.identity in scored
    ]
    rings = (
        ""
        if record.by_accuracy_alone
        else "Rings: Pareto set of the consensus and the cost; shades: what may be on it, the darker the likelier. "
    )
    note = (
        f"Every network that a member had scored. {rings}Stars: finalists with their consensus rank. "
        f"{belief.front_in_words(record.agreement or {})} {record.finalists_in_words or ''} Accuracies with the "
        "weights of different supernets do not compare with each other, nor with those of networks trained from "
        "scratch."
    )
    return join([element("p", note, _class="note"), _grid(figures)])


def _members(record: RunRecord, page: Page) -> Html:
    if not record.evaluations:
        return _waiting("The population has not run yet: evaluations/ is empty.")
    colours = charts.member_colours(record)
    ranks = {architecture: float(place) for architecture, place in record.rank_of().items()}
    lines = []
    for member, method in record.members.items():
        rows = record.evaluations.get(member, [])
        dot = element("span", _class="dot", style=f"background:{colours[member]}")
        is_lost = record.ended.get(member, {}).get("state") == "failed"
        rejected = sum(is_rejected(row) for row in rows)
        failed = sum(row["failure"] is not None for row in rows) - rejected
        best, found = best_so_far(rows), best_so_far(rows, ranks)
        after = next((count for count, place, _ in found if place == found[-1][1]), "–")
        nets = {record.supernet_label(row["supernet"]) for row in rows}
        lines.append(
            (
                element("span", dot, member, *([" ", _warning("failed")] if is_lost else []), _class="nowrap"),
                method,
                ", ".join(sorted(nets)) or "–",
                str(len(rows) - rejected - failed) if rows else _warning("none"),
                str(rejected),
                _warning(str(failed)) if failed else "0",
                accuracy(best[-1][1] if best else None),
                rank(found[-1][1] if found else None),
                str(after),
                duration(rows[-1]["wall_s"]) if rows and rows[-1]["wall_s"] is not None else "–",
            )
        )
    headers = (
        "member",
        "method",
        "supernet",
        "scored",
        "rejected",
        "failed",
        "best accuracy",
        "best rank",
        "found after",
        "time",
    )
    pieces = []
    if ranks:
        note = "By the consensus of all rankers, so that members on different supernets compare. Dashed: random search."
        pieces.append(page.chart("Best consensus rank so far", charts.best_rank(record), note))
    note = "Under each member's own supernet: compare lines of the same supernet only. Dashed: random search."
    pieces.append(page.chart("Best accuracy so far", charts.best_accuracy(record), note))
    overview = element("div", table(headers, lines, numeric=range(3, 10)), _class="card")
    return join([_grid(pieces), overview])


def _supernets(record: RunRecord, space: SearchSpace | None, page: Page) -> Html:
    if not record.supernets:
        return _waiting("No supernet has been trained yet: supernets/ is empty.")
    columns = dict.fromkeys(name for net in record.supernets for name in net.curves if name not in CURVES)
    figures = []
    for name in ("loss", *columns):
        figure = charts.supernet_curves(record, name)
        if not (traces := figure["data"]):
            continue
        whose = traces[0]["name"] if len(traces) == 1 else ""
        note = "Training loss of the sampled paths." if name == "loss" else whose
        figures.append(page.chart(name.replace("_", " ").capitalize(), figure, note, 300))
    colours = charts.supernet_colours(record)
    lines = [
        (
            join([element("span", _class="dot", style=f"background:{colours[net.identity]}"), net.label]),
            net.state.get("rule", "–"),
            str(net.state.get("steps", "–")),
            f"{speed:,.0f}" if (speed := net.state.get("images_per_s")) else "–",
            str(net.state.get("seed", "–")),
            _warning("failed") if net.state.get("failure") else "",
            element("code", net.identity),
        )
        for net in record.supernets
    ]
    overview = table(("supernet", "training rule", "steps", "images/s", "seed", "", "id"), lines, numeric=(2, 3, 4))
    learnt = [_probabilities(net.label, net.state["probabilities"], space) for net in record.supernets if _learnt(net)]
    collapses = [element("p", _warning("collapsed"), f" {net.collapse}") for net in record.supernets if net.collapse]
    return join([_grid(figures), element("div", overview, _class="card"), *collapses, *learnt])


def _learnt(net: Any) -> bool:
    """Whether a supernet's rule learnt a distribution over choices that is no longer uniform."""
    blocks = net.state.get("probabilities") or []
    return any(max(block) - min(block) > 1e-6 for block in blocks)


def _probabilities(label: str, blocks: list[list[float]], space: SearchSpace | None) -> Html:
    known = space.blocks if space and [len(b.choices) for b in space.blocks] == [len(b) for b in blocks] else None
    alike = known is not None and len({block.choices for block in known}) == 1
    width = max(map(len, blocks))
    names = known[0].choices if known and alike else [f"choice {index}" for index in range(width)]
    lines = [
        element(
            "tr",
            element("td", known[index].name if known else f"block {index + 1}", _class="l"),
            *(_heat(value, percent=True, of=known[index].choices[c] if known else "") for c, value in enumerate(block)),
        )
        for index, block in enumerate(blocks)
    ]
    head = element("tr", element("th", ""), *(element("th", name) for name in names))
    heat = element("div", element("table", head, *lines, _class="heat"), _class="scroll")
    return element(
        "div", element("div", element("h3", f"What {label} learnt: probability of each choice"), heat, _class="card"),
        _class="grid",
    )  # fmt: skip


def _failures(record: RunRecord) -> Html:
    rejected = sum(is_rejected(row) for rows in record.evaluations.values() for row in rows)
    limits = ", ".join(
        f"{cost_name(name)} ≤ {cost(name, limit)}" for name, limit in record.section("constraints").items()
    )
    pieces: list[object] = []
    if limits and record.evaluations:
        pieces.append(element("p", f"{_plural(rejected, 'candidate')} rejected before scoring by {limits}."))
    if found := record.failures():
        rows = [
            (where, str(count), reason, element("code", example, _class="name") if example else "")
            for where, reason, count, example in found
        ]
        pieces.append(
            element("div", table(("where", "times", "reason", "first architecture"), rows, numeric=(1,)), _class="card")
        )
    else:
        pieces.append(element("p", "Nothing has failed."))
    return join(pieces)


def _time(record: RunRecord) -> Html:
    if not record.seconds:
        return _waiting("No stage has ended yet: timings.json is missing.")
    longest = max(record.seconds.values()) or 1.0
    cells: list[Html] = []
    for stage, seconds in record.seconds.items():
        bar = element("span", element("i", style=f"width:{100 * seconds / longest:.1f}%"))
        cells += [element("span", stage), bar, element("span", duration(seconds), _class="r")]
    total = element("p", f"Together {duration(sum(record.seconds.values()))}.", _class="note")
    return element("div", element("div", *cells, _class="bars"), total, _class="card")


def _settings(record: RunRecord) -> Html:
    versions = table(("what", "version"), [(name, _flat(value)) for name, value in record.versions.items()])
    return join(
        [
            element("details", element("summary", "Settings (config.toml)"), element("pre", record.config_text)),
            element("details", element("summary", "Versions"), versions),
            element("footer", "One file, no network: charts need nothing but this page. Its data lie beside it as "
                    "Parquet, JSON and TOML."),
        ]
    )  # fmt: skip


# --- pieces -------------------------------------------------------------------------------------------------------


def _picture(space: SearchSpace | None, architecture: str, name: str) -> Html:
    if space is None:
        return Html()
    try:
        connections = space.connections(space.check(decode(architecture)))
    except Exception:  # a space that has changed since, or whose own drawing fails, leaves the name
        return Html()
    choices = [choice for block in space.blocks for choice in block.choices]
    colours = palette([*choices, *(choice.partition(" ")[0] for choice in choices)])  # of "pool 0" the "pool" is drawn
    return element("div", Html(draw(connections, colours, name)), _class="picture")


def _costs(record: RunRecord, values: Mapping[str, Any]) -> dict[str, str]:
    # latency is measured for whatever is trained from scratch, even where it is no cost of the search
    names = dict.fromkeys((*record.costs, *(["latency_ms"] if values.get("latency_ms") is not None else [])))
    return {cost_name(name): cost(name, values.get(name)) for name in names}


def _intervals(measures: Mapping[str, Any], what: str) -> Html:
    """Correlations on a scale from -1 to +1; nothing where none was measured."""
    if all(measure is None or measure.get("value") is None for measure in measures.values()):
        return Html()
    cells: list[Html] = []
    for index, (name, measure) in enumerate(measures.items()):
        colour = "var(--accent)" if not index else "#808894"
        marks = []
        if measure and measure.get("value") is not None:
            if measure.get("low") is not None and measure.get("high") is not None:
                low, high = (50 + 50 * measure[end] for end in ("low", "high"))
                marks.append(element("i", style=f"left:{low:.1f}%;width:{high - low:.1f}%;background:{colour}"))
            marks.append(element("b", style=f"left:{50 + 50 * measure['value']:.1f}%;background:{colour}"))
        cells.append(element("span", name, _class="main" if not index else ""))
        cells += [element("span", *marks, _class="track"), element("span", interval(measure), _class="r")]
    ends = element("span", *(element("span", end) for end in ("−1", what, "+1")), _class="scale")
    return element("div", *cells, element("span", _class="void"), ends, _class="intervals")


def _heat(value: float | None, *, percent: bool = False, of: str = "") -> Html:
    if value is None:
        return element("td", "–")
    colour = "var(--accent)" if value >= 0 else "var(--warn)"
    strength = min(abs(value), 1.0) * 70
    text = f"{100 * value:.0f} %" if percent else signed(value)
    style = f"background:color-mix(in srgb,{colour} {strength:.0f}%,transparent)"
    return element("td", text, style=style, title=of)


def _grid(pieces: Sequence[Html]) -> Html:
    """Side by side: two columns for two or four, otherwise three where the screen has room."""
    return element("div", *pieces, _class="grid" if len(pieces) in (2, 4) else "grid three")


def _warning(text: str) -> Html:
    return element("span", text, _class="badge warn")


def _waiting(text: str) -> Html:
    return element("p", text, _class="waiting")


def _points(gap: float | None) -> str:
    return "–" if gap is None else f"{signed(100 * gap)} points"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _flat(value: Any) -> str:
    return ", ".join(f"{k} {_flat(v)}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
