"""HTML templates with autoescaping."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["Templates"]


class Templates:
    """The templates in the folder ``templates`` of a package, and those that all packages share.

    Args:
        package: name of the package; the folder is read on first use.
    """

    def __init__(self, package: str) -> None:
        self.package = package

    @cached_property
    def _environment(self) -> Environment:
        return Environment(
            loader=ChoiceLoader(
                [PackageLoader(self.package), PackageLoader("pacavit.utils", "shared_templates")]
            ),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(self, name: str, values: Mapping[str, Any]) -> Markup:
        """Fill a template; text is escaped, ``Markup`` is inserted unchanged."""
        return Markup(self._environment.get_template(name).render(values))  # noqa: S704 (autoescaped)

    def text(self, name: str) -> str:
        """The text of a file, not filled in."""
        loader = self._environment.loader
        assert loader is not None
        return loader.get_source(self._environment, name)[0]
