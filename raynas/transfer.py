"""Beginning a run's distributions where those of another run have ended (Casale et al. 2019, PARSEC, section 4.2)."""

from __future__ import annotations

import inspect
from typing import Any

from raynas import shapes
from raynas.config import Config, check
from raynas.errors import UserError
from raynas.members import load_member
from raynas.plan import load_method, state_file
from raynas.run import existing_run, settings_of
from raynas.storage import Folder


def with_distribution_of(config: Config, run: str) -> Config:
    """The settings with what `run` has learnt as `rule_settings.initial` of all members whose rules can begin there.

    It stands in the new run's settings from then on, which needs the other one no longer. The space is the same;
    its settings, the data and the training may differ. Raises UserError if there is nothing to take or nobody to take
    it.
    """
    folder, source = existing_run(run)
    if source.space.name != config.space.name:
        raise UserError(
            f"{folder.location} has learnt a distribution over {source.space.name}, not over {config.space.name}; name "
            "a run on the same space."
        )
    learnt = _learnt(folder)
    settings = settings_of(config)
    taken = 0
    for member, values in zip(config.members, settings["members"], strict=True):
        rule = member.training_rule or load_method(member.method).training_rule
        if "initial" in inspect.signature(load_member("raynas.training_rules", rule)).parameters:
            values["rule_settings"] = {**values.get("rule_settings", {}), "initial": _of_rule(learnt, rule, folder)}
            taken += 1
    if not taken:
        raise UserError(
            "no member's training rule can begin at a distribution; add one that can, e.g. --method parsec."
        )
    return check(settings)


def _learnt(folder: Folder) -> dict[str, list[list[list[float]]]]:
    """The distributions that a run's supernets have ended with, by their training rules."""
    found: dict[str, list[list[list[float]]]] = {}
    for name in folder.names("supernets"):
        path = state_file(name)
        if folder.exists(path):
            state: dict[str, Any] = folder.read_json(path, shapes.Learnt)
            if state["failure"] is None and state["probabilities"]:
                found.setdefault(state["rule"], []).append(state["probabilities"])
    return found


def _of_rule(learnt: dict[str, list[list[list[float]]]], rule: str, folder: Folder) -> list[list[float]]:
    """The one distribution of a rule."""
    found = learnt.get(rule, [])
    if len(found) != 1:
        raise UserError(
            f"expected one finished supernet of the rule {rule} in {folder.location}, to take its distribution, but "
            f"there are {len(found)}; name a run with one, or write rule_settings.initial into the settings."
        )
    return found[0]
