"""The trained weights that come with the package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any

__all__ = ["packaged_file", "packaged_names"]

_SUFFIX = ".safetensors"


def packaged_names() -> tuple[str, ...]:
    """Names of the weights that come with the package, sorted."""
    return tuple(sorted(file.name.removesuffix(_SUFFIX) for file in _files()))


def packaged_file(name: str) -> Any:
    """The resource that holds the weights of that name; ``resources.as_file`` gives its path."""
    return resources.files("pacavit") / "weights" / f"{name}{_SUFFIX}"


def _files() -> Iterator[Any]:
    folder = resources.files("pacavit") / "weights"
    if folder.is_dir():
        yield from (file for file in folder.iterdir() if file.name.endswith(_SUFFIX))
