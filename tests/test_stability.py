"""Stability: which rankings belong together, and how far they agree."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from raynas import stability
from raynas.stability import Rankings, measure_stability, missing, of_seeds


def state(label: str, seed: int, rule: str = "uniform", **settings: Any) -> dict[str, Any]:
    return {"label": label, "rule": rule, "seed": seed, "settings": {"steps": 800, **settings}, "partitions": None}


def test_supernets_that_differ_by_their_seed_alone_belong_together() -> None:
    states = [
        state("uniform", 0),
        state("fair", 0, "fair"),
        state("uniform_2", 1),
        state("uniform_3", 1, steps=400),
        state("fair_2", 7, "fair"),
        state("uniform_4", 2),
        state("uniform_few_shot", 0) | {"partitions": {"groups": 2}},
        state("uniform_few_shot_2", 1) | {"partitions": {"groups": 2}},
        state("uniform_few_shot_3", 2) | {"partitions": {"groups": 3}},
        state("diverged", 3),  # has no scores
    ]
    labels = [one["label"] for one in states[:-1]]
    scores = {label: np.array([float(number), 0.0]) for number, label in enumerate(labels)}
    groups = of_seeds({one["label"]: one for one in states}, scores)
    assert [(group.name, group.kind) for group in groups] == [
        ("uniform, 3 seeds", "seeds"),
        ("fair, 2 seeds", "seeds"),
        ("uniform_few_shot, 2 seeds", "seeds"),
    ]
    assert groups[0].scores_RA[:, 0].tolist() == [0, 2, 5]
    assert groups[1].scores_RA[:, 0].tolist() == [1, 4]
    assert groups[2].scores_RA[:, 0].tolist() == [6, 7]


def test_taus_and_top_ranks_are_means_over_the_rankings() -> None:
    rng = np.random.default_rng(0)
    scores_RA = rng.normal(size=(3, 12))
    accuracy_A = np.where(np.arange(12) < 8, rng.random(12), math.nan)
    (measured,) = measure_stability([Rankings("uniform, 3 seeds", "seeds", scores_RA)], accuracy_A)
    pairs = [kendalltau(scores_RA[i], scores_RA[j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))]
    assert measured["s_tau"] == pytest.approx(np.mean(pairs))
    taus = [kendalltau(row[:8], accuracy_A[:8]).statistic for row in scores_RA]
    assert measured["gt_tau"] == pytest.approx(np.mean(taus))
    assert measured["gt_tau_std"] == pytest.approx(np.std(taus, ddof=1))
    true_rank = (-accuracy_A[:8]).argsort().argsort() + 1
    for count in (1, 3):
        best = [true_rank[np.argsort(-row[:8])[:count]].min() for row in scores_RA]
        assert measured["top"][str(count)] == pytest.approx(np.mean(best))
    assert (measured["rankings"], measured["architectures"], measured["of"]) == (3, 12, 8)


def test_what_is_not_known_is_null_and_a_dash() -> None:
    group = Rankings("consensus", "consensus", np.array([[1.0, 2.0, 3.0]]))
    measured = measure_stability([group], np.full(3, math.nan))
    json.dumps(measured, allow_nan=False)
    assert measured[0]["s_tau"] is measured[0]["gt_tau"] is measured[0]["gt_tau_std"] is None
    assert stability.rows({"stability": measured}) == [("consensus", "–", "–", "–", "–")]
    assert stability.rows({}) == []


def test_what_is_missing_is_told_with_its_mend() -> None:
    seeds, steps = (Rankings("x", kind, np.zeros((2, 3))) for kind in ("seeds", "steps"))
    assert missing([seeds, steps]) is None
    assert "supernet_seed" in str(missing([])) and "training.snapshots" in str(missing([]))
    assert "supernet_seed" not in str(missing([seeds])) and "training.snapshots" not in str(missing([steps]))
