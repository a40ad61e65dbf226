"""A run's folder: made for one configuration, and continued only by the same one."""

from __future__ import annotations

import contextlib
import platform
from importlib.metadata import version
from typing import Any

import tomli_w

import raynas
from raynas import shapes
from raynas.config import Config, check, content_hash, differences
from raynas.errors import UserError
from raynas.run_record import read_settings
from raynas.storage import Folder

VERSIONS = "versions.json"
NAMED = ("raynas", "ray", "torch", "torchvision", "optuna", "pyarrow", "numpy", "scipy", "scikit-learn")
TOLD = ("raynas", "ray", "torch")
"""Of which it is told that a run was begun with another version."""

DATA = "data.json"
TABLE_SEARCH = "table_search.parquet"
"""What searches of a table have found, in a folder of their own."""
MAY_CHANGE = ("cluster", "evaluation.workers", "search.cpus_per_member", "training.checkpoint_every_s")
"""What a run may be continued with other values of: nothing that its results depend on."""


def open_run(config: Config, storage: str, name: str | None) -> Folder:
    """The folder for this run, new or to be continued; nothing is written there before `begin_run`.

    Without a name the run is called after its space, its data and a hash of its settings, so that the same command
    finds the same folder. Raises UserError if the folder belongs to another configuration or cannot be written.
    """
    settings = settings_of(config)
    if name is None:
        data = "".join(letter if letter.isalnum() else "-" for letter in config.data.name)
        name = f"{config.space.name.rsplit('.', 1)[-1]}-{data}-{content_hash(_binding(settings))}"
    if not name or name.startswith(".") or "/" in name:
        raise UserError(f"--name must be a plain folder name, but got {name!r}; use --storage for the place.")
    folder = Folder(storage) / name
    if folder.exists("config.toml"):
        begun = settings_of(_settings_in(folder))  # with what newer versions of raynas have added
        changed = differences(_binding(begun), _binding(settings))
        if changed:
            raise UserError(
                f"{folder.location} belongs to a run with other settings ({', '.join(changed[:5])} differ); choose "
                "another --name, or give the settings that it was begun with."
            )
    elif folder.names():
        raise UserError(f"{folder.location} is not empty and not a run of raynas; choose another --name or --storage.")
    folder.check_writable()
    return folder


def begin_run(folder: Folder, config: Config, fingerprint: str) -> None:
    """Make a folder this configuration's run, of these data, once all that can be refused has been looked at."""
    folder.sweep()
    folder.write("config.toml", tomli_w.dumps(settings_of(config)).encode())  # first: it says whose the folder is
    folder.write_json(DATA, {"fingerprint": fingerprint})
    if not folder.exists(VERSIONS):  # a continued run keeps what it was begun with
        folder.write_json(VERSIONS, {"python": platform.python_version(), **{name: _version(name) for name in NAMED}})


def existing_run(location: str) -> tuple[Folder, Config]:
    """The folder of a run that trains, and the configuration in it; raises UserError if it is none."""
    folder = Folder(location)
    if not folder.exists("config.toml"):
        raise UserError(f"{folder.location} is no run: it holds no config.toml; name the folder that `search` printed.")
    if folder.exists(TABLE_SEARCH):
        raise UserError(
            f"{folder.location} holds searches of a table, which train and rank nothing: all that they found is in "
            f"{TABLE_SEARCH}; name the folder of a run without --table."
        )
    return folder, _settings_in(folder)


def begun_otherwise(folder: Folder) -> list[str]:
    """One sentence on what had another version when the run was begun; none where all are the same."""
    begun = folder.read_json(VERSIONS, dict[str, Any]) if folder.exists(VERSIONS) else {}
    changed = [name for name in TOLD if name in begun and begun[name] != _version(name)]
    told = ", ".join(f"{name} {begun[name]} (now {_version(name)})" for name in changed)
    return [f"The run was begun with {told}; install those versions to continue it as it was begun."] if told else []


def settings_of(config: Config) -> dict[str, Any]:
    """Every setting as plain TOML values; what is None is left out."""
    return config.model_dump(mode="json", exclude_none=True)


def same_data(run: Folder, fingerprint: str) -> None:
    """Raises UserError if a run was begun with other images."""
    if run.exists(DATA) and run.read_json(DATA, shapes.Data)["fingerprint"] != fingerprint:
        raise UserError(f"{run.location} was begun with other data under the same name; choose another --name.")


def _settings_in(folder: Folder) -> Config:
    """What a run was begun with; raises UserError, with the file, for what this version does not know."""
    settings = read_settings(folder)
    try:
        return check(settings)
    except UserError as mistake:
        told = [f"{folder.path('config.toml')}: {mistake}"]
        with contextlib.suppress(UserError):  # the one that matters is told
            told += begun_otherwise(folder)
        raise UserError(" ".join(told)) from None


def _version(name: str) -> str:
    return raynas.__version__ if name == "raynas" else version(name)


def _binding(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that may change."""
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}
    for path in MAY_CHANGE:
        section, _, key = path.partition(".")
        if not key:
            kept.pop(section, None)
        elif section in kept:
            kept[section].pop(key, None)
    return kept
