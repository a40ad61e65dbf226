"""A fixture, not a measurement: the folder of an invented run with every file of a real one, and its ugly cases.

`python -m tests.example_run FOLDER [--ugly]` writes one to look at.
"""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pyarrow as pa
from scipy.stats import kendalltau, rankdata, spearmanr

from raynas.architecture import encode
from raynas.seeds import generator
from raynas.space import ChoiceBlock, Connection, SearchSpace
from raynas.storage import Folder

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NODES = ("input", "1", "2", "output")
NASTY = "<script>document.title='owned'</script><img src=x onerror=alert(1)>&\"'"


def name_of(architecture):
    operations = [OPERATIONS[choice] for choice in architecture]
    return "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*operations)


def drawing(architecture):
    return tuple(
        Connection(NODES[source], NODES[target], OPERATIONS[choice])
        for (source, target), choice in zip(EDGES, architecture, strict=True)
    )


SPACE = SearchSpace(
    "example",
    tuple(ChoiceBlock(f"edge{source}{target}", OPERATIONS) for source, target in EDGES),
    to_string=name_of,
    drawing=drawing,
)

MEMBERS = {
    "random_search": "uniform",
    "regularized_evolution": "uniform",
    "nsga2": "fair",
    "optuna_tpe": "uniform",
    "parsec": "parsec",
}
STEPS = {"uniform": 400, "fair": 120, "parsec": 150}


def quality(architecture):
    """An invented error in 0..1: convolutions help, also by where they lie; a network without a path is lost."""
    gain = np.array([-0.5, 0.35, 0.75, 1.0, 0.15])[list(architecture)] * np.array([1, 0.8, 0.9, 1.1, 0.8, 1.2])
    joined = any(all(architecture[edge] for edge in path) for path in ((3,), (0, 4), (1, 5), (0, 2, 5)))
    return float(0.03 + 0.85 / (1 + np.exp(gain.sum() * 0.9 - 1.2))) if joined else 0.9


def costs(architecture):
    weights = np.array([0, 0, 1, 9, 0])[list(architecture)].sum()
    return {
        "parameters": float(2800 + 1264 * weights),
        "macs": float(61_000 + 41_000 * weights),
        "latency_ms": round(1.1 + 0.09 * weights + 0.2 * sum(choice == 4 for choice in architecture), 3),
    }


