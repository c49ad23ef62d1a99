"""The command that repeats a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from pacavit import recipes
from pacavit.engine.weights.format import is_public
from pacavit.errors import RecipeError
from pacavit.recipes.schema import Recipe
from pacavit.utils.command import Command, pacavit_command

__all__ = [
    "TEACHER",
    "WEIGHTS",
    "changed_fields",
    "needs_teacher",
    "needs_weights",
    "recipe_changes",
    "training_command",
    "without_paths",
]

WEIGHTS = "WEIGHTS"
"""Placeholder in commands for initial weights that not everybody has."""
TEACHER = "TEACHER"
"""Placeholder in commands for a teacher that not everybody has."""

# Words that TOML reads as neither numbers nor dates; its other values are excluded by name.
_WORD = re.compile(r"[A-Za-z_][\w.:/+-]*", re.ASCII)
_VALUES = {"true", "false", "inf", "nan", "null"}
_BARE_KEY = re.compile(r"[\w-]+", re.ASCII)


def training_command(recipe: Recipe) -> Command:
    """The command that repeats a run: a packaged recipe and the changes to it.

    Paths that differ between machines are placeholders: ROOT for the folder of the data,
    ``WEIGHTS`` and ``TEACHER`` for models that not everybody has.

    Raises:
        RecipeError: a changed field has a value that TOML cannot express.
    """
    packaged = recipe.name in recipes.names()
    return pacavit_command(
        "train",
        recipe.name if packaged else f"{recipe.name}.toml",
        out="DIR",
        data=None if recipe.data.root is None else "ROOT",
        set=recipe_changes(recipe) if packaged else (),
    )


def recipe_changes(recipe: Recipe) -> list[str]:
    """The ``--set`` arguments that turn the packaged recipe of the same name into this one.

    Raises:
        RecipeError: a changed field has a value that TOML cannot express.
    """
    changes: list[str] = []
    for field, value in _changes(recipes.load(recipe.name), without_paths(recipe)):
        changes += _overrides(field, value)
    return changes


def needs_weights(recipe: Recipe) -> bool:
    """Whether a run starts from weights that not everybody has."""
    return recipe.model.init is not None and not is_public(recipe.model.init)


def needs_teacher(recipe: Recipe) -> bool:
    """Whether a run imitates a model that not everybody has."""
    return recipe.train.teacher is not None and not is_public(recipe.train.teacher)


def without_paths(recipe: Recipe) -> Recipe:
    """The recipe with placeholders for models that not everybody has."""
    sections: dict[str, Any] = {}
    if needs_weights(recipe):
        sections["model"] = recipe.model.model_copy(update={"init": WEIGHTS})
    if needs_teacher(recipe):
        sections["train"] = recipe.train.model_copy(update={"teacher": TEACHER})
    return recipe.model_copy(update=sections)


def changed_fields(recipe: Recipe) -> frozenset[str]:
    """Dotted fields in which a recipe differs from the packaged one of its name, if any."""
    if recipe.name not in recipes.names():
        return frozenset()
    return frozenset(field for field, _ in _changes(recipes.load(recipe.name), recipe))


def _changes(old: BaseModel, new: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted field, new value) of every field in which two recipes differ.

    Mappings are one value; so are sections that are absent or of another type in the old recipe.
    """
    for name in type(new).model_fields:
        field, was, value = f"{prefix}{name}", getattr(old, name), getattr(new, name)
        if isinstance(value, BaseModel) and type(was) is type(value):
            yield from _changes(was, value, f"{field}.")
        # Compared as text, because the order of a mapping matters, as in train.lr_scales.
        elif repr(was) != repr(value) and field != "data.root":
            yield field, value.model_dump() if isinstance(value, BaseModel) else value


def _overrides(field: str, value: Any) -> Iterator[str]:
    """The ``--set`` arguments that give a field a value."""
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
    """A value as TOML in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON strings are TOML strings, except for one control character and surrogate pairs.
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
