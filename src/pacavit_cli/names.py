"""Names of models, methods and so on from source files: importing the package would load torch."""

from __future__ import annotations

import ast
import json
import runpy
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["packaged_entries", "packaged_fields"]

# For each kind its registry, and the folder of the modules that register classes with it.
_REGISTRIES = {
    "clusterings": ("CLUSTERINGS", "clustering"),
    "attentions": ("ATTENTIONS", "attention"),
    "heads": ("HEADS", "heads"),
    "detectors": ("DETECTORS", "detectors"),
    "methods": ("METHODS", "explain/methods"),
    "datasets": ("DATASETS", "data/sources"),
    "tasks": ("TASKS", "tasks"),
    "loggers": ("LOGGERS", "engine/run/loggers"),
    "formats": ("WRITERS", "export/writers"),
}


def packaged_entries(kind: str) -> list[tuple[str, str]] | None:
    """Names and one-line summaries of a kind, as ``pacavit.list_names`` returns them.

    Returns:
        None if the package must be imported to know them: the kind is unknown, pacavit is imported
        already (a plugin may have added names), an installed package has entry points for pacavit,
        or there are no source files.
    """
    root = _source_root()
    if root is None:
        return None
    if kind in _REGISTRIES:
        registry, folder = _REGISTRIES[kind]
        return sorted(_registered(root / folder, registry))
    if kind == "models":
        return sorted(_models(root / "models"))
    if kind == "recipes":
        files = (root / "recipes" / "library").glob("*.toml")
        texts = {file.stem: file.read_text("utf-8") for file in files}
        return [(name, tomllib.loads(texts[name])["description"]) for name in sorted(texts)]
    if kind == "weights":
        names = sorted(file.stem for file in (root / "weights").glob("*.safetensors"))
        return [(name, _card_summary(root / "weights" / f"{name}.md")) for name in names]
    return None


def packaged_fields() -> list[dict[str, Any]] | None:
    """The fields of recipes, as ``pacavit.api.recipe_fields`` returns them, as mappings.

    Returns:
        None in the same cases as ``packaged_entries``.
    """
    root = _source_root()
    if root is None:
        return None
    found: list[dict[str, Any]] = json.loads((root / "recipes" / "fields.json").read_text("utf-8"))
    return found


def _source_root() -> Path | None:
    """The folder of the package, if its files list all names that there are."""
    spec = find_spec("pacavit")
    root = Path(spec.origin).parent if spec and spec.origin else Path()
    if (
        "pacavit" in sys.modules
        or not (root / "models" / "variants.py").is_file()
        or any(group.startswith("pacavit.") for group in entry_points().groups)
    ):
        return None
    return root


def _registered(folder: Path, registry: str) -> Iterator[tuple[str, str]]:
    """Classes under the decorator ``@REGISTRY.register("name")``."""
    for node in _definitions(folder):
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id=owner), attr="register"),
                    args=[ast.Constant(value=str(name))],
                ) if owner == registry:
                    yield name, _summary(node)


def _models(folder: Path) -> Iterator[tuple[str, str]]:
    """Factories under the decorator ``@register_model``, and the table of original models."""
    for node in _definitions(folder):
        for decorator in node.decorator_list:
            match decorator:
                case ast.Name(id="register_model"):
                    yield node.name, _summary(node)
    # The table is plain data, in a module that imports nothing but the standard library.
    originals = runpy.run_path(str(folder / "variants.py"))["ORIGINALS"]
    for name, original in originals.items():
        yield name, original.summary


def _definitions(folder: Path) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """The classes and functions of all modules in a folder and below."""
    for file in folder.rglob("*.py"):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield node


def _summary(node: ast.ClassDef | ast.FunctionDef) -> str:
    """The first line of a docstring."""
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _card_summary(card: Path) -> str:
    """The paragraph below the title of a model card, in one line without mark-up."""
    return " ".join(card.read_text("utf-8").split("\n\n")[1].split()).replace("`", "")