def build(location, *, ugly=False, seed=0, evaluations=128):
    """Write the folder of an invented run; `ugly`: with failures, nulls, one finalist and names that are markup."""
    folder = Folder(str(location))
    rng = generator(seed, "example run")
    members = dict(MEMBERS)
    if ugly:
        members[NASTY] = "uniform"
    labels = [*STEPS, "bro<b>ken"] if ugly else list(STEPS)
    identities = {label: f"{index:x}9c0f3a7b21{index:x}" for index, label in enumerate(labels)}

    shown = (lambda architecture: NASTY + name_of(architecture)) if ugly else name_of
    constraint = 45_000.0
    config = f"""seed = {seed}

[space]
name = "tests.example_run"
settings = {{ channels = 8, cells_per_stage = 1 }}

[data]
name = {json.dumps("digits" if not ugly else NASTY)}

[evaluation]
costs = {json.dumps(list(costs((0,) * 6)))}

[constraints]
parameters = {constraint}

[selector]
aggregator = "kemeny"
finalists = {1 if ugly else 3}
cost = "macs"

[retraining]
epochs = 6
"""
    for member in members:
        method = "random_search" if member == "random_search" else member if member != NASTY else "my_team.mine"
        config += f"\n[[members]]\nmethod = {json.dumps(method)}\nname = {json.dumps(member)}\n"
    folder.write("config.toml", config.encode())
    folder.write_json("versions.json", {"raynas": "0.1.0", "python": "3.11.2", "torch": "2.15.0", "ray": "2.60.0"})
    stages = {"data": 0.6, "supernets": 71.2, "population": 38.4, "selector": 4.1, "retraining": 46.3, "gap": 0.3}
    folder.write_json("timings.json", [{"stage": stage, "seconds": seconds} for stage, seconds in stages.items()])

    for label, identity in identities.items():
        broken = label not in STEPS
        steps = np.arange(0, 37 if broken else STEPS[label], 1 if ugly else 5)
        curves = {
            "step": steps,
            "loss": 2.3 * np.exp(-steps / 90) + 0.35 + rng.normal(0, 0.08, len(steps)),
            "seconds": steps * 0.11,
            "images_per_s": np.full(len(steps), 580.0) + rng.normal(0, 9, len(steps)),
        }
        if label == "parsec":
            curves["effective_sample_size"] = 4 + 8 * np.exp(-steps / 40) + rng.normal(0, 0.4, len(steps))
            curves["effective_sample_size_validation"] = curves["effective_sample_size"] * 0.8
            curves["entropy"] = 1.6 - 0.006 * steps
        if broken:
            curves["loss"][-3:] = np.nan
        learnt = rng.dirichlet(np.array([0.3, 0.8, 1.2, 4, 0.5]), size=6).tolist() if label == "parsec" else None
        state = {
            "id": identity,
            "label": label,
            "rule": label,
            "seed": seed,
            "steps": int(steps[-1]) + 1,
            "failure": f"the loss became NaN at step 34; lower training.learning_rate {NASTY}" if broken else None,
            "probabilities": learnt,
            "settings": {"learning_rate": 0.05},
            "partitions": None,
            "images_per_s": None if broken else 578.3,
            "snapshots": [],
        }
        folder.write_json(f"supernets/{identity}/state.json", state)
        folder.write_table(f"supernets/{identity}/curves.parquet", pa.table(curves))

    noise = {label: generator(seed, "noise", label) for label in STEPS}
    blur = {label: {} for label in STEPS}

    def supernet_error(label, architecture):
        if architecture not in blur[label]:
            blur[label][architecture] = float(
                np.clip(0.15 + 0.85 * quality(architecture) + noise[label].normal(0, 0.05), 0.02, 0.91)
            )
        return blur[label][architecture]

    seen = {}
    for member, label in members.items():
        rows, best = [], None
        for index in range(evaluations):
            architecture = SPACE.sample(rng)
            if best is not None and member != "random_search" and rng.random() < 0.7:
                architecture = SPACE.mutate(best, rng)
            prices = costs(architecture)
            error = supernet_error(label, architecture)
            failure = None
            if prices["parameters"] > constraint:
                failure = f"constraint: parameters {prices['parameters']:g} > {constraint:g}"
            elif ugly and member == "optuna_tpe":
                failure = f"RuntimeError: <b>{NASTY}</b> in image {index}"
            elif ugly and rng.random() < 0.03:
                failure = f"the score is NaN on {index} images"
            if failure is None:
                seen.setdefault(architecture, member)
                best = architecture if best is None or error < supernet_error(label, best) else best
            if ugly and index % 2:
                prices["latency_ms"] = None
            rows.append(
                {
                    "index": index,
                    "architecture": encode(architecture),
                    "canonical": encode(architecture),
                    "name": shown(architecture),
                    "member": member,
                    "supernet": identities[label],
                    "loss": None if failure else 2.6 * error,
                    "error": None if failure else error,
                    **(dict.fromkeys(prices) if failure else prices),
                    "failure": failure,
                    "seed": seed,
                    "wall_s": index * 0.21,
                }
            )
        file = "nasty" if member == NASTY else member
        folder.write_table(f"evaluations/{file}.parquet", pa.Table.from_pylist(rows, schema=_evaluation_schema()))

    ended = {
        member: {"state": "done", "failure": None, "evaluations": evaluations, "best": 0.1, "rejected": 0}
        for member in members
    }
    if ugly:
        ended["optuna_tpe"] = {"state": "failed", "failure": f"ValueError: {NASTY}", "evaluations": 0, "best": None}
        ended["optuna_tpe"]["rejected"] = 0
    folder.write_json("members.json", ended)

    candidates = sorted(seen)
    scores = {label: np.array([-2.6 * supernet_error(label, a) for a in candidates]) for label in STEPS}
    ranks = {label: rankdata(-values) for label, values in scores.items()}
    mean = np.mean(list(ranks.values()), axis=0)
    order = np.argsort(mean, kind="stable")
    front, cheapest, finalists = set(), np.inf, 1 if ugly else 3
    for place in order:
        if (price := costs(candidates[place])["macs"]) < cheapest:
            front.add(place)
            cheapest = price
    ranking = [
        {
            "rank": rank,
            "architecture": encode(candidates[place]),
            "name": shown(candidates[place]),
            "consensus": float(-mean[place]),
            "held_out": math.nan,
            **{f"score_{label}": float(values[place]) for label, values in scores.items()},
            **{f"rank_{label}": float(values[place]) for label, values in ranks.items()},
            **costs(candidates[place]),
            "calibration": False,
            "on_front": bool(place in front),
            "front_probability": 0.6 if place in front else 0.1 / rank,
            "finalist": rank <= finalists,
        }
        for rank, place in enumerate(order, start=1)
    ]
    folder.write_table("ranking.parquet", pa.Table.from_pylist(ranking))

    rankers = list(STEPS)
    spread = np.ptp(np.stack(list(ranks.values())), axis=0)
    folder.write_json(
        "agreement.json",
        {
            "rankers": rankers,
            "aggregator": "reliability",
            "candidates": len(ranking),
            "calibrated": 10,
            "undecided": 15,
            "last_undecided": 17,
            "front": {"likely": 4, "possible": 9},
            "hypervolume": {"front": 0.6, "finalists": 0.45},
            "belief": [
                {"ranker": name, "agreement": 0.4, "agreement_error": 0.1, "weight": w, "weight_error": 0.05}
                for name, w in zip(rankers, (0.2, 0.5, 0.1), strict=False)
            ],
            "tau": [[float(kendalltau(ranks[a], ranks[b]).statistic) for b in rankers] for a in rankers],
            "most_disputed": [
                {
                    "architecture": encode(candidates[place]),
                    "name": shown(candidates[place]),
                    "ranks": {label: float(values[place]) for label, values in ranks.items()},
                }
                for place in np.argsort(-spread)[:5]
            ],
        },
    )

    spots = [*range(finalists), *(np.linspace(0.1, 0.98, 5) * (len(ranking) - 1)).astype(int)]
    points = []
    for spot in spots:
        row, role = ranking[spot], "finalist" if spot < finalists else "calibration"
        architecture = tuple(int(part) for part in row["architecture"].split("-"))
        error = float(np.clip(0.6 * quality(architecture) + rng.normal(0, 0.01), 0.004, 0.9))
        failed = ugly and spot == spots[-1]
        result = {
            "architecture": row["architecture"],
            "name": row["name"],
            "rank": row["rank"],
            "role": role,
            **costs(architecture),
            "validation_error": None if failed else error,
            "test_error": None if failed or role == "calibration" else error + 0.006,
            "epochs": 6,
            "seconds": 11.3,
            "failure": "out of memory: <b>asked for 3 GiB</b>" if failed else None,
        }
        if ugly:
            result["latency_ms"] = None
        place = f"finalists/{row['rank']}" if role == "finalist" else f"calibration/{row['architecture']}"
        about = {key: result[key] for key in ("architecture", "name", "rank", "role")}
        folder.write_json(f"{place}/architecture.json", about)
        folder.write_json(f"{place}/result.json", result)
        epochs = np.arange(1, 7)
        curves = {
            "epoch": epochs,
            "train_loss": 2.0 * np.exp(-epochs / 2) + 0.1,
            "validation_error": error + (0.9 - error) * np.exp(-epochs * 0.9),
            "learning_rate": 0.05 * (1 + np.cos(np.pi * epochs / 6)),
            "seconds": np.full(6, 1.9),
        }
        folder.write_table(f"{place}/curves.parquet", pa.table(curves))
        measured = {"stand_alone_error": result["validation_error"], "parameters": result["parameters"]}
        points.append({**about, "consensus": row["consensus"], **measured})
    folder.write_json("gap.json", _gap(points, ranking, rankers, ugly))
    return folder


