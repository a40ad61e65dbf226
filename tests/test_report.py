from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from raynas.belief import POSSIBLE
from raynas.errors import UserError
from raynas.page import Page
from raynas.report import write_report
from raynas.run_record import best_so_far, is_random, read_run
from raynas.storage import Folder
from raynas.summary import agreement_in_words, print_summary
from raynas.terminal import figures
from raynas.units import accuracy, cost, duration, interval, quantity
from tests.example_run import MEMBERS, NASTY, build

STAGES = {
    "config.toml": "No supernet has been trained yet",
    "supernets": "The population has not run yet",
    "evaluations": "No finalist has been named yet",
    "ranking.parquet": "The rankers have not been compared yet",
    "agreement.json": "no finalist has been trained from scratch",
    "finalists": "The gap has not been measured yet",
    "gap.json": "No stage has ended yet",
}


class Reader(HTMLParser):
    """What a browser would make of the page: its elements, attributes and visible text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.text, self.inside = [], [], [], "", None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += data

    @property
    def charts(self):
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return {ugly: build(place / f"ugly_{ugly}", ugly=ugly, evaluations=48) for ugly in (False, True)}


@pytest.fixture(scope="module")
def pages(runs):
    return {ugly: Reader(Path(write_report(folder)).read_text(encoding="utf-8")) for ugly, folder in runs.items()}


@pytest.fixture
def run(runs, tmp_path):
    """A copy to break."""
    shutil.copytree(runs[False].location, tmp_path / "run")
    return Folder(str(tmp_path / "run"))


def summary(folder, width=80):
    console = Console(file=io.StringIO(), width=width)
    print_summary(folder, console)
    return console.file.getvalue()


# --- the page as a file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ugly", [False, True])
def test_names_and_failures_from_files_stay_text(pages, ugly):
    page = pages[ugly]
    assert page.tags.count("script") == 3 and not {"img", "b<"} & set(page.tags)
    assert not [found for found in page.attributes if found[1].startswith("on") or found[1] == "src"]
    assert (NASTY in page.text) == ugly


def test_only_the_pages_own_scripts_may_run_and_none_may_use_the_network(pages):
    policy = next(value for tag, key, value in pages[True].attributes if key == "content" and "script-src" in value)
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    own = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in pages[True].scripts[1:]]
    assert allowed == own and "default-src 'none'" in policy
    links = [value for tag, key, value in pages[True].attributes if key in ("href", "src", "action")]
    assert links and all(link.startswith("#") for link in links)


def test_plotly_understands_every_chart(pages):
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for page in pages.values():
        assert len(page.charts) >= 10
        for identity, chart in page.charts.items():
            assert ("div", "id", identity) in page.attributes
            text = json.dumps(chart).replace('"@ink"', '"#000"')
            graph_objects.Figure(json.loads(text))  # raises on an unknown property or value


def test_names_in_charts_are_escaped_for_plotlys_own_markup(pages):
    text = json.dumps(pages[True].charts)
    assert "<script" not in text and "<img" not in text and "&lt;script" in text


def test_a_page_without_plotly_is_refused_with_the_mend(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(UserError, match="pip install plotly, then"):
        write_report(runs[False])


def test_reading_a_run_needs_neither_torch_nor_ray_nor_plotly():
    code = (
        "import sys, raynas.report, raynas.summary, raynas.progress\n"
        "print({'torch', 'ray', 'plotly'} & set(sys.modules))"
    )
    place = Path(__file__).parents[1]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=place, text=True).strip() == "set()"


# --- what it says -------------------------------------------------------------------------------------------------


def test_the_choice_is_made_by_validation_and_reported_by_test_accuracy(run):
    for place, validation, test in (("1", 0.10, 0.01), ("2", 0.05, 0.30), ("3", 0.20, 0.02)):
        result = run.read_json(f"finalists/{place}/result.json")
        run.write_json(f"finalists/{place}/result.json", result | {"validation_error": validation, "test_error": test})
    assert read_run(run).chosen.rank == 2
    page = Reader(Path(write_report(run)).read_text())
    assert "70.0 % test accuracy" in page.text
    assert "2 *       95.0 %  70.0 %" in summary(run)


def test_a_failed_finalist_is_shown_and_never_chosen(run):
    result = run.read_json("finalists/2/result.json")
    failed = {"validation_error": None, "test_error": None, "failure": "the loss is nan"}
    run.write_json("finalists/2/result.json", result | failed)
    assert read_run(run).chosen.rank != 2
    text = Reader(Path(write_report(run)).read_text()).text
    assert "failed the loss is nan" in text
    assert "finalist 2" in summary(run)


@pytest.mark.parametrize("ugly", [False, True])
def test_the_trust_sentence_stands_in_the_headline_and_in_the_summary(runs, pages, ugly):
    sentence = runs[ugly].read_json("gap.json")["sentence"]
    assert pages[ugly].text.index(sentence) < pages[ugly].text.index("How far to trust the ranking")
    assert "".join(sentence.split()) in "".join(summary(runs[ugly]).split())


@pytest.mark.parametrize("last", STAGES)
def test_a_stage_that_has_not_run_is_named(runs, tmp_path, last):
    source, names = Path(runs[False].location), list(STAGES)
    for name in names[: names.index(last) + 1]:
        if (source / name).is_dir():
            shutil.copytree(source / name, tmp_path / name)
        else:
            shutil.copy(source / name, tmp_path / name)
    folder = Folder(str(tmp_path))
    assert STAGES[last] in Reader(Path(write_report(folder)).read_text()).text
    assert "Report:" in summary(folder)


def test_named_finalists_appear_before_they_are_trained(run):
    shutil.rmtree(Path(run.location, "finalists"))
    text = Reader(Path(write_report(run)).read_text()).text
    assert text.count("not trained yet") == 3 and "No architecture chosen yet" in text


def test_rejections_are_counted_apart_from_failures(runs, pages):
    record = read_run(runs[True])
    rows = [row for rows in record.evaluations.values() for row in rows]
    rejected = sum(str(row["failure"]).startswith("constraint:") for row in rows)
    assert rejected and f"{rejected} candidates rejected before scoring by parameters ≤ 45.0 k" in pages[True].text
    counted = sum(count for where, _, count, _ in record.failures() if where.startswith("member"))
    lost_members = sum(end["failure"] is not None for end in record.ended.values())
    assert counted - lost_members == sum(row["failure"] is not None for row in rows) - rejected
    assert not any("constraint:" in reason for _, reason, _, _ in record.failures())
    assert "supernet bro<b>ken" in pages[True].text and "out of memory: <b>asked for 3 GiB</b>" in pages[True].text


def test_a_member_has_one_colour_in_all_charts_and_random_search_stands_apart(pages):
    colours, dashes = {}, {}
    for trace in (trace for chart in pages[False].charts.values() for trace in chart["data"]):
        member = trace["name"].split(" · ")[0]
        if member in MEMBERS and (trace["mode"] == "markers" or trace["line"].get("shape") == "hv"):
            colours.setdefault(member, set()).add(trace.get("line", trace.get("marker"))["color"])
            dashes[member] = trace.get("line", {}).get("dash")
    assert set(colours) == set(MEMBERS)
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == len(MEMBERS)
    assert [member for member, dash in dashes.items() if dash != "solid"] == ["random_search"]


def test_best_so_far_never_gets_worse_and_ends_with_the_budget(runs):
    for member, rows in read_run(runs[True]).evaluations.items():
        steps = best_so_far(rows)
        scored = [row["error"] for row in rows if row["failure"] is None]
        if not scored:
            assert not steps, member
            continue
        assert [value for _, value, _ in steps] == sorted((value for _, value, _ in steps), reverse=True)
        assert steps[-1][:2] == (len(scored), min(scored))
        for count, value, _ in steps:
            assert value == min(scored[:count])


def test_drawings_are_left_out_where_the_space_cannot_be_loaded(run):
    config = run.read("config.toml").decode().replace('name = "tests.example_run"', 'name = "no_such.space"')
    run.write("config.toml", config.encode())
    page = Reader(Path(write_report(run)).read_text())
    assert "svg" not in page.tags
    assert read_run(run).chosen.name in page.text


def test_a_random_baseline_is_known_by_its_method_not_its_name():
    assert is_random("random_search") and is_random("raynas.methods.random_search")
    assert not is_random("regularized_evolution")


# --- bad input ----------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected the folder of a run.*config\.toml"):
        write_report(Folder(str(tmp_path)))


def test_a_missing_column_is_named(run):
    table = run.read_table("evaluations/nsga2.parquet")
    run.write_table("evaluations/nsga2.parquet", table.drop_columns(["error"]))
    with pytest.raises(UserError, match=r"nsga2\.parquet is without the columns error"):
        write_report(run)


def test_a_truncated_file_is_named_and_the_old_report_stays(run):
    before = Path(write_report(run)).read_bytes()
    run.write("ranking.parquet", run.read("ranking.parquet")[:200])
    with pytest.raises(UserError, match=r"ranking\.parquet"):
        write_report(run)
    assert Path(run.location, "report.html").read_bytes() == before


def test_numbers_that_are_none_are_left_out(run):
    table = run.read_table("ranking.parquet")
    place = table.column_names.index("rank_fair")
    table = table.set_column(place, "rank_fair", pa.array([float("nan")] * len(table)))
    run.write_table("ranking.parquet", table)
    agreement = run.read_json("agreement.json")
    agreement["tau"][0][1] = agreement["tau"][1][0] = None
    run.write_json("agreement.json", agreement)
    page = Reader(Path(write_report(run)).read_text())
    assert "fair –" in page.text and "nan" not in page.text
    assert "fair/uniform –" in summary(run)


def test_costs_of_networks_that_were_trained_otherwise_than_searched_are_told_so(run):
    told = "Trained from scratch with cells = 20"
    assert told not in summary(run) and told not in Reader(Path(write_report(run)).read_text()).text
    changed = "[retraining]\nspace_settings = {cells = 20}\n"
    run.write("config.toml", run.read("config.toml").replace(b"[retraining]\n", changed.encode()))
    assert told in summary(run) and told in Reader(Path(write_report(run)).read_text()).text


# --- the terminal -------------------------------------------------------------------------------------------------


def test_what_may_be_on_the_front_is_shaded_by_its_probability(run):
    def shades():
        charts = Reader(Path(write_report(run)).read_text()).charts.values()
        return [one for chart in charts for one in chart["data"] if one.get("name") == "may be on the Pareto set"]

    for trace in (before := shades()):
        told = [float(one.rpartition(" ")[2]) for one in trace["hovertext"]]
        assert told == pytest.approx(trace["marker"]["opacity"], abs=0.005) and min(told) >= POSSIBLE
    run.write_table("ranking.parquet", run.read_table("ranking.parquet").drop_columns(["front_probability"]))
    assert before and not shades()  # a run of an earlier version


def test_it_is_told_within_which_places_the_order_is_not_to_be_trusted(run):
    told = "Do not trust the order within the top 17."
    assert told in Reader(Path(write_report(run)).read_text()).text
    assert told in " ".join(summary(run).split())


def test_the_share_of_the_front_is_told_where_it_was_measured(run):
    told = "The finalists cover 75 % of the hypervolume of the Pareto set (of rank and macs)."
    write_report(run)
    assert told in run.read("report.html").decode() and told in summary(run, width=120)
    changed = run.read_json("agreement.json")
    del changed["hypervolume"]  # a run of an earlier version
    run.write_json("agreement.json", changed)
    write_report(run)
    assert "hypervolume" not in run.read("report.html").decode() + summary(run)


@pytest.mark.parametrize(("skips", "told"), [(3.4, False), (3.6, True)])
def test_a_rule_that_derives_more_skips_than_all_else_is_said_to_have_collapsed(run, skips, told):
    file = f"supernets/{run.names('supernets')[0]}/curves.parquet"
    curves = run.read_table(file)
    for name, value in (("derived_skips", skips), ("derived_operations", 6.0)):
        curves = curves.append_column(name, pa.array([value] * len(curves)))
    run.write_table(file, curves)
    write_report(run)
    sentence = "may have collapsed: 4 of the 6 operations that it derives are skips"
    assert (sentence in run.read("report.html").decode()) is told
    assert (sentence in " ".join(summary(run).split())) is told


def test_no_pareto_set_is_told_of_where_no_cost_chose_the_finalists(run):
    run.write("config.toml", run.read("config.toml").replace(b'cost = "macs"', b'cost = ""'))
    run.write_json("agreement.json", run.read_json("agreement.json") | {"front": None, "hypervolume": None})
    table = run.read_table("ranking.parquet")
    unknown = pa.nulls(len(table), pa.float64())
    column = table.column_names.index("front_probability")
    run.write_table("ranking.parquet", table.set_column(column, "front_probability", unknown))
    page = Reader(Path(write_report(run)).read_text())
    for text in (page.text, str(page.charts), summary(run)):
        assert "Pareto" not in text
    for text in (page.text, summary(run, width=120)):
        assert "The finalists are the first of the ranking, whatever they cost." in text


@pytest.mark.parametrize("ugly", [False, True])
def test_the_summary_is_plain_and_fits_80_columns(runs, ugly):
    text = summary(runs[ugly])
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert text.splitlines()[-1].endswith("report.html") or "not written yet" in text


def test_a_long_name_goes_on_in_the_next_line_instead_of_being_cut(runs):
    found = figures("Members", "member", "supernet", "scored", words=2)
    found.add_row("a_member_whose_name_is_longer_than_22", "uniform_few_shot_2", "12,345")
    console = Console(file=io.StringIO(), width=40)
    console.print(found)
    cells = [line.split() for line in console.file.getvalue().splitlines()[4:]]
    assert "".join(row[0] for row in cells if row) == "a_member_whose_name_is_longer_than_22"
    assert cells[0][1:] == ["uniform_few_", "12,345"] and cells[1][1:] == ["shot_2"]


def test_the_summary_of_a_failure_cannot_steer_the_terminal(run):
    ended = run.read_json("members.json")
    ended["nsga2"] |= {"state": "failed", "failure": "boom \x1b[2J\x07"}
    run.write_json("members.json", ended)
    assert "boom" in summary(run) and "\x1b" not in summary(run)


def test_numbers_are_written_as_people_read_them():
    assert [accuracy(0.0294), accuracy(None)] == ["97.1 %", "–"]
    assert [quantity(value) for value in (7, 999.6, 73_306, 999_960, 1_073_466, 0.53)] == [
        "7", "1.00 k", "73.3 k", "1.00 M", "1.07 M", "0.53",
    ]  # fmt: skip
    assert [cost("latency_ms", 3.204), cost("macs", 153_270_000.0)] == ["3.20 ms", "153 M"]
    assert [duration(value) for value in (0.04, 9.96, 59.6, 65, 3599.7, 7380)] == [
        "0.0 s", "10 s", "1 min 00 s", "1 min 05 s", "1 h 00 min", "2 h 03 min",
    ]  # fmt: skip
    assert interval({"value": 0.614, "low": -0.2, "high": 0.83}) == "+0.61 [−0.20, +0.83]"
    assert interval({"value": None, "low": None, "high": None}) == "–"


def test_of_many_rankers_each_ones_mean_agreement_is_told() -> None:
    names, tau = list("abcdef"), [[1.0 if i == j else (i + j) / 10 for j in range(6)] for i in range(6)]
    assert agreement_in_words(names[:3], [row[:3] for row in tau[:3]]).endswith(
        "(tau): b/a +0.10, c/a +0.20, c/b +0.30"
    )
    tau[0][5], tau[5][0] = None, None  # type: ignore[call-overload]
    told = agreement_in_words(names, tau)
    assert told == (
        "Agreement of each ranker with the others (mean tau): a +0.25, b +0.38, c +0.46, d +0.54, e +0.62, f +0.75"
    )


@pytest.mark.parametrize(("lines", "room"), [(6, ""), (7, "wide")])
def test_a_chart_of_many_lines_takes_the_whole_width(lines: int, room: str) -> None:
    figure = {"data": [{"name": str(line)} for line in range(lines)], "layout": {}}
    assert f'<figure class="{room}">' in Page("run").chart("loss", figure)
