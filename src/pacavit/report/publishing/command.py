"""The command that repeats a run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from pacavit import recipes
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import RecipeError
from pacavit.recipes.schema import Recipe

__all__ = ["WEIGHTS", "changed_fields", "needs_weights", "recipe_changes", "training_command"]

WEIGHTS = "WEIGHTS"
"""What commands call weights to start from that do not come with the package."""

# Words that are neither numbers nor dates of TOML; its other values are excluded by name.
_WORD = re.compile(r"[A-Za-z_][\w.:/+-]*", re.ASCII)
_VALUES = {"true", "false", "inf", "nan", "null"}
_BARE_KEY = re.compile(r"[\w-]+", re.ASCII)


def training_command(recipe: Recipe) -> str:
    """The command that repeats a run: a packaged recipe and what was changed in it.

    The folder of the data is called ROOT, and weights to start from that do not come with the
    package ``WEIGHTS``: they lie elsewhere on every machine.

    Raises:
        RecipeError: a changed field has a value that TOML cannot express.
    """
    packaged = recipe.name in recipes.names()
    words = ["pacavit", "train", recipe.name if packaged else f"{recipe.name}.toml"]
    words += ["--out", "DIR"]
    if recipe.data.root is not None:
        words += ["--data", "ROOT"]
    if packaged:
        words += [word for change in recipe_changes(recipe) for word in ("--set", change)]
    return shlex.join(words)


def recipe_changes(recipe: Recipe) -> list[str]:
    """What ``--set`` takes to make a recipe of the packaged one of its name.

    Raises:
        RecipeError: a changed field has a value that TOML cannot express.
    """
    changes: list[str] = []
    for field, value in _changes(recipes.load(recipe.name), recipe):
        if field == "model.init" and needs_weights(recipe):
            value = WEIGHTS
        changes += _overrides(field, value)
    return changes


def needs_weights(recipe: Recipe) -> bool:
    """Whether a run starts from weights that do not come with the package."""
    return recipe.model.init not in (None, *packaged_names())


def changed_fields(recipe: Recipe) -> frozenset[str]:
    """Dotted fields in which a recipe differs from the packaged one of its name, if any has it."""
    if recipe.name not in recipes.names():
        return frozenset()
    return frozenset(field for field, _ in _changes(recipes.load(recipe.name), recipe))


def _changes(old: BaseModel, new: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted field, new value) of every field in which two recipes differ; mappings as a whole.

    So are sections that the old recipe has not, or not of that kind.
    """
    for name in type(new).model_fields:
        field, was, value = f"{prefix}{name}", getattr(old, name), getattr(new, name)
        if isinstance(value, BaseModel) and type(was) is type(value):
            yield from _changes(was, value, f"{field}.")
        # As text, because the order of a mapping counts, as in train.lr_scales.
        elif repr(was) != repr(value) and field != "data.root":
            yield field, value.model_dump() if isinstance(value, BaseModel) else value


def _overrides(field: str, value: Any) -> Iterator[str]:
    """What ``--set`` takes to give a field a value."""
    if value is None:
        yield f"{field}=null"
    elif isinstance(value, str) and _WORD.fullmatch(value) and value not in _VALUES:
        yield f"{field}={value}"
    elif isinstance(value, Mapping):
        # TOML has no null, but --set has.
        present = {key: item for key, item in value.items() if item is not None}
        yield f"{field}={_toml(present, field)}"
        for key in (key for key in value if key not in present):
            if not _BARE_KEY.fullmatch(key):
                raise RecipeError(f"{field} sets {key!r} to null, which --set cannot express")
            yield f"{field}.{key}=null"
    else:
        yield f"{field}={_toml(value, field)}"


def _toml(value: Any, field: str) -> str:
    """A value as TOML, in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's strings are TOML's, but for one control character and for surrogate pairs.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = (
            f"{key if _BARE_KEY.fullmatch(key) else _toml(key, field)} = {_toml(item, field)}"
            for key, item in value.items()
        )
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item, field) for item in value) + "]"
    raise RecipeError(f"{field} contains {value!r}, which --set cannot express")
