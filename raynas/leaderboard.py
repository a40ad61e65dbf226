"""Black-box strategies ranked on a table of known accuracies: means, paired differences, regret curves, one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from raynas import charts
from raynas.config import TableSettings
from raynas.members import load_member, members
from raynas.page import Html, Page, definitions, element, join, table
from raynas.rank_correlation import bootstrap_interval
from raynas.storage import Folder
from raynas.strategy import learns
from raynas.terminal import figures
from raynas.units import cost_axis, span

PAGE, FIGURES = "leaderboard.html", "leaderboard.json"
BASELINE = "random_search"
STAGES = (0.1, 0.25, 0.5, 1.0)  # parts of the budget at which the page tells the regret
SEED = 0  # of the bootstrap: the figures depend on the searches alone


def black_box_methods() -> list[str]:
    """The methods that need nothing but scores: each called after its strategy, which no supernet has taught."""
    strategies = [name for name in members("raynas.strategies") if not learns(load_member("raynas.strategies", name))]
    return [name for name in members("raynas.methods") if name in strategies]


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over searches, and the bootstrap interval that holds it with 95 %."""

    value: float
    low: float
    high: float

    @property
    def is_told_from_zero(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What a member's searches came to, S of them: reports_SE is of the incumbent after each of E evaluations.

    evaluations_S: how many each search made; one that ended early keeps its last report. cost_E: the mean over
    searches of what had been spent by then, None without costs. lead, lag: paired by seed, against the baseline and
    against the best; None against itself, or where there is none.
    """

    name: str
    seeds: tuple[int, ...]
    reports_SE: NDArray[np.float64]
    evaluations_S: tuple[int, ...]
    cost_E: NDArray[np.float64] | None
    mean: Mean
    lead: Mean | None = None
    lag: Mean | None = None


def standings(rows: pa.Table) -> list[Standing]:
    """Members by their mean report at the end, best first, of SEARCH_SCHEMA; equal ones by name.

    A member without any evaluation is left out.
    """
    columns = {name: rows.column(name).to_pylist() for name in ("method", "seed", "cost", "best_report_so_far")}
    searches: dict[str, dict[int, list[int]]] = {}
    for row, (method, seed) in enumerate(zip(columns["method"], columns["seed"], strict=True)):
        searches.setdefault(method, {}).setdefault(seed, []).append(row)
    found = sorted(
        (_standing(name, of_seed, columns) for name, of_seed in searches.items()),
        key=lambda one: (-one.mean.value, one.name),
    )
    base = next((one for one in found if one.name == BASELINE), None)
    return [replace(one, lead=_difference(one, base), lag=_difference(one, found[0])) for one in found]


def write_leaderboard(
    folder: Folder, ranked: Sequence[Standing], settings: TableSettings, best: float, facts: Mapping[str, str]
) -> str:
    """Write `leaderboard.html` and `leaderboard.json` into the folder of the searches; returns the page's path.

    best: the highest report in the table, from which regret is counted. facts: what was searched, by name.
    """
    folder.write_json(FIGURES, {"best": best, "members": [_json(one, best) for one in ranked]})
    page = Page("leaderboard · raynas")
    page.section("regret", "Regret", _regret(ranked, settings, best, page))
    page.section("standings", "Standings", _standings(ranked, settings, best))
    first = ranked[0]
    title = element("div", element("h1", "leaderboard"), _class="top")
    chosen = [
        element("p", "Best strategy", _class="eyebrow"),
        element("p", first.name, _class="sentence"),
        element("p", f"{settings.report} {_with_interval(first.mean)}; the highest in the table is {best:,.6g}."),
        definitions(facts),
    ]
    headline = element("header", title, element("div", element("div", *chosen), _class="hero"))
    folder.write(PAGE, page.write(headline))
    return folder.path(PAGE)


def summary(ranked: Sequence[Standing], settings: TableSettings, best: float) -> Table:
    """The standings for a terminal of 80 columns."""
    searches = max(len(one.seeds) for one in ranked)
    shown = figures(
        f"{settings.report} of the best by {settings.reward}: mean of {searches:,} searches, ± 95 %",
        *("member", "place", "mean", "against random", "against best"),
        caption=(
            f"highest {settings.report} in the table: {best:,.3f}; differences are paired by seed, * where the "
            "interval leaves 0 out"
        ),
    )
    for place, one in enumerate(ranked, start=1):
        shown.add_row(
            Text(one.name),
            str(place),
            _plus_minus(one.mean),
            _difference_text(one.lead),
            _difference_text(one.lag),
        )
    return shown


def _standing(name: str, of_seed: Mapping[int, Sequence[int]], columns: Mapping[str, list[Any]]) -> Standing:
    longest = max(map(len, of_seed.values()))
    seeds = tuple(sorted(of_seed))

    def filled(column: str) -> NDArray[np.float64]:
        values = [[columns[column][row] for row in of_seed[seed]] for seed in seeds]
        return np.array([one + one[-1:] * (longest - len(one)) for one in values], dtype=np.float64)

    reports_SE = filled("best_report_so_far")
    has_cost = columns["cost"][of_seed[seeds[0]][0]] is not None
    cost_E = None
    if has_cost:
        spent = [np.cumsum([columns["cost"][row] for row in of_seed[seed]]) for seed in seeds]
        cost_E = np.mean([np.pad(one, (0, longest - len(one)), mode="edge") for one in spent], axis=0)
    return Standing(name, seeds, reports_SE, tuple(len(of_seed[s]) for s in seeds), cost_E, _mean(reports_SE[:, -1]))


def _difference(one: Standing, other: Standing | None) -> Mean | None:
    if other is None or one.name == other.name:
        return None
    places = {seed: place for place, seed in enumerate(other.seeds)}
    pairs = [(place, places[seed]) for place, seed in enumerate(one.seeds) if seed in places]
    if not pairs:
        return None
    ours, theirs = (list(side) for side in zip(*pairs, strict=True))
    return _mean(one.reports_SE[ours, -1] - other.reports_SE[theirs, -1])


def _mean(values_S: NDArray[np.float64]) -> Mean:
    known_S = values_S[~np.isnan(values_S)]
    if not len(known_S):
        return Mean(math.nan, math.nan, math.nan)
    low, high = bootstrap_interval(lambda values: float(values.mean()), known_S, seed=SEED)
    return Mean(float(known_S.mean()), low, high)


def _json(one: Standing, best: float) -> dict[str, Any]:
    def numbers(mean: Mean | None) -> dict[str, float] | None:
        return None if mean is None else {"value": mean.value, "low": mean.low, "high": mean.high}

    return {
        "name": one.name,
        "searches": len(one.seeds),
        "evaluations": [min(one.evaluations_S), max(one.evaluations_S)],
        "report": numbers(one.mean),
        "regret": best - one.mean.value,
        "against_random": numbers(one.lead),
        "against_best": numbers(one.lag),
    }


# --- the page -----------------------------------------------------------------------------------------------------


def _regret(ranked: Sequence[Standing], settings: TableSettings, best: float, page: Page) -> Html:
    note = f"Mean over searches of what the best by {settings.reward} lacks to the highest {settings.report}; 95 %."
    curves = {one.name: best - one.reports_SE for one in ranked}
    counts = {one.name: np.arange(1.0, one.reports_SE.shape[1] + 1) for one in ranked}
    pieces = [page.chart("By evaluations", charts.regret(curves, counts, "evaluations", BASELINE), note, height=460)]
    if settings.cost is not None:
        spent = {one.name: one.cost_E for one in ranked if one.cost_E is not None}
        figure = charts.regret(curves, spent, f"spent: {cost_axis(settings.cost)}", BASELINE)
        pieces.append(page.chart("By cost", figure, "The same against the mean of what had been spent.", height=460))
    return join(pieces)


def _standings(ranked: Sequence[Standing], settings: TableSettings, best: float) -> Html:
    stages = [f"regret after {part:.0%}" for part in STAGES]
    rows = []
    for place, one in enumerate(ranked, start=1):
        regret_E = best - one.reports_SE.mean(0)
        at = [regret_E[max(0, round(part * len(regret_E)) - 1)] for part in STAGES]
        digits = _decimals(one.mean)
        rows.append(
            [
                place,
                one.name,
                len(one.seeds),
                span(min(one.evaluations_S), max(one.evaluations_S)),
                _with_interval(one.mean),
                *(f"{value:,.{digits}f}" for value in at),
                _with_interval(one.lead, signed=True),
                _with_interval(one.lag, signed=True),
            ]
        )
    heads = ["", "member", "searches", "evaluations", settings.report, *stages, "against random", "against the best"]
    note = "Intervals hold the mean with 95 % (bootstrap over searches); differences are paired by seed."
    return join([element("div", table(heads, rows, range(2, len(heads))), _class="card"), element("p", note)])


# --- numbers ------------------------------------------------------------------------------------------------------


def _decimals(mean: Mean) -> int:
    """So many that the interval's half has two digits."""
    half = (mean.high - mean.low) / 2
    return max(0, min(6, 1 - math.floor(math.log10(half)))) if half > 0 else 3


def _plus_minus(mean: Mean, sign: str = "") -> str:
    digits = _decimals(mean)
    return f"{mean.value:{sign},.{digits}f} ±{(mean.high - mean.low) / 2:.{digits}f}".replace("-", "−")


def _difference_text(mean: Mean | None) -> str:
    return "–" if mean is None else _plus_minus(mean, "+") + ("*" if mean.is_told_from_zero else " ")


def _with_interval(mean: Mean | None, *, signed: bool = False) -> str:
    if mean is None:
        return "–"
    form = f"{'+' if signed else ''},.{_decimals(mean)}f"
    return f"{mean.value:{form}} [{mean.low:{form}}, {mean.high:{form}}]".replace("-", "−")
