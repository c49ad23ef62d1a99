"""Check options in a recipe against the annotations of the constructor that gets them."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pacavit.errors import RecipeError

__all__ = ["check_options"]


def check_options(
    kind: type[Any], options: Mapping[str, Any], field: str = "data.options"
) -> dict[str, Any]:
    """The options converted to the types that a constructor declares, such as lists to tuples.

    Ranges are declared by types such as ``pydantic.PositiveInt``. Options that the constructor does
    not have or does not annotate are returned unchanged.

    Args:
        kind: class with the constructor, such as a data set.
        options: values as read from TOML or JSON.
        field: of the recipe, which holds the options.

    Raises:
        RecipeError: a value has another type, or is out of range.
    """
    try:
        hints = typing.get_type_hints(kind.__init__, include_extras=True)
    except NameError:
        return dict(options)  # a plugin that imports its types for type checkers only
    return {
        name: _checked(f"{field}.{name}", value, hints[name]) if name in hints else value
        for name, value in options.items()
    }


def _checked(name: str, value: Any, hint: Any) -> Any:
    try:
        # As JSON, because strict Python mode refuses a string for a path and a list for a tuple.
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        faults = (
            "more values" if fault["type"] == "missing" else fault["msg"]
            for fault in error.errors()
        )
        shortened = (fault.removeprefix("Input should be ") for fault in faults)
        expected = " or ".join(dict.fromkeys(shortened))
        raise RecipeError(f"{name} = {value!r}: expected {expected}") from error
