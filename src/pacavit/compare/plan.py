"""The runs of a comparison."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from pacavit import recipes
from pacavit.engine import build
from pacavit.errors import RecipeError
from pacavit.recipes.schema import Recipe

__all__ = ["Plan", "PlannedRun", "make_plan"]

_OPENING, _CLOSING = "([{", ")]}"


class PlannedRun(NamedTuple):
    """One training run.

    Attributes:
        field: the compared field.
        value: of the field, as given by the user.
        label: of its row: the value, or FIELD=VALUE for all but the first compared field.
        seed: of the training.
        folder: run folder.
        recipe: the complete recipe.
    """

    field: str
    value: str
    label: str
    seed: int
    folder: Path
    recipe: Recipe


class Plan(NamedTuple):
    """All runs of a comparison, every value with every seed.

    Attributes:
        fields: the compared fields, such as "model.clustering".
        seeds: in order.
        runs: all values with the first seed, then all with the second, and so on.
    """

    fields: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[PlannedRun, ...]


def make_plan(
    recipe: str | Path,
    over: Sequence[str],
    *,
    seeds: Sequence[int],
    changes: Sequence[str],
    out: Path,
) -> Plan:
    """Plan a comparison, and check all of its recipes before any is trained.

    Args:
        recipe: name of a packaged recipe, or a recipe file.
        over: one or more ``"field.path=a,b,c"``, one row per value; commas inside brackets or
            quotes do not separate values.
        seeds: every value is trained with each of them.
        changes: ``"field.path=value"`` changes of all runs.
        out: folder for the run folders.

    Raises:
        RecipeError: a recipe is wrong, or values or seeds are missing or repeated.
    """
    compared = [_field_and_values(each) for each in over]
    fields = [field for field, _ in compared]
    if not seeds:
        raise RecipeError("give at least one seed")
    for what, items in (
        ("field", fields),
        *(("value", values) for _, values in compared),
        ("seed", seeds),
    ):
        [(first, number)] = Counter(items).most_common(1)
        if number > 1:
            raise RecipeError(f"{what} {first} is given {number} times")
    used, rows = Counter[str](), []
    for field, values in compared:
        for value in values:
            short = value if field == fields[0] else f"{field.rpartition('.')[2]}={value}"
            name = re.sub(r"[^A-Za-z0-9._+-]+", "_", short).strip("_.") or "value"
            used[name] += 1
            name = name if used[name] == 1 else f"{name}_{used[name]}"
            resolved = recipes.load(recipe, [*changes, f"{field}={value}"])
            with torch.device("meta"):  # an invalid network fails before the first training
                build.model(resolved.model, num_classes=2)
            rows.append((field, value, short, name))
    runs = tuple(
        PlannedRun(
            field,
            value,
            label,
            seed,
            out / f"{name}-seed{seed}",
            recipes.load(recipe, [*changes, f"{field}={value}", f"train.seed={seed}"]),
        )
        for seed in seeds
        for field, value, label, name in rows
    )
    return Plan(tuple(fields), tuple(seeds), runs)


def _field_and_values(over: str) -> tuple[str, list[str]]:
    field, found, listed = over.partition("=")
    field, values = field.strip(), split_values(listed)
    if not found or not field or not all(values):
        raise RecipeError(
            f"over {over!r} is not FIELD=a,b,c; write for example model.clustering=conv,mlp"
        )
    if field == "train.seed":
        raise RecipeError("over train.seed is not a comparison; give seeds instead")
    return field, values


def split_values(text: str) -> list[str]:
    """Split at commas, except inside brackets or double quotes."""
    values, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        if not quoted:
            depth += (letter in _OPENING) - (letter in _CLOSING)
        if letter == "," and not quoted and depth <= 0:
            values.append("")
        else:
            values[-1] += letter
    return [value.strip() for value in values]
