"""One self-contained HTML page: its looks, its script, and pieces that escape whatever they are given."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raynas.errors import UserError

MANY = 6
"""So many columns or lines of a legend have room in half of the page."""


class Html(str):
    """Text that is markup already; every other string is escaped before it gets into the page."""

    __slots__ = ()


def escape(content: object) -> Html:
    """Markup as it is, anything else escaped."""
    return content if isinstance(content, Html) else Html(html.escape(str(content)))


def join(pieces: Iterable[object], between: str = "") -> Html:
    """Pieces in a row, each escaped unless it is markup."""
    return Html(between.join(escape(piece) for piece in pieces))


def element(tag: str, *content: object, **attributes: str) -> Html:
    """An element; `_class` and `_for` stand for the attributes that Python reserves."""
    written = "".join(f' {key.lstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return Html(f"<{tag}{written}>{join(content)}</{tag}>")


def definitions(facts: Mapping[str, object]) -> Html:
    """Names and their values, as a list of definitions."""
    return element(
        "dl", *(element("div", element("dt", k), element("dd", v)) for k, v in facts.items()), _class="facts"
    )


def table(headers: Sequence[object], rows: Iterable[Sequence[object]], numeric: Iterable[int] = ()) -> Html:
    """A table that scrolls sideways on a narrow screen; `numeric` columns are set to the right."""
    right = set(numeric)

    def line(tag: str, cells: Sequence[object]) -> Html:
        return element("tr", *(element(tag, cell, _class="r" if i in right else "l") for i, cell in enumerate(cells)))

    head = element("thead", line("th", headers))
    body = element("tbody", *(line("td", row) for row in rows))
    return element("div", element("table", head, body), _class="scroll")


def wide(pieces: int) -> str:
    """The class of what takes the page's whole width where it has many pieces: columns, or lines of a legend."""
    return "wide" if pieces > MANY else ""


