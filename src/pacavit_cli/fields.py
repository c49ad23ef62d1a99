"""``pacavit fields``."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import typer

from pacavit_cli.console import echo
from pacavit_cli.names import packaged_fields

_WIDEST = 100


def fields(
    section: Annotated[
        str | None,
        typer.Argument(
            metavar="[SECTION]",
            help="data, model, train, task, the name of a task, or a field such as train.lr; "
            "all if left out.",
        ),
    ] = None,
) -> None:
    """Show the fields of a recipe with type, default and meaning: pacavit fields train."""
    found = packaged_fields()
    if found is None:
        from pacavit import api

        found = [field._asdict() for field in api.recipe_fields()]
    tasks = {task for field in found for task in field["tasks"]}
    chosen = [field for field in found if section is None or _belongs(field, section, tasks)]
    if not chosen:
        from pacavit.errors import UnknownNameError

        names = [name for field in found for name in (*field["tasks"], *_above(field["name"]))]
        raise UnknownNameError("section or field", section or "", dict.fromkeys(names))
    _print(chosen)


def _above(name: str) -> list[str]:
    """A dotted name, and the sections that it is in: "a.b" -> ["a", "a.b"]."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _belongs(field: Mapping[str, Any], section: str, tasks: Collection[str]) -> bool:
    """Whether a field is, or is inside of, what is asked for."""
    name: str = field["name"]
    if section in tasks:
        return name.startswith("task.") and (not field["tasks"] or section in field["tasks"])
    return f"{name}.".startswith(f"{section}.")


def _print(fields: Sequence[Mapping[str, Any]]) -> None:
    """A line with name, type and default, and the meaning below."""
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    tasks: Sequence[str] = ()
    for field in fields:
        if list(field["tasks"]) != list(tasks):
            tasks = field["tasks"]
            names = " or ".join(f'"{task}"' for task in tasks)
            echo(f"\nwith task.name = {names}:\n" if tasks else "")
        default = f"default {field['default']}" if field["default"] else "required"
        echo(f"{field['name']}  ({field['type']}; {default})")
        if field["description"]:
            echo(textwrap.indent(textwrap.fill(field["description"], width - 4), "    "))
