"""How well the selector's consensus ranks a space whose truth is known, beside each of its rankers.

    python jobs/benchmarks/consensus.py --space nas_bench_201 --minutes 60 --seeds 0

Trains supernets as jobs/benchmarks/ranking.py does, has them and the proxies score every architecture of the table, and
merges what they say by the default aggregator: of each seed's supernet and the proxies, without any truth, and with the
accuracies of --calibration architectures. These are spread over a random sample as in a run, and known by less
training where the table has such (12 of 200 epochs in NAS-Bench-201, one of three trainings in NAS-Bench-Macro); they
are left out of the figures of their line. `spoilt` adds two rankers of noise and the best one upside down. With --short
the first networks of the consensus without truth are trained for so many epochs, as retraining.space_settings says, and
ranked anew among themselves, before all others. --record adds the lines to records/consensus.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from jobs.benchmarks.ranking import (
    HEADER,
    TRUTHS,
    checked,
    command,
    configure,
    figures,
    machine,
    measures,
    options_of,
    read_table,
    score_all,
)
from raynas import seeds
from raynas.architecture import Architecture
from raynas.config import Config, SelectorSettings
from raynas.distributed import pipeline
from raynas.evaluation import PROXY, Evaluation
from raynas.plan import load_space, make_plan
from raynas.progress import Progress
from raynas.run import open_run
from raynas.selector import candidates_table, consensus, load_aggregator, scores_of, short_trained, spread

RECORDS = Path(__file__).parent / "records/consensus.md"
PROXIES = ("complexity", "expressivity", "progressivity", "trainability", "zico")
SAMPLE = 200  # architectures of which the calibration architectures are chosen


def main() -> None:
    """Train, score, merge, and print a line for each ranker and each consensus."""
    parser = options_of(__doc__, RECORDS)
    parser.add_argument("--proxies", nargs="*", default=list(PROXIES), metavar="NAME")
    parser.add_argument("--proxy-images", type=int, default=64)
    parser.add_argument("--short", type=float, metavar="EPOCHS", help="0.2 is a fifth of an epoch; left out: none")
    parser.add_argument("--leaders", type=int, default=200, help="distinct networks that --short trains")
    parser.add_argument("--calibration", type=int, default=24, help="architectures whose accuracy is told")
    options = checked(parser)
    truth = TRUTHS[options.space]
    options.set += [f"selector.proxies={options.proxies}", f"selector.proxy_images={options.proxy_images}"]
    config = configure(options, truth)
    names, truth_A, columns = read_table(truth, options.architectures)
    table = score_all(config, options.storage, names)
    space = load_space(config.space)
    networks = [space.canonicalise(space.parse(name)) for name in names]
    plan = make_plan(config)
    proxies = {name: table[f"{PROXY}{name}"].to_numpy() for name in options.proxies}
    print(f"{options.space}, {len(names)} architectures")
    print(HEADER)
    lines = {name: measures(columns[name], truth_A) for name in truth.baselines}
    lines |= {name: measures(score_A, truth_A) for name, score_A in proxies.items()}
    for member, seed in zip(plan.members, options.seeds, strict=True):
        supernet_A = table[plan.supernet(member.supernet).label].to_numpy()
        scores_RA = np.array([supernet_A, *proxies.values()])
        lines |= _of_seed(config, options, seed, networks, scores_RA, truth_A, columns[truth.short])
        if options.short:
            scores = dict(zip(("supernet", *(f"{PROXY}{name}" for name in proxies)), scores_RA, strict=True))
            merged_A = _with_short(config, options, networks, scores)
            lines[f"consensus, {options.leaders} trained, seed {seed}"] = measures(merged_A, truth_A)
    for name, row in lines.items():
        print(f"{name:<28}" + figures(row))
    if options.record:
        _record(options, lines, len(names))


def _of_seed(
    config: Config,
    options: argparse.Namespace,
    seed: int,
    networks: list[Architecture],
    scores_RA: NDArray[np.float64],
    truth_A: NDArray[np.float64],
    short_A: NDArray[np.float64],
) -> dict[str, dict[str, float]]:
    rng = seeds.generator(seed, "benchmark")
    best = max(range(len(scores_RA)), key=lambda r: measures(scores_RA[r], truth_A)["tau"])
    spoilt_RA = np.vstack([scores_RA, rng.normal(size=(2, len(truth_A))), -scores_RA[best]])
    first = _first_places(networks)
    sample = [Evaluation(network, (-scores_RA[0, first[network]],)) for network in _some(networks, rng)]
    chosen = set(spread(sample, 0, options.calibration, lambda network: network))
    known_A = np.array([network in chosen for network in networks])
    accuracy = {network: short_A[a] for network, a in first.items() if network in chosen}
    accuracy_A = np.array([accuracy.get(network, np.nan) for network in networks])
    aggregator = load_aggregator(config)
    lines = {"supernet": measures(scores_RA[0], truth_A)}
    for name, given_RA in (("consensus", scores_RA), ("consensus, spoilt", spoilt_RA)):
        lines[name] = measures(consensus(networks, given_RA, aggregator), truth_A)
        calibrated_A = consensus(networks, given_RA, aggregator, accuracy_A)
        lines[f"{name}, {len(chosen)} calibrated"] = measures(calibrated_A[~known_A], truth_A[~known_A])
    return {f"{name}, seed {seed}": line for name, line in lines.items()}


def _with_short(
    config: Config,
    options: argparse.Namespace,
    networks: list[Architecture],
    scores: Mapping[str, NDArray[np.float64]],
) -> NDArray[np.float64]:
    """The consensus of all, and before it that on the leaders with what their short trainings say."""
    aggregator = load_aggregator(config)
    merged_A = consensus(networks, np.array(list(scores.values())), aggregator)
    first = _first_places(networks)
    leaders = sorted(first, key=lambda network: (-merged_A[first[network]], network))[: options.leaders]
    rows = [first[network] for network in leaders]
    table = candidates_table(leaders, {name: list(score_A[rows]) for name, score_A in scores.items()}, {}, [])
    folder = open_run(config, options.storage, None)
    selector = SelectorSettings.model_validate({**config.selector.model_dump(), "short_epochs": options.short})
    with Progress(Console(stderr=True)) as progress:
        run = pipeline.start(config.model_copy(update={"selector": selector}), folder, None, progress)
        said = scores_of(pipeline.train_briefly(run, table).to_pydict())
    among = consensus(leaders, np.array(list(said.values())), aggregator, trained_R=short_trained(said))
    told = dict(zip(leaders, among, strict=True))
    return np.array([1 + told[one] if one in told else merged_A[a] - 1 for a, one in enumerate(networks)])


def _first_places(networks: list[Architecture]) -> dict[Architecture, int]:
    return {network: a for a, network in reversed(list(enumerate(networks)))}


def _some(networks: list[Architecture], rng: np.random.Generator) -> list[Architecture]:
    distinct = sorted(set(networks))
    return [distinct[row] for row in rng.permutation(len(distinct))[:SAMPLE]]


def _record(options: argparse.Namespace, lines: Mapping[str, Mapping[str, float]], count: int) -> None:
    with RECORDS.open("a", encoding="utf-8") as records:
        records.write(
            f"\n## {options.record}\n\n`{command()}`; n = {count}; {machine()}\n\n"
            "| ranking | tau-b | rho | P@5 % | best of 100 | regret |\n|---|---|---|---|---|---|\n"
        )
        for name, row in lines.items():
            told = " | ".join(figures(row).split())
            records.write(f"| {name} | {told} |\n")


if __name__ == "__main__":
    main()
