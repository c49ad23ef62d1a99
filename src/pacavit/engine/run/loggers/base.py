"""The interface of loggers."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pacavit.errors import RecipeError
from pacavit.recipes.io import flatten
from pacavit.recipes.schema import Recipe
from pacavit.utils.registry import Registry
from pacavit.utils.text import one_line

__all__ = ["LOGGERS", "Logger", "check_loggers", "create_loggers", "settings"]


class Logger(ABC):
    """Receives the numbers of one session of a run, in the first process.

    Args:
        out: run folder.
        recipe: of the run.
        first_step: first training step of the session, counted from 1. Steps from there on that an
            earlier, interrupted session has logged are repeated with the same values.

    Attributes:
        package: import name of the library that it needs, if that is no dependency of pacavit. The
            extra that installs it has the same name.
        local: writes into the run folder, so an error ends the run, as for other files of the run.
            An error of another logger only ends the logging: a server that cannot be reached does
            not cost a training.
    """

    package: ClassVar[str | None] = None
    local: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, out: Path, recipe: Recipe, first_step: int) -> None: ...

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers by name, such as "train/loss", after a training step counted from 1.

        It is called in every step, so slow loggers have to collect numbers until ``flush``.
        """

    def flush(self) -> None:
        """Hand over what was collected; called at the end of each epoch."""
        return

    @abstractmethod
    def close(self, *, finished: bool) -> None:
        """End the session: the run is finished, or was interrupted or failed."""


LOGGERS: Registry[Logger] = Registry("logger")


def check_loggers(names: Sequence[str]) -> None:
    """Check names of loggers before a run starts.

    Raises:
        UnknownNameError: there is no such logger.
        RecipeError: its library is not installed.
    """
    for name in names:
        package = LOGGERS.get(name).package
        if package is not None and importlib.util.find_spec(package) is None:
            raise RecipeError(
                f"train.loggers: {name!r} needs the library {package}; install it with: "
                f"pip install 'pacavit[{package}]'"
            )


def create_loggers(out: Path, recipe: Recipe, first_step: int) -> list[Logger]:
    """The loggers that ``train.loggers`` names; the arguments are those of ``Logger``.

    Raises:
        RecipeError: one of them cannot start, such as without a network.
    """
    loggers = []
    for name in dict.fromkeys(recipe.train.loggers):
        kind = LOGGERS.get(name)
        try:
            loggers.append(kind(out, recipe, first_step))
        except Exception as error:
            if kind.local:
                raise
            raise RecipeError(
                f"train.loggers: {name!r} cannot start: {one_line(error, kind=True)}; mend this, "
                f"then repeat the command with --resume"
            ) from error
    return loggers


def settings(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe by dotted name, without the folder of the data."""
    return dict(flatten(recipe.model_dump(mode="json", exclude={"data": {"root"}})))
