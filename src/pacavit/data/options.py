"""Options of a data set, as recipes give them, against the annotations of its constructor."""

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
    """The options with the types that a constructor declares: lists become tuples, for example.

    Ranges are declared too, as ``pydantic.PositiveInt``. Options that it does not know or does not
    annotate stay as they are.

    Args:
        source: a data set.
        options: values as TOML and JSON have them.

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
        # Strict Python values would refuse a path or a tuple, which TOML cannot tell.
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        expected = " or ".join(
            dict.fromkeys(fault["msg"].removeprefix("Input should be ") for fault in error.errors())
        )
        raise RecipeError(f"data.options.{name} = {value!r}: expected {expected}") from error
