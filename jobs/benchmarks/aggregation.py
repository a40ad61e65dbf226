"""How well each aggregator ranks tables whose truth is known, beside the best single ranker: tau-b, over seeds.

    python jobs/benchmarks/aggregation.py --seeds 20
    python jobs/benchmarks/aggregation.py --seconds
    python jobs/benchmarks/aggregation.py --undecided --seeds 20
    python jobs/benchmarks/aggregation.py --race --seeds 20
    python jobs/benchmarks/aggregation.py --finalists 3 --seeds 20
    python jobs/benchmarks/aggregation.py --front --seeds 20
    python jobs/benchmarks/aggregation.py --near-best --seeds 30

Rankers are what is known without training every architecture to the end: predictions of published supernets, costs,
counts of operations, latencies, trainings of 12 of 200 epochs; and, where the table has three trainings of each
architecture, one of them, the truth then being the mean of the other two. No aggregator is told the truth but of the
calibration architectures: as in a run, at equal distances down the consensus of a random sample of architectures.
A seed draws that sample, and the two rankers of noise which, with the best ranker upside down, join the others in the
second half of each line. `inside` is how often the truth lies within 1.96 standard deviations of merit.
--race lets trainings of NAS-Bench-201 join what else is known of random candidates: 12 epochs for all, 200 for all, or
200 for those that 12 leave in the race; the truth is the mean of two other trainings of 200 epochs.
--seconds measures the processor's seconds for 100,000 architectures and 12 rankers, one score in ten of them missing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from raynas import seeds
from raynas.aggregators.borda import gumbel_scores, scaled_ranks
from raynas.aggregators.reliability import Trust, measure
from raynas.architecture import Architecture
from raynas.belief import POSSIBLE, undecided
from raynas.hypervolume import hypervolume, most_hypervolume
from raynas.members import family, load_member
from raynas.near_best import NEAR, POWER, probability_near_best
from raynas.pareto import front_probability, pareto_front
from raynas.racing import foretold, race
from raynas.rank_correlation import kendall_tau_b
from raynas.selector import rank_and_cost
from raynas.space import SearchSpace
from search_spaces import nas_bench_201
from search_spaces.nas_bench_201 import CONV_1X1, CONV_3X3, EDGES, NONE, from_string

SHARED = Path(__file__).parents[3] / "shared/data"
SAMPLE = 200  # architectures of which the calibration architectures are chosen
CANDIDATES = 300  # of a run
FINALISTS = 3
BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 1.01)  # of probabilities of the front
NEAR_BINS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.01)  # of being near the best
Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Known:
    """What rankers say of a table's architectures (A,), how good these are, and what they cost in parameters."""

    scores: Scores
    truth_A: NDArray[np.float64]
    parameters_A: NDArray[np.float64]
    choices_AB: NDArray[np.int64]

    @property
    def scores_RA(self) -> NDArray[np.float64]:
        """All that is said."""
        return np.array(list(self.scores.values()))


