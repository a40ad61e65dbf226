"""The command line: `raynas search` runs everything, the other commands one stage or one question of a run."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from raynas.architecture import Architecture, encode
from raynas.errors import UserError, reason

if TYPE_CHECKING:
    from raynas.config import Config
    from raynas.distributed.pipeline import Run
    from raynas.storage import Folder

app = typer.Typer(
    name="raynas",
    help=(
        "Find the architecture to train: weight-sharing neural architecture search on Ray that measures how far its "
        "own ranking can be trusted.\n\n"
        "Start with `raynas search`: it needs no arguments, no data and no GPU, and ends with a report to open in a "
        "browser. The same command again continues a run that was stopped.\n\n"
        "Exit codes: 0 done, 2 a mistake that you can mend, told in one line, 1 a fault of raynas."
    ),
    add_completion=False,
    rich_markup_mode="markdown",
)

ConfigFile = Annotated[
    str | None,
    typer.Argument(metavar="CONFIG.toml", help="Settings; without a file, the built-in run on handwritten digits."),
]
Space = Annotated[
    str | None,
    typer.Option("--space", metavar="NAME", help="Search space: one of `raynas list spaces`, or a module of your own."),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="digits, cifar10, cifar100, parquet:DIR, folder:DIR, or package.module:function of your own.",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="Search with this one of `raynas list methods` instead of the file's members; may be given several times.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change a setting, e.g. training.steps=2000 or constraints.macs=3e6; may be given several times. "
        "`raynas list settings` shows all there are.",
    ),
]
Storage = Annotated[
    str, typer.Option("--storage", metavar="DIR", help="Where runs are kept: a folder, s3://... or gs://...")
]
Distribution = Annotated[
    str | None,
    typer.Option(
        "--init-distribution",
        metavar="RUN",
        help="Begin the distributions that members learn (parsec) at those that this run has learnt, e.g. a "
        "smaller one on the same space.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="RUN", help="The run's folder in the storage; by default named by its settings."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="The Ray cluster to run on, e.g. auto; by default $RAY_ADDRESS, or else this machine alone.",
    ),
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, e.g. runs/NAME.")]


@app.command()
def search(
    config: ConfigFile = None,
    space: Space = None,
    data: Data = None,
    method: Methods = None,
    set_: Overrides = None,
    init_distribution: Distribution = None,
    storage: Storage = "runs",
    name: Name = None,
    address: Address = None,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            metavar="FILE.parquet",
            help="Take scores from a table of known accuracies (higher is better) instead of supernets; name its "
            "columns with --set table.key=..., table.reward=..., table.report=... and, optionally, table.cost=... "
            "(what an evaluation costs)",
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option("--repeats", metavar="N", min=1, help="With --table: searches per method, each of its own seed."),
    ] = 1,
) -> None:
    """Run everything: train supernets, search, rank, retrain the finalists, report.

    Examples:

    - `raynas search`

    - `raynas search --data parquet:cifar10 --set data.resolution=16`

    - `raynas search jobs/configs/cifar10_macro.toml --address auto --storage s3://bucket/runs`
    """
    settings = _settings(config, space, data, method, set_, init_distribution)
    if table is not None:
        _search_table(settings, table, repeats, storage, name, address)
        return
    if repeats != 1:
        raise UserError("--repeats is for searches of a table; name one with --table, or leave --repeats out.")
    with _new(settings, storage, name, address) as run:
        from raynas.distributed import pipeline

        pipeline.train(run)
        pipeline.select(run)
        pipeline.stand_alone(run)
    _present(run.folder, with_report=find_spec("plotly") is not None)  # an extra; the summary says how to make it later


@app.command()
def leaderboard(
    table: Annotated[
        str,
        typer.Option(
            "--table",
            metavar="FILE.parquet",
            help="A table of known accuracies (higher is better); name its columns with --set table.key=..., "
            "table.reward=..., table.report=... and, optionally, table.cost=... (what an evaluation costs)",
        ),
    ],
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG.toml",
            help="Settings, of which the space, members and search count; without a file, every strategy searches "
            "that needs nothing but scores.",
        ),
    ] = None,
    space: Space = None,
    method: Methods = None,
    evaluations: Annotated[
        int | None,
        typer.Option("--evaluations", metavar="N", min=1, help="Of each search; by default search.evaluations."),
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", min=1, help="Searches per strategy, each of its own seed.")
    ] = 20,
    set_: Overrides = None,
    storage: Storage = "runs",
    name: Name = None,
    address: Address = None,
) -> None:
    """Rank all black-box strategies on a table of known accuracies, with regret curves.

    All search by the reward alone. The same command again, or with more --repeats, continues. Without CONFIG.toml and
    --method every strategy searches that needs nothing but scores; optuna_gp takes far longer than the others.

    Example:

    - `raynas leaderboard --table nb201.parquet --set table.key=arch_str --set table.reward=valid --set
      table.report=test`
    """
    from raynas.leaderboard import black_box_methods

    settings = _settings(config, space, None, method or (None if config else black_box_methods()), set_)
    _leaderboard(settings, table, evaluations, repeats, storage, name, address)


@app.command()
def train(
    config: ConfigFile = None,
    space: Space = None,
    data: Data = None,
    method: Methods = None,
    set_: Overrides = None,
    storage: Storage = "runs",
    name: Name = None,
    address: Address = None,
) -> None:
    """Train the supernets of a run, and stop there; `raynas search` with the same settings goes on."""
    with _new(_settings(config, space, data, method, set_), storage, name, address) as run:
        from raynas.distributed import pipeline

        pipeline.train(run)
    _print(run.folder.location)


@app.command()
def rank(
    run: RunFolder,
    architectures: Annotated[
        str | None,
        typer.Option(
            "--architectures",
            metavar="FILE",
            help="Score these instead: one architecture a line, as 0-3-1-... or in the space's own notation.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="FILE.parquet",
            help="Where to write those scores; by default a file called like FILE in RUN/ranked.",
        ),
    ] = None,
    address: Address = None,
) -> None:
    """Search and rank in a run; or score any list of architectures with a run's supernets, proxies and predictors.

    Where selector.aggregator heeds calibration, as the default does, the calibration architectures are trained from
    scratch before the ranking is made. The Parquet of a list has the columns architecture, name, one per ranker
    (supernets, proxies, predictors, short trainings), and consensus; higher is better in all. The consensus heeds the
    calibration of a run that is ranked.
    """
    folder, settings = _existing(run)
    if architectures is None:
        if output is not None:
            raise UserError("--output is for the scores of --architectures; name their file, or leave --output out.")
        with _continue(folder, settings, address) as continued:
            from raynas.distributed import pipeline

            pipeline.train(continued)
            pipeline.select(continued)
        _print(folder.path("ranking.parquet"))
        return
    from raynas.plan import load_space

    listed = _architectures(Path(architectures), load_space(settings.space))
    _check_trained(folder, settings)
    place, file = _destination(folder, Path(architectures), listed, output)
    with _continue(folder, settings, address) as continued:
        from raynas.distributed import pipeline

        scores = pipeline.score(continued, listed)
    place.write_table(file, scores)
    _print(place.path(file))


@app.command()
def retrain(run: RunFolder, address: Address = None) -> None:
    """Train a ranked run's finalists and calibration architectures from scratch, and measure the gap."""
    folder, settings = _existing(run)
    _check_ranked(folder)
    with _continue(folder, settings, address) as continued:
        from raynas.distributed import pipeline

        pipeline.stand_alone(continued)
    _print(folder.path("finalists"))


