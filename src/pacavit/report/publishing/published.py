"""The published results of this project, each with the command that repeats it."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from pacavit.errors import RecipeError
from pacavit.utils.command import Command, pacavit_command
from pacavit.utils.statistics import proportion_margin

__all__ = ["Published", "find_published", "published"]


class Published(BaseModel):
    """A published result: one run and its scores on the test images.

    Attributes:
        name: of the result.
        recipe: name of the packaged recipe.
        changes: ``"field.path=value"`` changes of the recipe.
        data: version of the data.
        num_images: number of test images.
        scores: 0 to 1, by their names in evaluations, the main one first; without test-time
            augmentation.
        minutes: duration of the training.
        machine: on which the network was trained.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    recipe: str
    changes: tuple[str, ...]
    data: str
    num_images: int
    scores: dict[str, float]
    minutes: float
    machine: str

    @property
    def command(self) -> Command:
        """The command that trains it; ROOT and DIR are placeholders for data and run folder."""
        return pacavit_command("train", self.recipe, data="ROOT", out="DIR", set=self.changes)

    @property
    def margin(self) -> float | None:
        """Half the width of the 95 % interval of the accuracy over other test images.

        None for results whose main score is no fraction of the images.
        """
        accuracy = self.scores.get("accuracy")
        return None if accuracy is None else proportion_margin(accuracy, self.num_images)


@cache
def published() -> tuple[Published, ...]:
    """All published results."""
    text = files("pacavit.report").joinpath("published.json").read_text("utf-8")
    return tuple(Published.model_validate(entry) for entry in json.loads(text))


def find_published(name: str) -> Published:
    """A published result by its name.

    Raises:
        RecipeError: there is no result of that name.
    """
    known = {entry.name: entry for entry in published()}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else "`pacavit reproduce` lists them"
    raise RecipeError(f"there is no published result {name!r}; {hint}")