def main() -> None:
    """Print a line for each set of rankers, or for each aggregator's time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--calibration", type=int, default=24, help="architectures whose truth is told")
    parser.add_argument("--choose", choices=CHOICES, default="spread", help="which these are")
    parser.add_argument("--sets", nargs="+", help="some of the sets of rankers; left out: all")
    parser.add_argument("--aggregators", nargs="*", default=list(family("raynas.aggregators")), help="left out: all")
    parser.add_argument("--seconds", action="store_true", help="measure time instead")
    parser.add_argument("--undecided", action="store_true", help="count those that may be the best instead")
    parser.add_argument("--race", action="store_true", help="race short trainings instead")
    parser.add_argument("--finalists", type=int, help="compare so many of the front, chosen in two ways, instead")
    parser.add_argument("--front", action="store_true", help="count how often probabilities of the front are right")
    parser.add_argument("--near-best", action="store_true", help="count how often the chosen is as good as it is told")
    options = parser.parse_args()
    if options.race:
        _print_races(options)
        return
    if options.seconds:
        _print_seconds()
        return
    if options.undecided:
        _print_undecided(options)
        return
    if options.finalists:
        _print_finalists(options)
        return
    if options.front:
        _print_front(options)
        return
    if options.near_best:
        _print_near_best(options)
        return
    names = [*options.aggregators, f"calibrated, {options.calibration}", "inside", "inside, calibrated"]
    print(f"{'rankers':<32}{'spoilt':>8}{'best':>8}" + "".join(f"{name:>20}" for name in names))
    for name, known in ranker_sets().items():
        if options.sets is None or name in options.sets:
            _print_taus(name, known, options)


def ranker_sets() -> dict[str, Known]:
    """Rankers of the tables in shared/data, and the truth."""
    table = pq.read_table(SHARED / "nb201_cifar10.parquet")
    order = table["arch_index"].to_pylist()
    published = _columns("nb201_published_supernets.parquet", order)
    latencies = {name: one_A for name, one_A in _columns("nb201_latency.parquet", order).items() if "_ms" in name}
    found = _columns("nb201_cifar10.parquet", order)
    supernets = {name: published[name] for name in ("oneshot_acc", "fewshot_acc")}
    counts = {"params": found["c10_params"], **_counts(table["arch_str"].to_pylist())}
    validation, test = ({name: found[name]} for name in ("c10_valid_12", "c10_test_12"))
    cell = Known(
        supernets, found["c10_test_200"], found["c10_params"], _choices(nas_bench_201.SPACE, table["arch_str"])
    )
    few = {**supernets, **counts, **validation}
    most = {**few, **test}
    macro, size = _columns("nas_bench_macro_1640.parquet"), _columns("nats_size_cifar10.parquet")
    layers_AB = np.stack([macro[f"l{layer}"] for layer in range(1, 9)], axis=1).astype(np.int64)
    depth_A = np.sum(layers_AB > 0, axis=1).astype(np.float64)
    costs = {"params": macro["params"], "flops": macro["flops"], "depth": depth_A}
    chain = Known(costs, macro["mean_acc"], macro["params"], layers_AB)
    channels_AB = np.stack([size[f"c{position}"] for position in range(1, 6)], axis=1).astype(np.int64)
    widths = {name: size[name] for name in ("c1", "c2", "c3", "c4", "c5", "params", "flops")}
    return {
        "201: supernets": cell,
        "201: counts": replace(cell, scores=counts),
        "201: counts, latencies": replace(cell, scores={**counts, **latencies}),
        "201: supernets, counts": replace(cell, scores={**supernets, **counts}),
        "201: those, 12 epochs": replace(cell, scores=few),
        "201: those, tested": replace(cell, scores=most),
        "201: those, latencies": replace(cell, scores={**most, **latencies}),
        "macro: costs": chain,
        "macro: costs, one training": replace(
            chain, scores={**costs, "s1": macro["acc_s1"]}, truth_A=(macro["acc_s2"] + macro["acc_s3"]) / 2
        ),
        "size: widths, costs": Known(widths, size["c10_test_90"], size["params"], channels_AB),
    }


def choose_spread(
    merit_A: NDArray[np.float64], spread_A: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """At equal distances down the consensus of a random sample."""
    sample = rng.choice(len(merit_A), min(SAMPLE, len(merit_A)), replace=False)
    return np.asarray(sample[np.argsort(merit_A[sample])][np.linspace(0, len(sample) - 1, count).round().astype(int)])


def choose_random(
    merit_A: NDArray[np.float64], spread_A: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """At random."""
    return np.asarray(rng.choice(len(merit_A), count, replace=False))


def choose_disputed(
    merit_A: NDArray[np.float64], spread_A: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Those of a random sample that rankers disagree about most."""
    sample = rng.choice(len(merit_A), min(SAMPLE, len(merit_A)), replace=False)
    return np.asarray(sample[np.argsort(-spread_A[sample])][:count])


