"""One small run on the digits through every stage: each file that it leaves, and what the same commands do again."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from raynas import config, device
from raynas.aggregators.reliability import reliability
from raynas.architecture import Architecture, decode, encode
from raynas.checkpoint import load_weights
from raynas.data import load, split
from raynas.derivations.mode import mode
from raynas.pareto import pareto_front
from raynas.plan import MemberPlan, Plan, build_strategy, build_supernet, make_plan
from raynas.proxy_evaluator import ProxyEvaluator
from raynas.racing import Rungs, foretold, race
from raynas.retraining import StandAloneTraining
from raynas.scoring_images import draw_images
from raynas.selector import consensus, short_trained
from raynas.shapes import evaluations
from raynas.storage import Folder
from raynas.supernet_evaluator import Costs, SupernetEvaluator
from search_spaces.nas_bench_201 import SPACE
from tests.driver import EVALUATIONS, MEMBERS, SETTINGS, Driver
from tests.helpers import short_training
from tests.ray_head import Head, ray_head
from tests.test_readme import write_own_space

COMMAND_S = 300.0
"""A command that takes longer than this on the busiest machine hangs; the whole search takes 25 s on two idle cores."""


@dataclass(frozen=True)
class Run:
    """A run's folder, the command's arguments, what it printed, and what it is made of."""

    path: Path
    arguments: tuple[str, ...]
    printed: str

    @cached_property
    def plan(self) -> Plan:
        return make_plan(config.load(str(self.path / "config.toml")))

    def member(self, name: str) -> MemberPlan:
        return next(one for one in self.plan.members if one.name == name)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return pq.read_table(self.path / name).to_pylist()  # type: ignore[no-any-return]

    def json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text())

    @property
    def rankers(self) -> list[str]:
        return [*(one.label for one in self.plan.supernets), "proxy_zico", f"short_{max(self.rungs)}"]

    def merits(self, ranker: str, architectures: list[Architecture]) -> list[float]:
        """What a ranker says of these, as an evaluator in this process does; higher is better."""
        if ranker.startswith("short_"):
            return self.train(float(ranker.removeprefix("short_")), architectures)
        evaluator = self.proxy if ranker == "proxy_zico" else self.evaluators[ranker]
        return [-evaluator.measure(one).objectives[0] for one in architectures]

    @cached_property
    def rungs(self) -> Rungs:
        """The race of the candidates, in this process."""
        candidates = self.rows("candidates.parquet")
        names = [*(one.label for one in self.plan.supernets), "proxy_zico"]
        scores_RA = np.array([[row[f"score_{name}"] for row in candidates] for name in names])
        settings = self.plan.config.selector
        networks = [decode(row["architecture"]) for row in candidates]
        return race(networks, scores_RA, settings.short_epochs, settings.finalists, self.train)

    def train(self, epochs: float, architectures: list[Architecture]) -> list[float]:
        """What trainings of so many epochs say of these."""
        evaluator = short_training(self.plan.config, load(self.plan.config.data.name), epochs)
        return [-evaluator.measure(one).objectives[0] for one in architectures]

    @cached_property
    def proxy(self) -> ProxyEvaluator:
        settings = self.plan.config
        dataset = load(settings.data.name)
        return ProxyEvaluator(
            proxy="zico",
            supernet=build_supernet(settings, dataset, seed=settings.seed),
            canonicalise=SPACE.canonicalise,
            split=split(dataset, settings.data.validation_fraction, settings.seed),
            data=settings.data,
            images=settings.selector.proxy_images,
            seed=settings.seed,
            device=device.prepare(1),
        )

    @cached_property
    def evaluators(self) -> dict[str, SupernetEvaluator]:
        """An evaluator in this process for each supernet, by its label, and for each of its snapshots, `label@step`."""
        settings = self.plan.config
        dataset = load(settings.data.name)
        found = {}
        places = {one.label: Folder(str(self.path / "supernets" / one.id)) for one in self.plan.supernets}
        files = {label: (place, "weights.safetensors") for label, place in places.items()}
        for label, place in places.items():
            for step in place.read_json("state.json")["snapshots"]:
                files[f"{label}@{step}"] = (place, f"snapshot-{step}.safetensors")
        for label, (place, file) in files.items():
            network = build_supernet(settings, dataset, seed=settings.seed)
            network.load_state_dict(load_weights(place, file))
            found[label] = SupernetEvaluator(
                supernet=network,
                space=SPACE,
                images=draw_images(
                    split(dataset, settings.data.validation_fraction, settings.seed), settings, device.prepare(1)
                ),
                settings=settings.evaluation,
                costs=Costs(settings.evaluation.costs, {}, network, dataset.image_shape_CHW),
                device=device.prepare(1),
            )
        return found


def raynas(head: Head, *arguments: str, folder: Path | None = None) -> str:
    """Run the command line as a user does, in his folder; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "raynas.cli", *arguments, "--address", head.address],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        cwd=folder,
        env={**head.environment, "PYTHONPATH": str(Path(__file__).parents[1])},  # where raynas is not installed
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head(cpus=3, dashboard=False) as started:
        yield started


