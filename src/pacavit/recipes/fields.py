"""All fields of recipes with type, default and meaning, from the schema.

``fields.json`` is a copy for the command line, which prints it without loading torch. A test
compares it with the schema; after a change of the schema, write it anew with ::

    python -m pacavit.recipes.fields
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from pacavit.recipes.schema import DataConfig, ModelConfig, Recipe, TrainConfig
from pacavit.tasks import TASKS, TaskConfig

__all__ = ["FIELDS_FILE", "RecipeField", "recipe_fields"]

FIELDS_FILE = "fields.json"
_LARGE = 10**6  # upper bounds from here on only guard against overflow
_TYPES = {"boolean": "true or false", "integer": "integer", "number": "number", "null": "null"}


class RecipeField(NamedTuple):
    """A field of a recipe.

    Attributes:
        name: dotted, as in ``--set NAME=VALUE``.
        type: what it may contain, in words.
        default: its value if it is left out, as TOML; empty if it must be given.
        description: its meaning; empty if a plug-in does not say it.
        tasks: that have this field; empty for fields of every recipe.
    """

    name: str
    type: str
    default: str
    description: str
    tasks: tuple[str, ...] = ()


def recipe_fields() -> list[RecipeField]:
    """The fields of every recipe, and those of each registered task, in the order of the schema."""
    fields = [_Model(Recipe).field(name) for name in ("name", "description")]
    fields += _task_fields()
    for section, kind in (("data", DataConfig), ("model", ModelConfig), ("train", TrainConfig)):
        fields += _Model(kind).fields(section)
    return fields


def _task_fields() -> list[RecipeField]:
    """The fields of every task, then those of some."""
    shared = list(_Model(TaskConfig).fields("task"))
    names = {field.name for field in shared}
    owners: dict[RecipeField, list[str]] = {}
    for task in TASKS:
        for field in _Model(TASKS.get(task).config_type).fields("task"):
            if field.name not in names:
                owners.setdefault(field, []).append(task)
    own = [
        field._replace(tasks=() if len(tasks) == len(TASKS.names()) else tuple(tasks))
        for field, tasks in owners.items()
    ]
    return shared + sorted(own, key=lambda field: field.tasks)


class _Model:
    """Reads the JSON schema of a pydantic model."""

    def __init__(self, kind: type[BaseModel]) -> None:
        self.schema = kind.model_json_schema()
        self.definitions: Mapping[str, Any] = self.schema.get("$defs", {})

    def fields(self, prefix: str) -> Iterator[RecipeField]:
        """Fields with those of tables inside of them."""
        yield from self._fields(self.schema, prefix)

    def field(self, name: str) -> RecipeField:
        """A field of the model itself."""
        return self._field(self.schema, name, name)

    def _fields(self, schema: Mapping[str, Any], prefix: str) -> Iterator[RecipeField]:
        for name, value in schema["properties"].items():
            path = f"{prefix}.{name}"
            found = map(self._resolved, _alternatives(value))
            tables = [one for one in found if "properties" in one]
            # A table that is there by default only shows its fields.
            if not tables or "default" in value:
                yield self._field(schema, name, path)
            for table in tables:
                yield from self._fields(table, path)

    def _field(self, schema: Mapping[str, Any], name: str, path: str) -> RecipeField:
        value = schema["properties"][name]
        default = "" if name in schema.get("required", ()) else _toml(value.get("default"))
        description = " ".join(value.get("description", "").split())
        return RecipeField(path, self._type(value), default, description)

    def _resolved(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """A definition for a reference to it."""
        reference = value.get("$ref")
        return value if reference is None else self.definitions[reference.rpartition("/")[2]]

    def _type(self, value: Mapping[str, Any]) -> str:
        texts = dict.fromkeys(map(self._one_type, _alternatives(value)))
        return " or ".join(texts)

    def _one_type(self, value: Mapping[str, Any]) -> str:
        value = self._resolved(value)
        if "properties" in value:
            return "table"
        if "const" in value or "enum" in value:
            return " or ".join(_toml(item) for item in value.get("enum", [value.get("const")]))
        kind = value.get("type")
        if kind is None:
            return "any value"
        if kind == "array":
            if "prefixItems" in value:
                return f"[{', '.join(map(self._type, value['prefixItems']))}]"
            return f"list of {_plural(self._type(value['items']))}"
        if kind == "object":
            inside = value.get("additionalProperties", True)
            return "table" if inside is True else f"table of {_plural(self._type(inside))}"
        if kind == "string":
            return "path" if value.get("format") == "path" else "text"
        return _TYPES[kind] + _range(value)


def _alternatives(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = value.get("anyOf") or value.get("allOf") or [value]
    return found


def _range(value: Mapping[str, Any]) -> str:
    """The bounds of a number in words."""
    least, most = value.get("minimum"), value.get("maximum", _LARGE)
    if least is not None and most < _LARGE:
        return f" from {least:g} to {most:g}"
    bounds = []
    for key, word in (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    ):
        bound = value.get(key)
        if bound is not None and bound < _LARGE:
            bounds.append(f"{word} {bound:g}")
    return f" {' and '.join(bounds)}" if bounds else ""


def _plural(kind: str) -> str:
    return re.sub(r"^(integer|number|text|table)\b", r"\1s", kind)


def _toml(value: Any) -> str:
    """A default as one would write it in a recipe or with ``--set``."""
    if isinstance(value, float):
        return f"{value:.4g}" if value != int(value) else f"{value:.1f}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _write() -> None:
    rows = [field._asdict() for field in recipe_fields()]
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    Path(__file__).with_name(FIELDS_FILE).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write()
