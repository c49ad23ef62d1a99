"""The numbers that this project publishes, each with what it takes to measure it again."""

from __future__ import annotations

import difflib
import json
import math
import shlex
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from pacavit.errors import RecipeError

__all__ = ["Published", "find_published", "published"]


class Published(BaseModel):
    """One training and its scores on the test images.

    Attributes:
        name: of the number.
        recipe: packaged one.
        changes: ``"field.path=value"`` changes of the recipe.
        data: which copy of the data.
        num_images: of the test.
        accuracy: of the trained network, without test-time augmentation.
        precision: mean over classes, as the next two.
        recall: see above.
        f1: see above.
        minutes: that the training took.
        machine: that it took them on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    recipe: str
    changes: tuple[str, ...]
    data: str
    num_images: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    minutes: float
    machine: str

    @property
    def command(self) -> str:
        """That trains it; ROOT and DIR are the folders of the data and of the run."""
        words = ["pacavit", "train", self.recipe, "--data", "ROOT", "--out", "DIR"]
        return shlex.join([*words, *(word for each in self.changes for word in ("--set", each))])

    @property
    def margin(self) -> float:
        """Half the 95 % interval of the accuracy, for other images of this kind."""
        return 1.96 * math.sqrt(self.accuracy * (1 - self.accuracy) / self.num_images)


@cache
def published() -> tuple[Published, ...]:
    """All published numbers."""
    text = files("pacavit.report").joinpath("published.json").read_text("utf-8")
    return tuple(Published.model_validate(entry) for entry in json.loads(text))


def find_published(name: str) -> Published:
    """A published number by its name.

    Raises:
        RecipeError: there is none of that name.
    """
    known = {entry.name: entry for entry in published()}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else "`pacavit reproduce` lists them"
    raise RecipeError(f"no published number is called {name!r}; {hint}")