@pytest.fixture(scope="module")
def run(undisturbed: Driver) -> Run:
    """The whole search, with a limit that rejects about every other architecture."""
    return Run(undisturbed.run, tuple(undisturbed.arguments), undisturbed.printed.read_text())


def test_the_settings_are_written_as_resolved(run: Run) -> None:
    written = config.load(str(run.path / "config.toml"))
    assert written == config.load(run.arguments[0], overrides=["evaluation.workers=2"])
    assert {one.name for one in written.members} == {"random_search", "nsga2", "parsec"}
    assert {"python", "raynas", "ray", "torch"} <= run.json("versions.json").keys()


def test_the_random_baseline_can_be_switched_off() -> None:
    without = config.check({**SETTINGS, "search": {"random_baseline": False}})
    assert [one.name for one in make_plan(without).members] == ["nsga2", "parsec"]


def test_every_stage_says_how_long_it_took(run: Run) -> None:
    timings = run.json("timings.json")
    stages = ["supernets", "population", "ranking", "race", "calibration", "retraining", "gap"]
    assert [one["stage"] for one in timings] == stages
    assert all(one["seconds"] >= 0 for one in timings)


def test_members_with_equal_training_share_one_supernet(run: Run) -> None:
    used = {one.name: one.supernet for one in run.plan.members}
    assert used["random_search"] == used["nsga2"] != used["parsec"]
    assert {one.name for one in (run.path / "supernets").iterdir()} == set(used.values())
    for name, supernet in used.items():
        assert {row["supernet"] for row in run.rows(f"evaluations/{name}.parquet")} == {supernet}


def test_a_supernets_files_say_how_it_was_trained(run: Run) -> None:
    for one in run.plan.supernets:
        state = run.json(f"supernets/{one.id}/state.json")
        assert (state["id"], state["label"], state["rule"], state["seed"]) == (one.id, one.label, one.rule, 0)
        assert state["steps"] == one.training.steps and state["failure"] is None and state["images_per_s"] > 0
        assert [len(of_block) for of_block in state["probabilities"]] == [5] * 6
        assert np.allclose(np.sum(state["probabilities"], axis=1), 1)
        curves = run.rows(f"supernets/{one.id}/curves.parquet")
        assert {"step", "loss", "seconds", "images_per_s"} <= curves[0].keys()
        steps = [point["step"] for point in curves]
        assert steps == sorted(set(steps)) and steps[-1] == one.training.steps
        assert all(math.isfinite(point["loss"]) for point in curves)
    learnt = run.json(f"supernets/{run.member('parsec').supernet}/state.json")["probabilities"]
    assert not np.allclose(learnt, 0.2)


EACH_MEMBER = pytest.mark.parametrize("name", MEMBERS)


@EACH_MEMBER
def test_a_member_has_its_budget_scored_and_nothing_twice(run: Run, name: str) -> None:
    table = pq.read_table(run.path / "evaluations" / f"{name}.parquet")
    assert table.schema == evaluations(("loss", "error", *run.plan.config.evaluation.costs))
    rows = table.to_pylist()
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert sum(row["failure"] is None for row in rows) == EVALUATIONS
    assert len({row["canonical"] for row in rows}) == len(rows)
    assert {row["member"] for row in rows} == {name}
    assert {row["seed"] for row in rows} == {run.member(name).seed}
    times = [row["wall_s"] for row in rows]
    assert times == sorted(times)
    for row in rows:
        canonical = SPACE.canonicalise(decode(row["architecture"]))
        assert (row["canonical"], row["name"]) == (encode(canonical), SPACE.print(canonical))


