"""What `raynas list` shows: the members of a family, and the settings there are, with their types and defaults."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from raynas.config import Config, section_of
from raynas.datasets import listing
from raynas.members import family as sentences
from raynas.plan import GIVEN, own_settings

PACKAGES = {"spaces": "search_spaces", "rules": "raynas.training_rules"}
"""Where the members of a family are, if not in the package of raynas that is called like it."""

TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
"""JSON's types in words."""

BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
"""JSON's bounds in words."""

MANY = 1e9
"""Bounds from here on, as of seeds, are not worth a word."""


def family(name: str) -> Table:
    """A row for each member of a family, its name and what it is, followed by the settings of those that have any."""
    package = PACKAGES.get(name, f"raynas.{name}")
    table = _table("name", "what it is")
    for member, sentence in (listing() if name == "datasets" else sentences(package)).items():
        table.add_row(member, Text(sentence))
        if package in GIVEN:
            for setting, default, words, _ in _settings(own_settings(package, member)):
                table.add_row("", Padding(Text(f"{setting}: {default} ({words})"), (0, 0, 0, 2)))
    return table


def settings() -> Iterator[Table]:
    """A table for each section of a run's settings, in the order and under the headings of its file."""
    yield from _sections(Config, "", Config.__doc__)


def _sections(model: type[BaseModel], path: str, about: str | None) -> Iterator[Table]:
    table = _table("setting", "default", "what it is")
    heading = {"": "above all sections", "members": "[[members]]"}.get(path, f"[{path}]")
    table.title = Text.assemble((heading, "bold"), f"  {about}")
    table.title_justify = "left"
    for key, default, words, description in _settings(model):
        table.add_row(key, Text(default), Text.assemble(description, (f" ({words})" if description else words, "dim")))
    yield table
    for key, field in model.model_fields.items():
        if (section := section_of(model, key)) is not None:
            yield from _sections(section, f"{path}.{key}".lstrip("."), field.description or section.__doc__)


class _AnyType(GenerateJsonSchema):
    """Of a type that JSON does not know, as a user's own space may have, nothing is said."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        """No schema instead of an error."""
        del schema, error_info
        return {}


def _settings(model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    """Of each setting: its name, its default as in TOML, the values that it takes in words, and its description."""
    schemas = model.model_json_schema(schema_generator=_AnyType).get("properties", {})
    for key, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if section_of(model, key) is None:
            told = "left out" if default is None else json.dumps(default, default=str)
            shown = "needed" if field.is_required() else told
            yield key, shown, _in_words(schemas[key]), field.description or ""


def _in_words(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, e.g. "whole number from 1"; null is none, as it means left out."""
    if "anyOf" in schema:
        return " or ".join(_in_words(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return " or ".join(map(json.dumps, schema["enum"]))
    if "type" not in schema:
        return "value"
    if schema["type"] == "array":
        return f"[{_in_words(schema.get('items', {}))}, ...]"
    if schema["type"] == "object":
        values = schema.get("additionalProperties", True)
        return f"{{ name = {_in_words({} if values is True else values)} }}"
    bounds = [f"{word} {schema[bound]:g}" for bound, word in BOUNDS.items() if schema.get(bound, math.inf) < MANY]
    return " ".join([TYPES[schema["type"]], *bounds])


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, style="bold" if index == 0 else "", no_wrap=index == 0)
    return table
