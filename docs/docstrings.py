"""Convert the reStructuredText markup in docstrings to Markdown for the site."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

__all__ = ["PlainMarks"]

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")


class PlainMarks(Extension):
    """``:func:`~package.name``` becomes ``name`` in code, and ``::`` before an example ``:``."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object, before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """A docstring without roles and literal-block marks."""
    text = ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)
