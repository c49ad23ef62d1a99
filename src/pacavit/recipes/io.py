"""Read, override, check and write recipes."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pacavit.errors import RecipeError, UnknownNameError
from pacavit.recipes.schema import DEFAULT_TASK, Recipe
from pacavit.tasks import TASKS
from pacavit.utils.files import read_bounded
from pacavit.utils.parsing import MAX_DEPTH, LimitError, parse_json, parse_toml
from pacavit.utils.text import one_line, shown

__all__ = ["difference", "dump", "flatten", "load", "names", "parse"]

RECIPE_FILE = "recipe.json"
_MAY_CHANGE = ("data.root", "data.num_workers")
_MAX_BYTES = 2**20
_MAX_EXTENDS = 16


def names() -> tuple[str, ...]:
    """Names of the packaged recipes, sorted."""
    return tuple(sorted(file.name.removesuffix(".toml") for file in _library()))


def load(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A checked recipe.

    A recipe may begin with ``extends = "cifar10_nano"`` (a packaged recipe) or ``extends =
    "base.toml"`` (a file, relative to its own folder) and then give only what differs: tables are
    merged, any other value is replaced. Name and description are never inherited.

    Args:
        source: name of a packaged recipe, a ``.toml`` or ``.json`` file, or a run folder. A
            packaged recipe takes precedence over a folder of the same name, which is ``./NAME``.
        overrides: ``"field.path=value"`` strings, applied in order. Values are TOML; a value that
            is not TOML is a plain string, and ``null`` unsets an optional field.

    Raises:
        UnknownNameError: no packaged recipe has that name, or no such task is registered.
        RecipeError: the file cannot be read, extends itself, or a field is unknown or of a
            wrong type.
    """
    origin, data = _read_extended(source)
    for override in overrides:
        _override(data, override)
    return parse(data, origin)


def parse(data: Mapping[str, Any], origin: str) -> Recipe:
    """Check plain data against the schema.

    Args:
        data: nested mappings as read from TOML or JSON.
        origin: names their source in error messages.

    Raises:
        UnknownNameError: no such task is registered.
        RecipeError: one line with the field, its value and what is expected.
    """
    if not isinstance(data, Mapping):
        raise RecipeError(f"{origin} is not a table of fields")
    data = _encodable(data, origin)
    try:
        # As JSON, because strict Python mode refuses a list for a tuple and a string for a path.
        return Recipe.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise RecipeError(f"{origin}: {_explain(error, data)}") from error


def _encodable(data: Mapping[str, Any], origin: str) -> Mapping[str, Any]:
    """The data; a ``data.root`` that is not UTF-8 becomes a file URI, as ``Recipe`` writes it.

    Raises:
        RecipeError: another text is not UTF-8.
    """
    for field, value in flatten(data):
        if not isinstance(value, str) or value.isascii():
            continue
        try:
            value.encode()
        except UnicodeEncodeError:
            if field != "data.root":
                raise RecipeError(
                    f"{origin}: {field} = '{shown(value)}' is not UTF-8; rename the file"
                ) from None
            data = {**data, "data": {**data["data"], "root": Path(value).absolute().as_uri()}}
    return data


def dump(recipe: Recipe, path: Path) -> None:
    """Write a recipe as JSON; an older file is replaced atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(recipe.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def difference(old: Recipe, new: Recipe) -> str | None:
    """The first field in which two recipes differ, with both values; None if they agree.

    The folder of the data and the number of processes that read them are ignored.
    """
    flat_old, flat_new = (dict(flatten(recipe.model_dump(mode="json"))) for recipe in (old, new))
    for field in [*flat_new, *flat_old]:
        was, now = flat_old.get(field), flat_new.get(field)
        if was != now and field not in _MAY_CHANGE:
            return f"{field} was {was!r} and is now {now!r}"
    was, now = list(old.train.lr_scales), list(new.train.lr_scales)
    # The order of this mapping matters: the first matching pattern is used.
    if was != now:
        return f"the order of train.lr_scales was {was!r} and is now {now!r}"
    return None


def flatten(mapping: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Nested mappings -> (dotted field, value) pairs; an empty mapping inside is a value."""
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            for field, leaf in flatten(value):
                yield f"{key}.{field}", leaf
        else:
            yield key, value


def _library() -> Iterator[Any]:
    folder = resources.files("pacavit.recipes") / "library"
    return (file for file in folder.iterdir() if file.name.endswith(".toml"))


