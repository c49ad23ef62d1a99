"""Packages whose public names are imported on first access (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, names: Mapping[str, Sequence[str]], submodules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` of a package with lazy public names.

    The package imports the same names under ``TYPE_CHECKING``, for type checkers and editors::

        if TYPE_CHECKING:
            from pacavit.tasks import TASKS
        else:
            __getattr__, __dir__ = lazy_names(__name__, {"pacavit.tasks": ("TASKS",)})

    No name may be that of a submodule of the package that defines something else: importing the
    submodule would replace it.

    Args:
        package: full name of the package.
        names: public names by the module that defines them.
        submodules: submodules of the package that are attributes of it without being imported.
    """
    origins = {name: module for module, group in names.items() for name in group}

    def load(name: str) -> Any:
        if name in origins:
            value = getattr(import_module(origins[name]), name)
        elif name in submodules:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    def names_of_package() -> list[str]:
        return sorted({*vars(sys.modules[package]), *origins, *submodules})

    return load, names_of_package
