"""A distribution that one run has learnt is where another begins, and stands in its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from raynas.config import Config, check
from raynas.errors import UserError
from raynas.plan import build_rule, make_plan
from raynas.run import settings_of
from raynas.storage import Folder
from raynas.transfer import with_distribution_of

LEARNT = [[0.5, 0.2, 0.2, 0.1, 0.0]] * 6


def config(*members: dict[str, Any], **sections: Any) -> Config:
    space = {"name": "nas_bench_201", "settings": {"channels": 4, "cells_per_stage": 1}}
    return check({"space": space, "members": [*members], "search": {"random_baseline": False}, **sections})


def finished(place: Path, settings: Config, **states: Any) -> str:
    """A run's folder with no more than what a transfer reads."""
    folder = Folder(str(place))
    folder.write("config.toml", tomli_w.dumps(settings_of(settings)).encode())
    for name, state in states.items():
        folder.write_json(f"supernets/{name}/state.json", {"failure": None, **state})
    return str(place)


def test_a_run_begins_where_another_has_ended_whatever_its_size_and_data(tmp_path: Path) -> None:
    proxy = config({"method": "parsec", "rule_settings": {"samples": 3}})
    uniform = {"rule": "uniform", "probabilities": [[0.2] * 5] * 6}
    run = finished(tmp_path, proxy, one={"rule": "parsec", "probabilities": LEARNT}, two=uniform)
    large = config({"method": "spos"}, {"method": "parsec"}, space={"name": "nas_bench_201"}, data={"crop_padding": 0})
    begun = with_distribution_of(large, run)
    plan = make_plan(begun)
    spos, parsec = (plan.supernet(member.supernet) for member in plan.members)
    assert spos.id == make_plan(large).supernets[0].id, "who learns nothing is as it was"
    found = build_rule(parsec, plan.space).probabilities()
    assert np.allclose(found, LEARNT, atol=2e-6) and np.all(np.array(found) > 0)
    assert parsec.id != make_plan(large).supernets[1].id
    assert make_plan(check(settings_of(begun))).supernets == plan.supernets


@pytest.mark.parametrize(
    ("member", "states", "told"),
    [
        ("spos", {"one": {"rule": "parsec", "probabilities": LEARNT}}, "no member's training rule can begin"),
        ("parsec", {"one": {"rule": "uniform", "probabilities": LEARNT}}, "but there are 0"),
        ("parsec", {"one": {"rule": "parsec", "probabilities": LEARNT, "failure": "diverged"}}, "but there are 0"),
        ("parsec", {name: {"rule": "parsec", "probabilities": LEARNT} for name in ("a", "b")}, "but there are 2"),
    ],
)
def test_where_there_is_nothing_to_take_or_nobody_to_take_it_is_told(
    member: str, states: dict[str, Any], told: str, tmp_path: Path
) -> None:
    run = finished(tmp_path, config({"method": "parsec"}), **states)
    with pytest.raises(UserError, match=told):
        with_distribution_of(config({"method": member}), run)


def test_another_space_or_no_run_is_refused(tmp_path: Path) -> None:
    macro = config({"method": "parsec"}, space={"name": "nas_bench_macro"})
    run = finished(tmp_path / "run", macro, one={"rule": "parsec", "probabilities": LEARNT})
    with pytest.raises(UserError, match=r"over search_spaces.nas_bench_macro, not over search_spaces.nas_bench_201"):
        with_distribution_of(config({"method": "parsec"}), run)
    with pytest.raises(UserError, match="is no run"):
        with_distribution_of(config({"method": "parsec"}), str(tmp_path / "none"))


@pytest.mark.parametrize(
    "initial", [LEARNT[1:], [[0.5, 0.5]] * 6, [[0.3] * 5] * 6, [[1.5, -0.5, 0, 0, 0]] * 6], ids=str
)
def test_what_is_no_distribution_of_the_space_is_refused(initial: list[list[float]]) -> None:
    with pytest.raises(UserError, match="expects one distribution per block"):
        make_plan(config({"method": "parsec", "rule_settings": {"initial": initial}}))