def _read_extended(
    source: str | Path, under: tuple[str | Path, ...] = ()
) -> tuple[str, dict[str, Any]]:
    """A recipe as plain data, merged over the one it extends; ``under`` are those extending it."""
    if len(under) > _MAX_EXTENDS:
        raise RecipeError(f"{under[0]} extends a chain of more than {_MAX_EXTENDS} recipes")
    origin, file, data = _read(source)
    place = str(source) if file is None else file.resolve()
    if place in under:
        raise RecipeError(f"{origin} extends itself: {' > '.join(map(str, (*under, place)))}")
    if "extends" not in data:
        return origin, data
    base = data.pop("extends")
    if not isinstance(base, str):
        raise RecipeError(f"{origin}: extends = {_short(base)}: expected the name of a recipe")
    if base not in names():
        if file is None or not _looks_like_path(base):
            raise UnknownNameError("recipe", base, names(), f"that {origin} extends")
        base = file.parent / base
    _, inherited = _read_extended(base, (*under, place))
    for own in ("name", "description"):
        inherited.pop(own, None)
    return origin, _merge(inherited, data)


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; of two values that are not both mappings, the changed one is kept."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _read(source: str | Path) -> tuple[str, Path | None, dict[str, Any]]:
    """One recipe, not merged: its name for messages, its file (None if packaged), its data."""
    path = Path(source)
    if isinstance(source, str) and source in names():
        packaged = resources.files("pacavit.recipes") / "library" / f"{source}.toml"
        return f"recipe {source!r}", None, parse_toml(packaged.read_text("utf-8"))
    if path.is_dir():
        path = path / RECIPE_FILE
    elif not _looks_like_path(source):
        raise UnknownNameError("recipe", str(source), names())
    try:
        text = read_bounded(path, _MAX_BYTES).decode("utf-8")
        data = parse_json(text) if path.suffix == ".json" else parse_toml(text)
    except FileNotFoundError:
        raise RecipeError(
            f"no recipe at {path}; `pacavit list recipes` shows the packaged ones"
        ) from None
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RecipeError(f"recipe {path} cannot be read: {one_line(error)}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"recipe {path} is not a table of fields")
    return f"recipe {path}", path, data


def _looks_like_path(source: str | Path) -> bool:
    text = str(source)
    return isinstance(source, Path) or text.endswith((".toml", ".json")) or os.sep in text


def _override(data: dict[str, Any], override: str) -> None:
    """Apply one ``field.path=value`` to nested dictionaries in place."""
    field, equals, text = override.partition("=")
    keys = field.strip().split(".")
    if len(keys) > MAX_DEPTH:
        raise RecipeError(f"--set {_short(override)}: a field of more than {MAX_DEPTH} parts")
    if not equals or not all(keys):
        raise RecipeError(f"--set {override!r}: expected field.path=value, e.g. train.epochs=5")
    for depth, key in enumerate(keys[:-1], start=1):
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
        if not isinstance(data, dict):
            raise RecipeError(f"--set {override!r}: {'.'.join(keys[:depth])} has no fields inside")
    try:
        data[keys[-1]] = _value(text.strip())
    except LimitError as error:
        raise RecipeError(f"--set {_short(override)}: {error}") from error


def _value(text: str) -> Any:
    if text == "null":
        return None
    try:
        parsed = parse_toml(f"value = {text}")
    except LimitError:
        raise
    except ValueError:
        return text
    # A text with line breaks could contain further keys.
    return parsed["value"] if len(parsed) == 1 else text


def _explain(error: ValidationError, data: Mapping[str, Any]) -> str:
    """One line for the first invalid field of a validation error."""
    faults = error.errors(include_url=False)
    # Each alternative of a union fails on its own at the same field: report them together.
    paths = [
        _field_path(fault["loc"], data, missing=fault["type"] == "missing") for fault in faults
    ]
    # The alternative with the error at the deepest field is probably the one that was meant.
    within = [i for i, path in enumerate(paths) if f"{path}.".startswith(f"{paths[0]}.")]
    deepest = max(within, key=lambda i: paths[i].count("."))
    field, first = paths[deepest], faults[deepest]
    more = len(set(paths) - {paths[i] for i in within})
    tail = f" (and {more} more)" if more else ""
    if first["type"] == "extra_forbidden":
        return f"unknown field {field!r}; {_nearest(field, data)}{tail}"
    if first["type"] == "missing":
        return f"field {field!r} is missing{tail}"
    expected = " or ".join(
        dict.fromkeys(
            fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            for fault, path in zip(faults, paths, strict=True)
            if path == field
        )
    )
    return f"{field} = {_short(first['input'])}: expected {expected}{tail}"


def _field_path(location: tuple[int | str, ...], data: Any, *, missing: bool) -> str:
    """Dotted name of a field, without the names of union members that pydantic inserts.

    Only a missing field is not in the data.
    """
    parts: list[str] = []
    for position, key in enumerate(location):
        if isinstance(data, Mapping) and key in data:
            data = data[key]
        elif isinstance(data, Sequence) and isinstance(key, int) and not isinstance(data, str):
            data = data[key] if key < len(data) else None
        elif not (isinstance(data, Mapping) and missing and position + 1 == len(location)):
            continue
        parts.append(str(key))
    return ".".join(parts)


def _field_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _field_names(kind, f"{prefix}{name}.")


def _nearest(field: str, data: Mapping[str, Any]) -> str:
    """A hint for an unknown field: similar fields of its section, then of other sections."""
    section, _, last = field.rpartition(".")
    task = data.get("task")
    task_name = task.get("name", DEFAULT_TASK) if isinstance(task, Mapping) else DEFAULT_TASK
    known = [name for name in _field_names(Recipe) if not name.startswith("task.")]
    if task_name in TASKS:
        known += _field_names(TASKS.get(task_name).config_type, "task.")
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    for candidates in (siblings, known):
        by_last = {name.rpartition(".")[2]: name for name in candidates}
        near = difflib.get_close_matches(last, by_last, n=2)
        if near:
            return "did you mean " + " or ".join(repr(by_last[name]) for name in near) + "?"
    return "known: " + ", ".join(siblings or known)


def _short(value: Any, length: int = 60) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."
