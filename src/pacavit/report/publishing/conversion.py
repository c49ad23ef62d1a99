"""The result of a conversion on the console."""

from __future__ import annotations

from rich.console import Console

from pacavit.engine.weights.original import Conversion

__all__ = ["print_conversion"]


def print_conversion(conversion: Conversion, console: Console | None = None) -> None:
    """Print the model, and the weights that were loaded, re-initialized or left out."""
    console = console or Console()
    settings = ", ".join(f"{key}={value!r}" for key, value in conversion.settings.items())
    model = f"{conversion.model}({settings})" if settings else conversion.model
    total = len(conversion.loaded) + len(conversion.reinitialised)
    lines = [
        f"model: {conversion.original or 'none of the published ones'}, here {model}",
        f"loaded: {len(conversion.loaded)} of {total} weights",
        *_listing("re-initialized, random now", conversion.reinitialised),
        *_listing("unexpected, left out", conversion.unexpected),
        f"written: {conversion.path}",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _listing(title: str, names: tuple[str, ...]) -> list[str]:
    return [f"{title}: {len(names) or 'none'}", *(f"  {name}" for name in names)]