@app.command()
def gap(run: RunFolder) -> None:
    """Say how far a run's ranking can be trusted, by what was trained from scratch."""
    from raynas.gap import measure_gap
    from raynas.run_record import read_run
    from raynas.summary import print_summary

    folder, _ = _existing(run)
    _check_ranked(folder)
    read_run(folder, with_gap=False)  # what is broken is told before anything is measured
    measure_gap(folder)
    print_summary(folder, _console())


@app.command()
def report(run: RunFolder) -> None:
    """Write a run's report.html anew, as far as the run has come, and print its summary."""
    folder, _ = _existing(run)
    _present(folder)


@app.command()
def export(
    run: RunFolder,
    output: Annotated[str, typer.Option("--output", metavar="DIR", help="A new folder for the model.")],
    rank: Annotated[
        int | None,
        typer.Option("--rank", metavar="N", help="Which finalist, by its rank; by default the best on validation."),
    ] = None,
) -> None:
    """Write a finalist as a model that loads without raynas, and prove that it computes the same.

    The folder has model.pt2 (torch.export), weights.safetensors and card.json.
    """
    from raynas.export import EXAMPLES, export_finalist

    folder, settings = _existing(run)
    card = export_finalist(folder, settings, output, rank)
    _print(
        f"{output}: {card['name']}, test accuracy {100 * (1 - card['test_error']):.2f} %; logits of {EXAMPLES} "
        "test images verified after loading"
    )


