"""Which runs a comparison is made of."""

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
    """One training.

    Attributes:
        value: of the field that is compared, as it was given.
        seed: of the training.
        folder: of the run.
        recipe: complete.
    """

    value: str
    seed: int
    folder: Path
    recipe: Recipe


class Plan(NamedTuple):
    """All trainings of a comparison, every value with every seed.

    Attributes:
        field: that is compared, for example "model.clustering".
        values: of it, in the order of the rows.
        seeds: in order.
        runs: value by value for the first seed, then for the next.
    """

    field: str
    values: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[PlannedRun, ...]


def make_plan(
    recipe: str | Path,
    over: str,
    *,
    seeds: Sequence[int],
    changes: Sequence[str],
    out: Path,
) -> Plan:
    """Check every recipe of a comparison before any of them is trained.

    Args:
        recipe: name of a packaged recipe, or a recipe file.
        over: ``"field.path=a,b,c"``; commas inside brackets belong to a value.
        seeds: one training a value for each.
        changes: ``"field.path=value"`` changes of all of them.
        out: folder of the run folders.

    Raises:
        RecipeError: a recipe is wrong, or values or seeds are missing or repeated.
    """
    field, found, listed = over.partition("=")
    field = field.strip()
    values = split_values(listed)
    if not found or not field or not all(values):
        raise RecipeError(
            f"over {over!r} names no values; write FIELD=a,b,c, such as model.clustering=conv,mlp"
        )
    if field == "train.seed":
        raise RecipeError("over train.seed compares nothing but chance; give seeds instead")
    if not seeds:
        raise RecipeError("give at least one seed")
    for what, items in (("value", values), ("seed", seeds)):
        [(first, number)] = Counter(items).most_common(1)
        if number > 1:
            raise RecipeError(f"{what} {first} is given {number} times")
    used, names = Counter[str](), {}
    for value in values:
        name = re.sub(r"[^A-Za-z0-9._+-]+", "_", value).strip("_.") or "value"
        used[name] += 1
        names[value] = name if used[name] == 1 else f"{name}_{used[name]}"
        resolved = recipes.load(recipe, [*changes, f"{field}={value}"])
        with torch.device("meta"):  # the last run's network shall not fail after hours
            build.model(resolved.model, num_classes=2)
    runs = tuple(
        PlannedRun(
            value,
            seed,
            out / f"{names[value]}-seed{seed}",
            recipes.load(recipe, [*changes, f"{field}={value}", f"train.seed={seed}"]),
        )
        for seed in seeds
        for value in values
    )
    return Plan(field, tuple(values), tuple(seeds), runs)


def split_values(text: str) -> list[str]:
    """Values between commas, but for commas in brackets or in double quotes."""
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
