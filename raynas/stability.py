"""How stable a ranking is: what other seeds, and late steps of the same training, make of the same architectures.

The protocol of Zhang et al., "Deeper Insights into Weight Sharing in Neural Architecture Search", 2020
(arXiv:2001.01431): S-tau among the rankings, and tau and top-n rank of each against training from scratch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raynas.rank_correlation import best_rank_at_count, kendall_tau_b, s_tau
from raynas.units import signed

TOP = (1, 3)
"""The n of top-n rank."""

RECIPE = ("rule", "settings", "partitions")
"""What a supernet's state.json says of its training, but the seed."""


@dataclass(frozen=True, slots=True)
class Rankings:
    """Rankings that should be one and the same: scores_RA of the same architectures, higher is better, NaN unknown."""

    name: str
    kind: str
    scores_RA: NDArray[np.float64]


def of_seeds(states: Mapping[str, Mapping[str, Any]], scores: Mapping[str, NDArray[np.float64]]) -> list[Rankings]:
    """The supernets that differ by nothing but their seed, two or more together.

    By the supernet's label, states: its `state.json`; scores: shape (A,), of those that were trained to the end.
    """
    alike: dict[str, list[str]] = {}
    for label in scores:
        if label in states:
            recipe = json.dumps([states[label][key] for key in RECIPE], sort_keys=True)
            alike.setdefault(recipe, []).append(label)
    return [
        Rankings(f"{labels[0]}, {len(labels)} seeds", "seeds", np.stack([scores[label] for label in labels]))
        for labels in alike.values()
        if len(labels) > 1
    ]


def measure_stability(groups: Sequence[Rankings], accuracy_A: NDArray[np.float64]) -> list[dict[str, Any]]:
    """One entry of gap.json's `stability` per group; means over its rankings, None for what is not defined.

    accuracy_A: of training from scratch, NaN for what was not trained; `of` are so many. s_tau is taken over all
    architectures, gt_tau (with its standard deviation) and top (the best true rank among the predicted top n, by n)
    over the trained ones.
    """
    trained_A = ~np.isnan(accuracy_A)
    truth_A = accuracy_A[trained_A]
    found = []
    for group in groups:
        rankings_RA = group.scores_RA[:, trained_A]
        taus_R = np.array([kendall_tau_b(scores_A, truth_A) for scores_A in rankings_RA])
        top = {
            str(count): float(np.mean([best_rank_at_count(scores_A, truth_A, count) for scores_A in rankings_RA]))
            for count in TOP
        }
        found.append(
            {
                "name": group.name,
                "kind": group.kind,
                "rankings": len(group.scores_RA),
                "architectures": int((~np.isnan(group.scores_RA)).all(axis=0).sum()),
                "s_tau": _json(s_tau(group.scores_RA)),
                "gt_tau": _json(taus_R.mean()),
                "gt_tau_std": _json(taus_R.std(ddof=1)) if len(taus_R) > 1 else None,
                "top": {count: _json(value) for count, value in top.items()},
                "of": int(trained_A.sum()),
            }
        )
    return found


def missing(groups: Iterable[Rankings]) -> str | None:
    """What is not measured, and which setting would, in one line."""
    kinds = {group.kind for group in groups}
    needs = {
        "seeds": "between seeds (give a second member of one rule another supernet_seed)",
        "steps": "between late steps (set training.snapshots, e.g. to 3)",
    }
    lacking = [text for kind, text in needs.items() if kind not in kinds]
    return f"Not measured: agreement {' and '.join(lacking)}." if lacking else None


def rows(gap: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Lines under `HEADERS` for what gap.json holds of stability."""
    found = []
    for entry in gap.get("stability", ()):
        spread = f" ± {entry['gt_tau_std']:.2f}" if entry["gt_tau_std"] is not None else ""
        top = [f"{value:.3g} of {entry['of']}" if value is not None else "–" for value in entry["top"].values()]
        tau = signed(entry["gt_tau"])
        found.append((entry["name"], signed(entry["s_tau"]), tau + spread, *top))
    return found


HEADERS = ("ranking", "S-tau", "tau to truth", *(f"best in top {count}" for count in TOP))
NOTE = (
    "S-tau: mean tau among these rankings; tau to truth: against training from scratch, its mean and standard "
    "deviation; best in top n: the best true rank among the first n predicted."
)


def _json(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