class Family(StrEnum):
    """What `raynas list` can list."""

    spaces = "spaces"
    methods = "methods"
    rules = "rules"
    strategies = "strategies"
    costs = "costs"
    proxies = "proxies"
    predictors = "predictors"
    aggregators = "aggregators"
    datasets = "datasets"
    settings = "settings"


@app.command("list")
def list_(family: Annotated[Family, typer.Argument(metavar="FAMILY", help="What to list.")]) -> None:
    """List what can be named in settings, e.g. `raynas list methods`; `raynas list settings` shows all settings.

    Each member of a family is one file, called by its file's name. Spaces, rules and strategies are shown with their
    own settings.
    """
    from raynas import catalogue

    console = _console()
    if family is Family.settings:
        for section in catalogue.settings():
            console.print(section)
            console.print()
    else:
        console.print(catalogue.family(family))


def main(*command: str) -> None:
    """Run the command line: exit code 0 when done, 2 for the user's mistake in one line, 1 for a fault of ours."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # no run ends because a terminal has no sign for something
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # or a thread that outlives the driver starts another Ray
    try:
        code = app([*command, *sys.argv[1:]] or ["--help"], standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as fault:
        code = _fail(getattr(fault, "cause", None) or fault)  # what was raised in an actor is wrapped by Ray
    if code == INTERRUPTED:
        for again in (signal.SIGINT, signal.SIGTERM):  # would stop Ray's own end halfway, with a traceback
            signal.signal(again, signal.SIG_IGN)
        print("raynas: interrupted; the same command again continues.", file=sys.stderr)
    sys.exit(code)


INTERRUPTED = 130


def _fail(fault: BaseException) -> int:
    """Say what went wrong; returns the exit code."""
    code = 2
    if isinstance(fault, UserError):
        line = str(fault)
    elif format_message := getattr(fault, "format_message", None):  # typer's: an unknown command or option
        line = f"{format_message().rstrip('.')} (see `raynas --help`, or --help after a command)."
    else:
        code = 1
        traceback.print_exception(fault)
        line = (
            f"a fault of raynas, not of your settings: {type(fault).__name__}: {reason(fault)}; please report it with "
            "the lines above. The same command again continues."
        )
    print(f"raynas: {' '.join(line.split())}", file=sys.stderr)
    return code


def _console() -> Console:
    return Console()


def _print(line: str) -> None:
    print(line)


def _settings(
    config: str | None,
    space: str | None,
    data: str | None,
    methods: list[str] | None,
    overrides: list[str] | None,
    distribution_of: str | None = None,
) -> Config:
    from raynas.config import load

    changes: dict[str, Any] = {}
    if space is not None:
        changes["space.name"] = space
    if data is not None:
        changes["data.name"] = data
    if methods:
        changes["members"] = [{"method": method} for method in methods]
    settings = load(config, overrides or (), changes)
    if distribution_of is None:
        return settings
    from raynas.transfer import with_distribution_of

    return with_distribution_of(settings, distribution_of)


def _new(
    settings: Config, storage: str, name: str | None, address: str | None
) -> contextlib.AbstractContextManager[Run]:
    from raynas.plan import make_plan
    from raynas.run import open_run

    make_plan(settings)  # a wrong name is told before anything else is looked at
    return _session(open_run(settings, storage, name), settings, address, new=True)


def _continue(folder: Folder, settings: Config, address: str | None) -> contextlib.AbstractContextManager[Run]:
    folder.check_writable()
    return _session(folder, settings, address, new=False)


@contextlib.contextmanager
def _session(folder: Folder, settings: Config, address: str | None, *, new: bool) -> Iterator[Run]:
    """A run, with its progress on the terminal; a new one is written down when nothing can refuse it any more."""
    from raynas.run_files import check_files

    check_files(folder, settings)
    from raynas.distributed.pipeline import start
    from raynas.progress import Progress
    from raynas.run import begin_run, begun_otherwise

    with Progress(_console()) as progress:
        run = start(settings, folder, address, progress)
        if new:
            begin_run(folder, settings, run.fingerprint)
        for line in begun_otherwise(folder):
            progress.note(line)
        yield run


def _existing(run: str) -> tuple[Folder, Config]:
    from raynas.run import existing_run

    return existing_run(run)


def _check_trained(folder: Folder, settings: Config) -> None:
    from raynas.plan import make_plan, state_file

    supernets = make_plan(settings).supernets
    missing = [one.label for one in supernets if not folder.exists(state_file(one.id))]
    if missing:
        raise UserError(
            f"{folder.location} has not trained its supernets yet ({', '.join(missing)}); run `raynas rank "
            f"{folder.location}` first."
        )


def _check_ranked(folder: Folder) -> None:
    if not folder.exists("ranking.parquet"):
        raise UserError(f"{folder.location} has no ranking yet; run `raynas rank {folder.location}` first.")


def _destination(
    folder: Folder, architectures: Path, listed: Sequence[Architecture], output: str | None
) -> tuple[Folder, str]:
    """The folder and the name of the file for a list's scores; those of this list, or of a part of it, are replaced."""
    from raynas.storage import Folder

    if output is None:
        file = f"ranked/{architectures.stem}.parquet"
        there: list[str] = []
        with contextlib.suppress(UserError):  # a broken file holds nothing to keep
            there = folder.read_table(file, ["architecture"])["architecture"].to_pylist()
        if not set(there) <= {encode(one) for one in listed}:
            raise UserError(f"{folder.path(file)} has the scores of another list; name a new file by --output.")
        return folder, file
    head, _, file = output.rpartition("/")
    place = Folder(head or ("/" if output.startswith("/") else "."))
    if not file or place.exists(file):
        raise UserError(f"--output must be a new file, but got {output}; name another.")
    place.check_writable()
    return place, file