class Page:
    """Collects sections and charts, and writes them as one file that needs no network."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.sections: list[tuple[str, str, Html]] = []
        self.charts: dict[str, Any] = {}

    def section(self, identity: str, title: str, *content: object) -> None:
        """Add a section with a heading and an entry in the navigation."""
        self.sections.append((identity, title, join(content)))

    def chart(self, title: str, figure: dict[str, Any], note: str = "", height: int = 340) -> Html:
        """A place for a chart with its title and a line on how to read it."""
        identity, room = f"chart{len(self.charts)}", wide(len(figure["data"]))
        self.charts[identity] = figure
        place = element("div", id=identity, _class="chart", style=f"height:{height + 80 * bool(room)}px")
        caption = element("figcaption", element("b", title), " " if note else "", element("span", note))
        return element("figure", caption, place, _class=room)

    def write(self, headline: Html) -> bytes:
        """The whole page, UTF-8; raises UserError if plotly is not installed."""
        try:
            from plotly.offline import get_plotlyjs
        except ImportError:
            raise UserError(
                "the HTML report needs plotly, which is not installed; pip install plotly, then "
                "raynas report on this folder."
            ) from None
        scripts = [get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n"), _SCRIPT]
        # the page may run these two scripts and nothing else, and may not speak to the network
        hashes = " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
        )
        policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
        data = json.dumps(self.charts, allow_nan=False)
        for character in "<>&":  # within a string of JSON, so that no text can end the element
            data = data.replace(character, f"\\u{ord(character):04x}")
        links = join(element("a", title, href=f"#{identity}") for identity, title, _ in self.sections)
        body = join(
            element("section", element("h2", title), content, id=identity) for identity, title, content in self.sections
        )
        return (
            "<!doctype html>\n"
            '<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{html.escape(self.title)}</title><style>{_STYLE}</style></head>\n"
            f"<body>{headline}<nav>{links}</nav><main>{body}</main>\n"
            f'<script type="application/json" id="charts">{data}</script>\n'
            f"<script>{scripts[0]}</script>\n<script>{scripts[1]}</script></body></html>\n"
        ).encode()


_STYLE = """
:root{--page:#f3f5f8;--card:#fff;--ink:#18202b;--soft:#5a6676;--line:#dfe4ea;--accent:#0b6aa8;--tint:#e8f1f8;
--star:#f2b705;--warn:#b3480a;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--page:#0e1217;--card:#171d25;--ink:#e6ebf1;--soft:#9aa7b6;--line:#2a333f;
--accent:#58b1ec;--tint:#152838;--star:#f2b705;--warn:#f0965a}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:3.2rem}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%;overflow-wrap:break-word}
header,main{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:26px}
h1{font-size:1.05rem;font-weight:600;margin:0}
h2{font-size:1.3rem;margin:0 0 .7rem;letter-spacing:-.01em}
h3{font-size:1rem;margin:0 0 .3rem}
p{margin:.3rem 0 .8rem;max-width:75ch}
a{color:var(--accent)}
code,.name{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.82em;
overflow-wrap:anywhere}
.name{user-select:all;color:var(--soft);line-height:1.4;display:block}
.nowrap,td code:not(.name){white-space:nowrap}
.soft{color:var(--soft)}
.note{color:var(--soft);font-size:.9rem}
.top{display:flex;flex-wrap:wrap;gap:.2rem 1rem;justify-content:space-between;align-items:baseline;margin-bottom:14px}
.card,figure,.hero{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:18px 20px}
.hero{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:8px 32px;padding:24px 28px}
.hero .picture{display:flex;align-items:center;justify-content:center}
.hero .trust{grid-column:1/-1;border-top:1px solid var(--line);padding-top:16px;margin-top:8px}
.eyebrow{text-transform:uppercase;letter-spacing:.07em;font-size:.72rem;font-weight:650;color:var(--soft);margin:0}
.big{font-size:clamp(2.6rem,8vw,4.2rem);font-weight:700;line-height:1.05;letter-spacing:-.03em;margin:.1rem 0 0}
.big small{font-size:1.05rem;font-weight:500;letter-spacing:0;color:var(--soft)}
.sentence{font-size:1.15rem;line-height:1.45;font-weight:550;margin:.25rem 0 .8rem;max-width:80ch}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(104px,1fr));gap:10px 18px;margin:14px 0}
.facts div{border-left:3px solid var(--line);padding-left:10px}
.facts dt,.facts dd,dl{margin:0}
.facts dt{font-size:.78rem;color:var(--soft)}
.facts dd{font-weight:640;font-variant-numeric:tabular-nums}
.badge{display:inline-block;border-radius:99px;padding:.08rem .6rem;font-size:.78rem;font-weight:600;
background:var(--tint);color:var(--accent);white-space:nowrap}
.badge.star{background:var(--star);color:#221a00}
.badge.warn{background:none;border:1px solid var(--warn);color:var(--warn)}
nav{position:sticky;top:0;z-index:5;background:var(--page);border-bottom:1px solid var(--line);margin-top:16px;
display:flex;gap:4px 18px;overflow-x:auto;padding:10px max(20px,calc((100vw - 1180px)/2 + 20px));white-space:nowrap}
nav a{text-decoration:none;color:var(--soft);font-size:.9rem}
nav a:hover{color:var(--accent)}
section{margin:34px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,310px),1fr));gap:16px}
.cards .card{display:flex;flex-direction:column;gap:8px}
.cards p,.cards .facts{margin:0}
.cards .picture{flex:1;display:flex;align-items:center;justify-content:center;padding:8px 0}
.card.chosen{border-color:var(--star);box-shadow:0 0 0 1px var(--star)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:16px;margin:14px 0}
.grid.three{grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr))}
.grid>*{min-width:0}
.grid>.wide{grid-column:1/-1}
figure{margin:0;padding:14px 14px 6px}
figcaption{font-size:.9rem;color:var(--soft);padding:0 4px}
figcaption b{color:var(--ink);font-size:.98rem}
.chart{width:100%}
svg.drawing{max-width:100%;height:auto;display:block}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);font-size:.8rem;text-align:left;vertical-align:bottom}
th,td{padding:7px 12px 7px 0;border-bottom:1px solid var(--line)}
tbody tr:last-child td{border-bottom:0}
.r{text-align:right;white-space:nowrap}
td .name{min-width:210px}
td{vertical-align:top}
.dot{display:inline-block;width:.72em;height:.72em;border-radius:50%;margin-right:.5em}
.heat{width:auto}
.heat td,.heat th{text-align:center;padding:9px 14px;border:2px solid var(--card)}
.heat .l:first-child,.heat th{text-align:right;color:var(--soft);font-weight:600;font-size:.82rem}
.heat th{text-align:center}
.intervals{display:grid;grid-template-columns:max-content minmax(110px,1fr) max-content;gap:7px 14px;align-items:center;
font-size:.9rem;font-variant-numeric:tabular-nums}
.intervals .main{font-weight:650}
.track{position:relative;height:16px;min-width:0;
background:linear-gradient(90deg,transparent calc(50% - .5px),var(--soft) 0,var(--soft) calc(50% + .5px),transparent 0)
,linear-gradient(var(--line),var(--line)) center/100% 2px no-repeat}
.track i,.track b{position:absolute;top:50%;transform:translateY(-50%);border-radius:99px}
.track i{height:6px;opacity:.4}
.track b{width:13px;height:13px;margin-left:-6.5px;border:2px solid var(--card)}
.scale{display:flex;justify-content:space-between;font-size:.75rem;color:var(--soft)}
.bars{display:grid;grid-template-columns:max-content minmax(0,1fr) max-content;gap:6px 12px;align-items:center}
.bars i{display:block;height:14px;border-radius:4px;background:var(--accent);opacity:.75;min-width:2px}
.waiting{border:1px dashed var(--line);border-radius:12px;padding:16px 18px;color:var(--soft);max-width:none}
details{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:10px 16px;margin:10px 0}
summary{cursor:pointer;font-weight:600}
pre{overflow-x:auto;font-size:.8rem;line-height:1.45}
footer{color:var(--soft);font-size:.85rem;margin:30px 0}
@media(max-width:640px){header,main{padding-left:14px;padding-right:14px}.hero{grid-template-columns:minmax(0,1fr);
padding:18px}.card{padding:16px}figure{padding:12px 6px 4px}figcaption{padding:0 8px}nav{padding:9px 14px}
.sentence{font-size:1.05rem}
.intervals{grid-template-columns:minmax(0,1fr) max-content;grid-auto-flow:row dense;gap:2px 10px}
.intervals .track,.intervals .scale{grid-column:1/-1;margin-bottom:5px}.void{display:none}
.heat td,.heat th{padding:8px 7px}}
@media print{nav{display:none}.card,figure{break-inside:avoid}}
"""

_SCRIPT = """
"use strict";
const raw = document.getElementById("charts").textContent;
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 640px), (pointer: coarse)");
function draw() {
  const style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue(name).trim();
  const ink = colour("--ink"), soft = colour("--soft"), line = colour("--line"), card = colour("--card");
  const charts = JSON.parse(raw.replaceAll('"@ink"', JSON.stringify(ink)));
  const axis = {gridcolor: line, zeroline: false, linecolor: line, automargin: true, title: {standoff: 10},
    tickfont: {color: soft}};
  for (const [id, chart] of Object.entries(charts)) {
    const own = chart.layout;
    const merge = given => ({...axis, ...given, title: {...axis.title, ...(given || {}).title}});
    const count = {exponentformat: "SI", minexponent: 4, separatethousands: true, nticks: narrow.matches ? 5 : 8};
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {color: ink, size: 12.5, family: getComputedStyle(document.body).fontFamily},
      margin: {l: 48, r: 14, t: 14, b: 44}, hovermode: "closest", dragmode: narrow.matches ? false : "zoom",
      hoverlabel: {bgcolor: card, bordercolor: soft, align: "left", font: {color: ink, size: 12}, namelength: -1},
      legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: {size: 11.5},
        itemsizing: "constant"},
      ...own, xaxis: {...count, ...merge(own.xaxis)}, yaxis: merge(own.yaxis),
    };
    Plotly.react(id, chart.data, layout, {responsive: true, displayModeBar: false});
  }
}
draw();
dark.addEventListener("change", draw);
"""
