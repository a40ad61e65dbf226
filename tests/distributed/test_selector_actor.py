"""What the selector's actor makes of the members' files; a plain class, so no cluster is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raynas import seeds
from raynas.architecture import Architecture
from raynas.config import check
from raynas.distributed.selector_actor import Selector
from raynas.evaluation import Evaluation
from raynas.members import load_member
from raynas.plan import Plan, make_plan
from raynas.prediction import predictions
from raynas.search import Record
from raynas.storage import Folder
from search_spaces.nas_bench_201 import SPACE

PREDICTED = "predictor_gradient_boosting"


def make_run(place: Path, predictors: tuple[str, ...] = ("gradient_boosting",)) -> tuple[Plan, Folder]:
    """Two supernets, one of them of two members."""
    config = check(
        {"members": [{"method": "spos"}, {"method": "fairnas"}], "selector": {"predictors": list(predictors)}}
    )
    plan, run = make_plan(config), Folder(str(place))
    for one in plan.rankers:
        run.write_json(f"supernets/{one.id}/state.json", {"failure": None})
    return plan, run


def evaluations(architectures: list[Architecture], scale: float) -> list[Evaluation]:
    """The last has failed."""
    found = [Evaluation(one, (scale * sum(one), 0.5, 1.0, 1.0)) for one in architectures]
    return [*found[:-1], Evaluation(architectures[-1], (), "it failed")]


def test_predictors_learn_all_that_every_supernet_has_scored_for_any_member(tmp_path: Path) -> None:
    plan, run = make_run(tmp_path)
    rng = seeds.generator(0, "selector")
    networks = list(dict.fromkeys(SPACE.canonicalise(SPACE.sample(rng)) for _ in range(120)))
    candidates, searched = networks[:20], networks[20:]
    measured: dict[str, dict[Architecture, float]] = {one.label: {} for one in plan.rankers}
    assert len(measured) == 2 < len(plan.members)
    for number, member in enumerate(plan.members):
        told = evaluations(searched[10 * number : 10 * number + 40], scale=1 + number)
        Record(run, member, SPACE, plan.config).append(told)
        label = plan.supernet(member.supernet).label
        measured[label] |= {one.architecture: -one.objectives[0] for one in told if one.objectives}
    own = {label: {one: -3.0 * sum(one) for one in candidates} for label in measured}
    for label, scores in own.items():
        measured[label] |= scores
    found = Selector(plan, run).predict(candidates, own)
    assert list(found) == [PREDICTED] and np.isfinite(found[PREDICTED]).all()
    expected = predictions(
        {PREDICTED: load_member("raynas.predictors", "gradient_boosting")},
        SPACE,
        list(measured.values()),
        candidates,
        seed=plan.config.seed,
    )
    assert found[PREDICTED] == expected[PREDICTED].tolist()


def test_a_supernet_that_failed_teaches_nothing(tmp_path: Path) -> None:
    plan, run = make_run(tmp_path)
    first, second = plan.rankers
    run.write_json(f"supernets/{second.id}/state.json", {"failure": "diverged"})
    networks = [(a, b, 0, 3, 1, 2) for a in range(5) for b in range(5)]
    own = {first.label: {one: float(sum(one)) for one in networks}}
    assert np.isfinite(Selector(plan, run).predict(networks, own)[PREDICTED]).all()


def test_no_predictor_is_no_column(tmp_path: Path) -> None:
    plan, run = make_run(tmp_path, predictors=())
    assert Selector(plan, run).predict([(0,) * 6], {}) == {}
