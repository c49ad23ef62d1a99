"""The page that describes a server: its models and routes, without scripts or outside requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pacavit.serve.models import Models, ServedModel
from pacavit.utils.templates import Templates

__all__ = ["POLICY", "describe", "model_facts"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
"""Content security policy of the page."""

_TEMPLATES = Templates("pacavit.serve")


def model_facts(model: ServedModel) -> dict[str, Any]:
    """What everybody may know of a model, for JSON; only its name until it has answered."""
    weights = model.weights
    if weights is None:
        return {"name": model.name, "ready": False}
    return {
        "name": model.name,
        "ready": True,
        "version": weights.version,
        "task": weights.model.recipe.task.name,
        "recipe": weights.model.recipe.name,
        "data": weights.model.info.version,
        "class_names": list(weights.model.info.class_names),
        "input_size": weights.input_size,
    }


def describe(openapi: Mapping[str, Any], models: Models, url: str) -> str:
    """The page as HTML.

    Args:
        openapi: the schema of all routes.
        models: that are served.
        url: of the server, as the reader called it.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in openapi["paths"].items():
        for method, route in methods.items():
            groups.setdefault(route["tags"][0], []).append(
                {
                    "method": method.upper(),
                    "path": path,
                    "summary": route["summary"],
                    "text": _paragraphs(route.get("description", "")),
                    "parameters": [
                        each for each in route.get("parameters", []) if each["in"] == "query"
                    ],
                }
            )
    facts = [model_facts(model) for model in models]
    values = {
        "version": openapi["info"]["version"],
        "url": url,
        "models": facts,
        "several": len(facts) > 1,
        "groups": {name: groups[name] for name in sorted(groups, key=_order)},
    }
    return str(_TEMPLATES.render("api.html", values))


def _order(group: str) -> int:
    """Images first, then models, protocol and health."""
    known = ["images", "models", "Open Inference Protocol V2", "health"]
    return known.index(group)


def _paragraphs(text: str) -> list[list[str]]:
    """Paragraphs, each as pieces of text and code by turns."""
    return [" ".join(part.split()).split("`") for part in text.split("\n\n") if part.strip()]