def _evaluation_schema():
    number = {name: pa.float64() for name in ("loss", "error", *costs((0,) * 6))}
    text = {name: pa.string() for name in ("architecture", "canonical", "name", "member", "supernet")}
    rest = {"failure": pa.string(), "seed": pa.int64(), "wall_s": pa.float64()}
    return pa.schema({"index": pa.int64(), **text, **number, **rest})


def _gap(points, ranking, rankers, ugly):
    empty = {"value": None, "low": None, "high": None}
    if ugly:
        return {
            "n": len(points) - 1,
            "tau": empty,
            "rho": empty,
            "baseline": {"parameters": {"tau": empty, "rho": empty}},
            "rankers": {label: {"tau": empty, "rho": empty} for label in rankers},
            "value_gap": None,
            "regret": None,
            "sentence": f"Nothing can be said about {NASTY}: too few were trained.",
            "points": points,
        }
    errors = np.array([point["stand_alone_error"] for point in points])

    def measure(predicted):
        measured = {}
        for name, statistic in (("tau", kendalltau), ("rho", spearmanr)):
            rng = generator(0, name)
            draws = [rng.integers(len(errors), size=len(errors)) for _ in range(200)]
            values = [statistic(predicted[draw], errors[draw]).statistic for draw in draws]
            low, high = np.nanpercentile(values, [2.5, 97.5])
            value = statistic(predicted, errors).statistic
            measured[name] = {"value": float(value), "low": float(low), "high": float(high)}
        return measured

    by_architecture = {row["architecture"]: row for row in ranking}
    whole = measure(np.array([-point["consensus"] for point in points]))
    singles = {
        label: measure(np.array([by_architecture[point["architecture"]][f"rank_{label}"] for point in points]))
        for label in rankers
    }
    baseline = measure(np.array([-point["parameters"] for point in points]))
    return {
        "n": len(points),
        **whole,
        "baseline": {"parameters": baseline},
        "rankers": singles,
        "value_gap": 0.131,
        "regret": 0.0,
        "sentence": (
            f"The ranking agrees with stand-alone training (tau {whole['tau']['value']:+.2f}, 95 % interval "
            f"{whole['tau']['low']:+.2f} to {whole['tau']['high']:+.2f}, n = {len(points)}), but counting parameters "
            f"does about as well (tau {baseline['tau']['value']:+.2f}): trust it for its order of merit, not for the "
            "last place."
        ),
        "points": points,
    }


if __name__ == "__main__":
    build(sys.argv[1], ugly="--ugly" in sys.argv)