@EACH_MEMBER
def test_a_constraint_holds_wherever_there_is_a_score(run: Run, name: str) -> None:
    most = run.plan.config.constraints["parameters"]
    rows = run.rows(f"evaluations/{name}.parquet")
    for row in rows:
        if row["failure"] is None:
            assert row["parameters"] <= most
        else:
            assert row["failure"].startswith("constraint: parameters")
            assert all(row[column] is None for column in ("loss", "error", *run.plan.config.evaluation.costs))
    assert any(row["failure"] for row in rows) or name in ("nsga2", "parsec")


@EACH_MEMBER
def test_the_pool_scores_what_an_evaluator_in_this_process_scores(run: Run, name: str) -> None:
    label, costs = run.plan.supernet(run.member(name).supernet).label, run.plan.config.evaluation.costs
    for row in run.rows(f"evaluations/{name}.parquet"):
        found = run.evaluators[label].evaluate_one(decode(row["architecture"]))
        if row["failure"] is None:
            assert found.objectives == tuple(row[column] for column in ("loss", "error", *costs))


@EACH_MEMBER
def test_a_member_ends_with_what_it_found(run: Run, name: str) -> None:
    end = run.json("members.json")[name]
    losses = [row["loss"] for row in run.rows(f"evaluations/{name}.parquet")]
    scored = [loss for loss in losses if loss is not None]
    assert end == {
        "state": "done",
        "failure": None,
        "evaluations": EVALUATIONS,
        "best": min(scored),
        "rejected": len(losses) - len(scored),
    }


def test_random_search_asks_what_its_seed_says_alone(run: Run) -> None:
    strategy = build_strategy(run.member("random_search"), SPACE, SPACE.uniform_probabilities())
    rows = run.rows("evaluations/random_search.parquet")
    assert [row["architecture"] for row in rows] == [encode(one) for one in strategy.ask(len(rows))]


def test_what_a_rule_learnt_is_scored_first(run: Run) -> None:
    learnt = run.json(f"supernets/{run.member('parsec').supernet}/state.json")["probabilities"]
    derived = mode([np.array(of_block) for of_block in learnt])
    assert run.rows("evaluations/parsec.parquet")[0]["architecture"] == encode(derived)


def test_the_ranking_is_the_consensus_of_all_supernets_and_proxies(run: Run) -> None:
    rows = run.rows("ranking.parquet")
    assert [*rows[0]] == [
        *("rank", "architecture", "name", "consensus", "held_out"),
        *(f"score_{ranker}" for ranker in run.rankers),
        *(f"rank_{ranker}" for ranker in run.rankers),
        *(*run.plan.config.evaluation.costs, "calibration", "on_front", "front_probability", "finalist"),
    ]
    networks = [decode(row["architecture"]) for row in rows]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(set(networks)) == len(networks) >= 6
    assert all(SPACE.canonicalise(one) == one for one in networks)
    scores_RA = np.array([[row[f"score_{ranker}"] for row in rows] for ranker in run.rankers])
    for scores_A, ranker in zip(scores_RA[:-1], run.rankers[:-1], strict=True):
        assert run.merits(ranker, networks) == scores_A.tolist()
    told = foretold(run.rungs)
    assert scores_RA[-1].tolist() == [told[one] for one in networks]
    merged_A = consensus(networks, scores_RA, reliability, accuracies(run, rows), short_trained(run.rankers))
    assert [row["consensus"] for row in rows] == merged_A.tolist() == sorted(merged_A, reverse=True)