def _present(folder: Folder, *, with_report: bool = True) -> None:
    from raynas.report import write_report
    from raynas.summary import print_summary

    path = write_report(folder) if with_report else None
    print_summary(folder, _console())
    if path is not None:
        _print(path)


def _architectures(path: Path, space: Any) -> list[tuple[int, ...]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(f"cannot read the architectures in {path}: {reason(fault)}; check the path.") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(space.parse(line))
            except UserError as mistake:
                raise UserError(f"{path}, line {number}: {mistake}") from None
    if not found:
        raise UserError(f"{path} holds no architecture; write one a line.")
    return found


def _search_table(
    settings: Config, table: str, repeats: int, storage: str, name: str | None, address: str | None
) -> None:
    from raynas.distributed.table_search import search_tables, summary

    searched = search_tables(settings, table, repeats, storage, name, address)
    _console().print(summary(searched))
    _print(searched.path)


def _leaderboard(
    settings: Config,
    path: str,
    evaluations: int | None,
    repeats: int,
    storage: str,
    name: str | None,
    address: str | None,
) -> None:
    from raynas.distributed.table_search import search_tables
    from raynas.leaderboard import standings, summary, write_leaderboard

    search = settings.search
    if evaluations is not None:
        search = search.model_copy(update={"evaluations": evaluations})
    members = tuple(one.model_copy(update={"objectives": ("score",)}) for one in settings.members)
    settings = settings.model_copy(update={"search": search, "members": members})
    searched = search_tables(settings, path, repeats, storage, name, address)
    table = searched.table
    best = table.highest_report
    if not (ranked := standings(searched.rows)):
        raise UserError(
            f"no strategy asked for anything that {path} has scores for: {table.scorable:,} of the "
            f"{table.space.size:,} keys of {table.space.name}; expected a table that holds more of them."
        )
    facts = {
        "table": Path(path).name,
        "space": table.space.name,
        "reward": table.settings.reward,
        "evaluations": f"{search.evaluations:,}",
        "asked at a time": f"{search.batch_size:,}",
        "searches": f"{max(len(one.seeds) for one in ranked):,}",
    }
    page = write_leaderboard(searched.run, ranked, table.settings, best, facts)
    _console().print(summary(ranked, table.settings, best))
    _print(page)


if __name__ == "__main__":
    main()
