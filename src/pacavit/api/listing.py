"""Lists of registered names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import resources
from typing import Any, NamedTuple

import timm

from pacavit import recipes
from pacavit.attention import ATTENTIONS
from pacavit.clustering import CLUSTERINGS
from pacavit.data import DATASETS
from pacavit.detectors import DETECTORS
from pacavit.engine.run.loggers import LOGGERS
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import UnknownNameError
from pacavit.explain import METHODS
from pacavit.heads import HEADS
from pacavit.recipes.fields import RecipeField, recipe_fields
from pacavit.report.publishing.card import card_summary
from pacavit.tasks import TASKS
from pacavit.utils.registry import Registry

__all__ = ["Entry", "RecipeField", "list_names", "recipe_fields"]


class Entry(NamedTuple):
    """A name that commands take, and a summary in one line, which may be empty."""

    name: str
    summary: str


def list_names(kind: str) -> list[Entry]:
    """The entries of a kind, sorted by name.

    Args:
        kind: models, clusterings, attentions, heads, detectors, methods, recipes, datasets, tasks,
            loggers, formats or weights.

    Raises:
        UnknownNameError: there is no such kind.
    """
    if kind not in _LISTS:
        raise UnknownNameError("kind", kind, _LISTS)
    return sorted(_LISTS[kind]())


def _models() -> list[Entry]:
    names = timm.list_models("pacavit_*")
    return [Entry(name, _first_line(timm.model_entrypoint(name))) for name in names]


def _recipes() -> list[Entry]:
    return [Entry(name, recipes.load(name).description) for name in recipes.names()]


def _formats() -> list[Entry]:
    # Imported here, because nothing else that lists names needs torch.export.
    from pacavit.export import WRITERS

    return _registered(WRITERS)


def _weights() -> list[Entry]:
    folder = resources.files("pacavit") / "weights"
    cards = {name: folder / f"{name}.md" for name in packaged_names()}
    return [Entry(name, card_summary(card.read_text("utf-8"))) for name, card in cards.items()]


def _registered(registry: Registry[Any]) -> list[Entry]:
    return [Entry(name, _first_line(registry.get(name))) for name in registry]


def _first_line(documented: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]


_LISTS: dict[str, Callable[[], list[Entry]]] = {
    "models": _models,
    "clusterings": lambda: _registered(CLUSTERINGS),
    "attentions": lambda: _registered(ATTENTIONS),
    "heads": lambda: _registered(HEADS),
    "detectors": lambda: _registered(DETECTORS),
    "methods": lambda: _registered(METHODS),
    "recipes": _recipes,
    "datasets": lambda: _registered(DATASETS),
    "tasks": lambda: _registered(TASKS),
    "loggers": lambda: _registered(LOGGERS),
    "formats": _formats,
    "weights": _weights,
}