def accuracies(run: Run, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Of training from scratch, of the calibration architectures among these."""
    places = [run.path / f"calibration/{row['architecture']}/result.json" for row in rows]
    return np.array([-json.loads(one.read_text())["validation_error"] if one.exists() else np.nan for one in places])


def test_the_consensus_on_a_calibration_architecture_is_also_told_without_its_own_accuracy(run: Run) -> None:
    rows = run.rows("ranking.parquet")
    networks = [decode(row["architecture"]) for row in rows]
    scores_RA = np.array([[row[f"score_{ranker}"] for row in rows] for ranker in run.rankers])
    known_A, trained_R = accuracies(run, rows), short_trained(run.rankers)
    assert np.sum(~np.isnan(known_A)) == 3
    for a, row in enumerate(rows):
        others_A = np.where(np.arange(len(rows)) == a, np.nan, known_A)
        without_A = consensus(networks, scores_RA, reliability, others_A, trained_R)
        expected = np.nan if np.isnan(known_A[a]) else without_A[a]
        np.testing.assert_equal(row["held_out"], expected)


def test_the_leaders_of_every_member_are_ranked(run: Run) -> None:
    ranked = {row["architecture"] for row in run.rows("ranking.parquet")}
    for one in run.plan.members:
        rows = [row for row in run.rows(f"evaluations/{one.name}.parquet") if row["failure"] is None]
        best = sorted(rows, key=lambda row: (row["loss"], decode(row["canonical"])))
        assert best[0]["canonical"] in ranked
        if one.name != "nsga2":
            assert {row["canonical"] for row in best[:6]} <= ranked


def test_finalists_are_of_the_front_and_keep_the_constraint(run: Run) -> None:
    rows = run.rows("ranking.parquet")
    front_A = pareto_front(np.array([[-row["consensus"], row["macs"]] for row in rows]))
    assert [row["on_front"] for row in rows] == front_A.tolist()
    finalists = [row for row in rows if row["finalist"]]
    assert len(finalists) == 2
    front = [row for row in rows if row["on_front"]]
    assert front[0] in finalists and (all(row in front for row in finalists) or len(front) < 2)
    assert all(row["parameters"] <= run.plan.config.constraints["parameters"] for row in rows)


def test_calibration_architectures_are_spread_over_the_random_sample(run: Run) -> None:
    sample = [row for row in run.rows("evaluations/random_search.parquet") if row["failure"] is None]
    ordered = [row["canonical"] for row in sorted(sample, key=lambda row: row["loss"])]
    chosen = {row["architecture"] for row in run.rows("ranking.parquet") if row["calibration"]}
    assert len(chosen) == 3 and {ordered[0], ordered[-1]} <= chosen <= set(ordered)


def test_the_agreement_of_the_rankers_is_written(run: Run) -> None:
    agreement = run.json("agreement.json")
    assert agreement["rankers"] == run.rankers
    tau = np.array(agreement["tau"])
    assert np.array_equal(tau, tau.T) and np.array_equal(np.diag(tau), np.ones(4)) and (abs(tau) <= 1).all()
    ranked = {row["architecture"]: row for row in run.rows("ranking.parquet")}
    for one in agreement["most_disputed"]:
        row = ranked[one["architecture"]]
        assert one["ranks"] == {label: row[f"rank_{label}"] for label in agreement["rankers"]}


def test_the_race_is_that_of_one_process_and_is_told(run: Run) -> None:
    rows = run.rows("candidates.parquet")
    for epochs, scores in run.rungs.items():
        assert [row[f"short_{epochs}"] for row in rows] == [scores.get(decode(row["architecture"])) for row in rows]
    counts = [{"epochs": epochs, "candidates": len(scores)} for epochs, scores in run.rungs.items()]
    assert counts[0] == {"epochs": 0.5, "candidates": len(rows)} and len(counts) == 2
    assert run.json("agreement.json")["race"] == {"trained": counts, "best": 2, "undecided": None}
    for said in (run.printed, (run.path / "report.html").read_text()):
        assert f"{len(rows)}for0.5,{counts[1]['candidates']}for2." in "".join(said.split())


def trained(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """The folders of what was trained from scratch, with the ranking's row."""
    rows = run.rows("ranking.parquet")
    finalists = [(f"finalists/{row['rank']}", row) for row in rows if row["finalist"]]
    return finalists + [(f"calibration/{row['architecture']}", row) for row in rows if row["calibration"]]


def test_finalists_and_calibration_architectures_are_trained_from_scratch(run: Run) -> None:
    places = [place for place, _ in trained(run)]
    there = [f"{role}/{one.name}" for role in ("finalists", "calibration") for one in (run.path / role).iterdir()]
    assert sorted(there) == sorted(places)
    for place, row in trained(run):
        result, role = run.json(f"{place}/result.json"), place.split("/")[0].rstrip("s")
        known = {"architecture": row["architecture"], "name": row["name"], "role": role}
        known |= {"rank": row["rank"]} if role == "finalist" else {}
        assert run.json(f"{place}/architecture.json") == known
        assert {key: result[key] for key in known} == known
        assert (result["parameters"], result["macs"]) == (row["parameters"], row["macs"])
        assert result["latency_ms"] > 0 and result["seconds"] > 0
        assert result["epochs"] == 2 and result["failure"] is None
        assert (result["test_error"] is None) == (role == "calibration")
        curves = run.rows(f"{place}/curves.parquet")
        assert {"epoch", "train_loss", "validation_error", "learning_rate", "seconds"} <= curves[0].keys()
        assert [point["epoch"] for point in curves] == [1, 2]
        assert curves[-1]["validation_error"] == result["validation_error"]


def test_the_weights_of_a_finalist_give_its_errors(run: Run) -> None:
    settings = run.plan.config
    dataset = load(settings.data.name)
    images = split(dataset, settings.data.validation_fraction, settings.seed)
    for place, row in trained(run):
        network = build_supernet(settings, dataset, seed=1).subnet(decode(row["architecture"]))
        network.load_state_dict(load_weights(Folder(str(run.path / place)), "weights.safetensors"))
        training = StandAloneTraining(
            network, images, settings=settings.retraining, data=settings.data, seed=0, device=device.prepare(1)
        )
        result = run.json(f"{place}/result.json")
        assert training.error(training.validation) == result["validation_error"]
        if place.startswith("finalists/"):
            assert training.error(training.test) == result["test_error"]


def test_the_gap_is_measured_on_what_was_trained(run: Run) -> None:
    gap = run.json("gap.json")
    assert gap["n"] == len({row["architecture"] for _, row in trained(run)})
    assert {"tau", "rho", "baseline", "rankers", "value_gap", "regret", "sentence", "points"} <= gap.keys()
    assert gap["rankers"].keys() == set(run.rankers)
    for measured in (gap["tau"], gap["rho"], gap["baseline"]["parameters"]["tau"]):
        assert measured.keys() == {"value", "low", "high"}
    results = {row["architecture"]: run.json(f"{place}/result.json") for place, row in trained(run)}
    for point in gap["points"]:
        assert point["stand_alone_error"] == results[point["architecture"]]["validation_error"]
    assert gap["sentence"].count("\n") == 0 and gap["sentence"]


def test_late_weights_score_what_is_ranked_and_rank_nothing(run: Run) -> None:
    late, ranking = run.rows("snapshots.parquet"), run.rows("ranking.parquet")
    assert {row["architecture"] for row in late} == {row["architecture"] for row in ranking}
    assert len(late) == len(ranking)
    assert set(late[0]) == {"architecture", "uniform@30", "parsec@15"}
    assert not any("@" in key for key in ranking[0])
    for name in late[0].keys() - {"architecture"}:
        own = run.evaluators[name].evaluate([decode(row["architecture"]) for row in late])
        assert [row[name] for row in late] == [-evaluation.objectives[0] for evaluation in own]
    kinds = [entry["kind"] for entry in run.json("gap.json")["stability"]]
    assert kinds == ["consensus", "steps", "steps"]
    assert "S-tau" in run.printed and "supernet_seed" in run.printed


def test_the_report_and_the_summary_say_the_same_sentence(run: Run) -> None:
    sentence = run.json("gap.json")["sentence"]
    assert sentence in (run.path / "report.html").read_text()
    assert "".join(sentence.split()) in "".join(run.printed.split())
    assert run.printed.splitlines()[-1] == str(run.path / "report.html")
    assert max(map(len, run.printed.splitlines()[:-2])) <= 80 + len(str(run.path))


def test_tensorboard_has_the_curves_of_members_and_retraining(run: Run) -> None:
    for stage in ("population", "retraining"):
        events = [*(run.path / "events" / stage).rglob("events.out.tfevents.*")]
        assert events and all(event.stat().st_size > 0 for event in events)


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


TOLD_ANEW = {"timings.json", "report.html"}
"""What each command writes of itself."""


def test_the_same_command_again_does_nothing_twice(run: Run, head: Head) -> None:
    before = snapshot(run.path)
    written = {name: (run.path / name).stat().st_mtime_ns for name in before}
    raynas(head, "search", *run.arguments)
    after = snapshot(run.path)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= TOLD_ANEW
    kept = [name for name in before if name.split("/")[0] in ("supernets", "evaluations", "finalists", "calibration")]
    assert len(kept) > 20
    for name in (*kept, "ranking.parquet", "agreement.json", "members.json"):
        assert (run.path / name).stat().st_mtime_ns == written[name], name


def test_a_members_deleted_record_is_made_anew_and_no_training_again(run: Run, head: Head) -> None:
    """What a broken one is to be mended by."""
    toml, storage_option, storage, *_ = run.arguments
    anew = run.path.parent / "anew"
    shutil.copytree(run.path, anew)
    later = ("candidates.parquet", "snapshots.parquet", "ranking.parquet", "agreement.json")
    for name in ("evaluations/nsga2.parquet", *later):
        (anew / name).unlink()
    raynas(head, "search", toml, storage_option, storage, "--name", anew.name)
    for name in later:
        assert (anew / name).read_bytes() == (run.path / name).read_bytes(), name
    rungs = list(run.path.glob("race/*.parquet"))
    assert len(rungs) == 2
    for trained in rungs:
        assert (anew / "race" / trained.name).stat().st_mtime_ns == trained.stat().st_mtime_ns


def test_any_list_of_architectures_can_be_ranked(run: Run, head: Head, tmp_path: Path) -> None:
    """In the order of the file, whatever notation; the same network has the same scores, limits or not."""
    most = run.plan.config.constraints["parameters"]
    known = [decode(row["architecture"]) for row in run.rows("ranking.parquet")[:3]]
    large = (3, 3, 3, 3, 3, 3)
    assert run.evaluators["uniform"].costs.of(large)[0] > most
    one, twin = isomorphic()
    listed = [known[2], large, one, known[0], twin, known[2], known[1]]
    lines = [encode(key) if number % 2 else SPACE.print(key) for number, key in enumerate(listed)]
    (tmp_path / "mine.txt").write_text("\n".join([*lines[:3], "", *lines[3:]]) + "\n")
    printed = raynas(head, "rank", str(run.path), "--architectures", str(tmp_path / "mine.txt"))
    written = Path(printed.splitlines()[-1])
    assert written == run.path / "ranked" / "mine.parquet"
    table = pq.read_table(written)
    written.unlink()
    written.parent.rmdir()
    assert table.column_names == ["architecture", "name", *run.rankers, "consensus"]
    rows = table.to_pylist()
    assert [row["architecture"] for row in rows] == [encode(key) for key in listed]
    assert [row["name"] for row in rows] == [SPACE.print(key) for key in listed]
    for ranker in run.rankers:
        assert [row[ranker] for row in rows] == run.merits(ranker, listed)  # higher is better
    for first, second in ((2, 4), (0, 5)):
        assert {key: rows[first][key] for key in (*run.rankers, "consensus")} == {
            key: rows[second][key] for key in (*run.rankers, "consensus")
        }
    calibrated = [row for row in run.rows("ranking.parquet") if row["calibration"]]
    others = [decode(row["architecture"]) for row in calibrated]
    networks = [*map(SPACE.canonicalise, listed), *others]
    known = dict(zip(others, accuracies(run, calibrated), strict=True))
    scores_RA = [[*(row[name] for row in rows), *run.merits(name, others)] for name in run.rankers]
    accuracy_A = np.array([known.get(network, np.nan) for network in networks])
    merged_A = consensus(networks, np.array(scores_RA), reliability, accuracy_A, short_trained(run.rankers))
    assert [row["consensus"] for row in rows] == merged_A[: len(listed)].tolist()
    assert len(set(merged_A)) > 1


def isomorphic() -> tuple[Architecture, Architecture]:
    """Two keys of one network."""
    rng, first = np.random.default_rng(0), dict[Architecture, Architecture]()
    while True:
        key = SPACE.sample(rng)
        if (twin := first.setdefault(SPACE.canonicalise(key), key)) != key:
            return twin, key


def test_the_readmes_own_space_is_searched_from_its_folder(head: Head, tmp_path: Path) -> None:
    write_own_space(tmp_path)
    tiny = {
        "space.settings.channels": 4,
        "training.steps": 4,
        "evaluation.images": 32,
        "evaluation.workers": 1,
        "search.evaluations": 4,
        "selector.finalists": 1,
        "retraining.epochs": 1,
        "retraining.calibration": 0,
    }
    settings = [word for key, value in tiny.items() for word in ("--set", f"{key}={value}")]
    place = ["--storage", str(tmp_path), "--name", "run"]
    raynas(head, "search", "--space", "my_space", "--method", "random_search", *settings, *place, folder=tmp_path)
    rows = pq.read_table(tmp_path / "run" / "ranking.parquet").to_pylist()
    assert len(rows) == 4 and all(len(decode(row["architecture"])) == 6 for row in rows)
    assert (tmp_path / "run" / "report.html").is_file()
