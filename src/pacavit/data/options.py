"""Check the options of a data set in a recipe against the annotations of its constructor."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pacavit.data.base import DataSource
from pacavit.errors import RecipeError

__all__ = ["check_options"]


def check_options(source: type[DataSource], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options converted to the types that a constructor declares, such as lists to tuples.

    Ranges are declared by types such as ``pydantic.PositiveInt``. Options that the constructor does
    not have or does not annotate are returned unchanged.

    Args:
        source: class of the data set.
        options: values as read from TOML or JSON.

    Raises:
        RecipeError: a value has another type, or is out of range.
    """
    try:
        hints = typing.get_type_hints(source.__init__, include_extras=True)
    except NameError:
        return dict(options)  # a plugin that imports its types for type checkers only
    return {
        name: _checked(name, value, hints[name]) if name in hints else value
        for name, value in options.items()
    }


def _checked(name: str, value: Any, hint: Any) -> Any:
    try:
        # As JSON, because strict Python mode refuses a string for a path and a list for a tuple.
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        expected = " or ".join(
            dict.fromkeys(fault["msg"].removeprefix("Input should be ") for fault in error.errors())
        )
        raise RecipeError(f"data.options.{name} = {value!r}: expected {expected}") from error