def choose_disputed_throughout(
    merit_A: NDArray[np.float64], spread_A: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The one that rankers disagree about most in each of so many parts of a random sample's consensus."""
    sample = rng.choice(len(merit_A), min(SAMPLE, len(merit_A)), replace=False)
    parts = np.array_split(sample[np.argsort(merit_A[sample])], count)
    return np.array([part[np.argmax(spread_A[part])] for part in parts])


CHOICES: dict[str, Callable[..., NDArray[np.int64]]] = {
    "spread": choose_spread,
    "random": choose_random,
    "disputed": choose_disputed,
    "disputed_throughout": choose_disputed_throughout,
}


def _print_taus(name: str, known: Known, options: argparse.Namespace) -> None:
    scores_RA, truth_A = known.scores_RA, known.truth_A
    taus_R = [kendall_tau_b(scores_A, truth_A) for scores_A in scores_RA]
    for spoilt in (False, True):
        found: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            rng = seeds.generator(seed, "aggregation", name)
            noise_RA = rng.normal(size=(2, len(truth_A)))
            given_RA = np.vstack([scores_RA, noise_RA, -scores_RA[[np.argmax(taus_R)]]]) if spoilt else scores_RA
            if spoilt or seed == 0:  # nothing else is drawn
                for aggregator in options.aggregators:
                    consensus_A = load_member("raynas.aggregators", aggregator)(given_RA)
                    found.setdefault(aggregator, []).append(kendall_tau_b(consensus_A, truth_A))
            alone = measure(given_RA)
            found.setdefault("inside", []).append(_inside(alone.merit_A, alone.deviation_A, truth_A))
            spread_A = np.std(gumbel_scores(given_RA), axis=0)
            rows = CHOICES[options.choose](alone.merit_A, spread_A, options.calibration, rng)
            calibration_A = np.full(len(truth_A), np.nan)
            calibration_A[rows] = truth_A[rows]
            trust = measure(given_RA, calibration_A=calibration_A, choices_AB=known.choices_AB)
            others = np.isnan(calibration_A)
            found.setdefault("calibrated", []).append(kendall_tau_b(trust.merit_A[others], truth_A[others]))
            found.setdefault("calibrated, inside", []).append(_inside(trust.merit_A, trust.deviation_A, truth_A))
        inside = found.pop("inside"), found.pop("calibrated, inside")
        columns = [*found.values(), *inside]
        cells = [f"{np.mean(one):.3f}" + (f" ± {np.std(one):.3f}" if len(one) > 1 else "") for one in columns]
        print(f"{name:<32}{'yes' if spoilt else 'no':>8}{max(taus_R):>8.3f}" + "".join(f"{one:>20}" for one in cells))


def _print_undecided(options: argparse.Namespace) -> None:
    """Of random candidates, how many may be the best for all that is known, and how often the best is among them."""
    print(
        f"{'rankers':<32}{'undecided':>20}{'best among them':>20}   of {CANDIDATES}, {options.calibration} calibrated"
    )
    every = []
    for name, known in ranker_sets().items():
        found = []
        for some, _, trust in _runs(name, known, options):
            open_A = undecided(trust)
            found.append((open_A.sum(), open_A[np.argmax(known.truth_A[some])]))
        count, right = np.mean(found, axis=0)
        every.append(right)
        print(f"{name:<32}{count:>20.1f}{right:>20.2f}", flush=True)
    print(f"{'mean over the sets':<52}{np.mean(every):>20.3f}")


def _print_races(options: argparse.Namespace) -> None:
    """Of random candidates, what short trainings cost, and how well all that is known then ranks and finds the best."""
    found = _columns("nb201_cifar10.parquet")
    trainings = {12: found["c10_valid_12"], 200: found["c10_test_200_s1"]}
    truth_A = (found["c10_test_200_s2"] + found["c10_test_200_s3"]) / 2
    whole = np.flatnonzero(~np.isnan(trainings[200] + truth_A))
    names = ("epochs", "tau", f"regret of {FINALISTS}", "open", f"of the {FINALISTS} best")
    print(f"{'rankers':<24}{'trained for':<14}" + "".join(f"{name:>18}" for name in names) + f"   of {CANDIDATES}")
    for name, known in ranker_sets().items():
        if not (name.startswith("201") and "c10_valid_12" not in known.scores and len(known.scores) > 1):
            continue
        told: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(options.seeds):
            rng = seeds.generator(seed, "race", name)
            some = rng.choice(whole, CANDIDATES, replace=False)
            scores_RA, true_A, choices_AB = known.scores_RA[:, some], truth_A[some], known.choices_AB[some]
            alone = measure(scores_RA)
            rows = choose_spread(alone.merit_A, alone.deviation_A, options.calibration, rng)
            accuracy_A = np.where(np.isin(np.arange(CANDIDATES), rows), true_A, np.nan)
            networks: list[Architecture] = [(row,) for row in some.tolist()]

            def train(epochs: float, runners: list[Architecture]) -> list[float]:
                return [float(trainings[int(epochs)][row]) for (row,) in runners]

            for epochs in ((), (12,), (12, 200), (200,)):
                rungs = race(networks, scores_RA, epochs, FINALISTS, train)
                column = foretold(rungs) if rungs else {}
                given_RA = np.vstack([scores_RA, *([[column[one] for one in networks]] if column else [])])
                trust = measure(
                    given_RA,
                    calibration_A=accuracy_A if options.calibration else None,
                    choices_AB=choices_AB,
                    trained_R=np.arange(len(given_RA)) >= len(scores_RA),
                )
                open_A, first = undecided(trust, FINALISTS), np.argsort(-trust.merit_A)[:FINALISTS]
                told.setdefault(" then ".join(map(str, epochs)) or "nothing", []).append(
                    (
                        sum(number * len(rung) for number, rung in rungs.items()),
                        kendall_tau_b(trust.merit_A, true_A),
                        true_A.max() - true_A[first].max(),
                        open_A.sum(),
                        open_A[np.argsort(-true_A)[:FINALISTS]].mean(),
                    )
                )
        for trained, values in told.items():
            mean, deviation = np.mean(values, axis=0), np.std(values, axis=0)
            cells = [f"{mean[0]:.0f}", *(f"{mean[i]:.3f} ± {deviation[i]:.3f}" for i in (1, 2))]
            cells += [f"{mean[3]:.0f}", f"{mean[4]:.2f}"]
            print(f"{name:<24}{trained:<14}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def _print_finalists(options: argparse.Namespace) -> None:
    """Of random candidates, what the first of the front and those that add most hypervolume to it are truly worth.

    regret: what the most accurate finalist lacks to the best candidate; covered: the share of the hypervolume of the
    true front, both of rank and parameters.
    """
    columns = [f"{what}, {rule}" for what in ("regret", "covered") for rule in ("first", "spread")]
    print(f"{'rankers':<32}" + "".join(f"{name:>20}" for name in columns) + f"   {options.finalists} of {CANDIDATES}")
    every = []
    for name, known in ranker_sets().items():
        found = []
        for some, _, trust in _runs(name, known, options):
            order = np.argsort(-trust.merit_A, kind="stable")
            costs_A, best_A = known.parameters_A[some][order], known.truth_A[some][order]
            consensus_A = scaled_ranks(trust.merit_A[None, order])[0]
            front = np.flatnonzero(pareto_front(np.stack([-consensus_A, costs_A], axis=1)))
            chosen = most_hypervolume(rank_and_cost(consensus_A, costs_A)[front], options.finalists)
            true_A2 = rank_and_cost(best_A, costs_A)
            ways = [front[: options.finalists], front[chosen]]
            regrets = [best_A.max() - best_A[way].max() for way in ways]
            found.append([*regrets, *(hypervolume(true_A2[way]) / hypervolume(true_A2) for way in ways)])
        every.append(np.mean(found, axis=0))
        cells = [f"{mean:.3f} ± {std:.3f}" for mean, std in zip(every[-1], np.std(found, axis=0), strict=True)]
        print(f"{name:<32}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    print(f"{'mean over the sets':<32}" + "".join(f"{mean:>20.3f}" for mean in np.mean(every, axis=0)))


def _print_front(options: argparse.Namespace) -> None:
    """Of random candidates told to be on the front of truth and parameters with a probability, the share that is.

    Then, of each run in the mean: the sum of the probabilities, how many truly are, and the share of these whose
    probability is not below `POSSIBLE`.
    """
    head = "".join(f"{low:>13.2f} to {high:.2f}" for low, high in pairwise(BINS))
    print(f"{'rankers':<32}{head}{'told':>8}{'true':>8}{'held':>8}")
    every = []
    for name, known in ranker_sets().items():
        told, true = [], []
        for seed, (some, _, trust) in enumerate(_runs(name, known, options)):
            cost_A = known.parameters_A[some]
            told.append(front_probability(-trust.merit_A, trust.deviation_A, cost_A, seed=seed))
            true.append(pareto_front(np.stack([-known.truth_A[some], cost_A], axis=1)))
        every.append((np.concatenate(told), np.concatenate(true)))
        _print_bins(name, *every[-1], options.seeds)
    told_A, true_A = (np.concatenate(column) for column in zip(*every, strict=True))
    _print_bins("all", told_A, true_A, options.seeds * len(every))


def _print_near_best(options: argparse.Namespace) -> None:
    """Of random candidates, how near the best of the finalists is to the best, told and true.

    Told with the power of `near_best` and, so that no table is told by itself, with the one likeliest for the others.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for name, known in ranker_sets().items():
        for seed, (some, told_A, trust) in enumerate(_runs(name, known, options)):
            finalists, true_A = np.argsort(-trust.merit_A)[:FINALISTS], known.truth_A[some]
            chosen = finalists[np.argmax(true_A[finalists])]
            told_A[finalists] = true_A[finalists]
            one = probability_near_best(
                known.scores_RA[:, some],
                told_A / 100,
                known.choices_AB[some],
                int(chosen),
                candidate_A=np.ones(CANDIDATES, dtype=bool),
                seed=seed,
            )
            right = float(true_A.max() - true_A[chosen] <= 100 * NEAR)
            found.setdefault(name, []).append((np.nan if one is None else one, right))
    runs = {name: np.array([pair for pair in pairs if pair[0] > 0]) for name, pairs in found.items()}
    bins = "".join(f"{low:>9.1f} to {high:.1f}" for low, high in pairwise(NEAR_BINS))
    print(f"{'rankers':<36}{'told':>6}{'right':>7}{bins}   right of those told so (how many of {options.seeds})")
    tables: dict[str, list[NDArray[np.float64]]] = {}
    for name, pairs_P2 in runs.items():
        _print_told(name, pairs_P2)
        tables.setdefault(name.partition(":")[0], []).append(pairs_P2)
    _print_told("all", np.concatenate(list(runs.values())))
    left_out = []
    for table, of_table in tables.items():
        others = [pairs_P2 for other, parts in tables.items() if other != table for pairs_P2 in parts]
        power = _likeliest_power(np.concatenate(others))
        told_P, right_P = np.concatenate(of_table).T
        left_out.append(np.column_stack([told_P ** (power / POWER), right_P]))
        _print_told(f"{table}, power {power:.2f} of the others", left_out[-1])
    _print_told("all, powers of other tables", np.concatenate(left_out))
    print(f"likeliest power of all sets {_likeliest_power(np.concatenate(list(runs.values()))):.2f}")


def _print_told(name: str, pairs_P2: NDArray[np.float64]) -> None:
    told_P, right_P = pairs_P2.T
    cells = []
    for low, high in pairwise(NEAR_BINS):
        inside_P = (told_P >= low) & (told_P < high)
        cells.append(f"{right_P[inside_P].mean():.2f} ({inside_P.sum()})" if inside_P.any() else "–")
    print(
        f"{name:<36}{told_P.mean():>6.2f}{right_P.mean():>7.2f}" + "".join(f"{cell:>16}" for cell in cells), flush=True
    )


def _likeliest_power(pairs_P2: NDArray[np.float64]) -> float:
    """Of the shares of draws behind what was told, given whether it was right."""
    share_P = np.clip(pairs_P2[:, 0] ** (1 / POWER), 1e-4, 1 - 1e-4)

    def loss(power: float) -> float:
        told_P = share_P**power
        return float(-np.mean(np.where(pairs_P2[:, 1] > 0, np.log(told_P), np.log(1 - told_P))))

    return float(minimize_scalar(loss, bounds=(0.05, 2), method="bounded").x)


def _print_bins(name: str, told_A: NDArray[np.float64], true_A: NDArray[np.bool_], runs: int) -> None:
    cells = []
    for low, high in pairwise(BINS):
        inside_A = (told_A >= low) & (told_A < high)
        cells.append(f"{true_A[inside_A].mean():.3f} ({inside_A.sum():,})" if inside_A.any() else "–")
    held = true_A[told_A >= POSSIBLE].sum() / true_A.sum()
    line = f"{name:<32}" + "".join(f"{cell:>21}" for cell in cells)
    print(f"{line}{told_A.sum() / runs:>8.1f}{true_A.sum() / runs:>8.1f}{held:>8.2f}")


def _runs(
    name: str, known: Known, options: argparse.Namespace
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], Trust]]:
    """Random candidates, the accuracies of the calibrated, and what is made of them."""
    for seed in range(options.seeds):
        rng = seeds.generator(seed, "undecided", name)
        some = rng.choice(len(known.truth_A), CANDIDATES, replace=False)
        scores_RA = known.scores_RA[:, some]
        alone = measure(scores_RA)
        rows = choose_spread(alone.merit_A, alone.deviation_A, options.calibration, rng)
        accuracy_A = np.where(np.isin(np.arange(CANDIDATES), rows), known.truth_A[some], np.nan)
        yield some, accuracy_A, measure(scores_RA, calibration_A=accuracy_A, choices_AB=known.choices_AB[some])


def _inside(merit_A: NDArray[np.float64], deviation_A: NDArray[np.float64], truth_A: NDArray[np.float64]) -> float:
    """Share of architectures whose true Gumbel score is where it should be 95 times in a hundred; up to the mean."""
    off_A = gumbel_scores(truth_A[None])[0] - merit_A
    return float(np.mean(np.abs(off_A - np.median(off_A)) < 1.96 * deviation_A))


def _columns(file: str, order: list[int] | None = None) -> Scores:
    """The numbers of a table, its rows in this order of arch_index."""
    table = pq.read_table(SHARED / file)
    if order is not None:
        place = {index: row for row, index in enumerate(table["arch_index"].to_pylist())}
        table = table.take([place[index] for index in order])
    numeric = [
        field.name for field in table.schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    ]
    return {name: table[name].to_numpy().astype(np.float64) for name in numeric}


def _choices(space: SearchSpace, keys: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.array([space.canonicalise(space.parse(key)) for key in keys.to_pylist()])


def _counts(cells: list[str]) -> Scores:
    """Of each cell's edges that lead from input to output: convolutions, the most in a row, and paths."""
    rows = []
    for cell in cells:
        architecture = from_string(cell)
        edges = [(s, t, choice) for (s, t), choice in zip(EDGES, architecture, strict=True) if choice != NONE]
        ends = {3}
        for source, target, _ in sorted(edges, reverse=True):
            ends |= {source} if target in ends else set()
        depth, paths, convolutions = {0: 0}, {0: 1}, 0
        for source, target, choice in sorted(edges):
            if source in depth and target in ends:
                convolution = choice in (CONV_1X1, CONV_3X3)
                depth[target] = max(depth.get(target, 0), depth[source] + convolution)
                paths[target] = paths.get(target, 0) + paths[source]
                convolutions += convolution
        rows.append((convolutions, depth.get(3, -1), paths.get(3, 0)))
    return dict(zip(("convolutions", "depth", "paths"), np.array(rows, dtype=np.float64).T, strict=True))


def _print_seconds(architectures: int = 100_000, rankers: int = 12) -> None:
    rng = seeds.generator(0, "aggregation", "seconds")
    truth_A = rng.normal(size=architectures)
    scores_RA = truth_A + np.linspace(0.5, 2, rankers)[:, None] * rng.normal(size=(rankers, architectures))
    scores_RA[rng.random(scores_RA.shape) < 0.1] = np.nan
    calibration_A = np.where(np.arange(architectures) < 24, truth_A, np.nan)
    for name in family("raynas.aggregators"):
        _time(name, load_member("raynas.aggregators", name), scores_RA, truth_A)
    _time("reliability, 24", lambda one_RA: measure(one_RA, calibration_A=calibration_A).merit_A, scores_RA, truth_A)


def _time(
    name: str,
    aggregate: Callable[..., NDArray[np.float64]],
    scores_RA: NDArray[np.float64],
    truth_A: NDArray[np.float64],
) -> None:
    start = time.process_time()
    consensus_A = aggregate(scores_RA)
    print(
        f"{name:<20}{time.process_time() - start:>8.2f} s   tau {kendall_tau_b(consensus_A, truth_A):.3f}", flush=True
    )


if __name__ == "__main__":
    main()
