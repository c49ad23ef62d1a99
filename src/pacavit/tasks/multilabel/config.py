"""The ``[task]`` section of a recipe for multi-label classification."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pacavit.tasks.classification.config import ImageConfig

__all__ = ["MultilabelConfig"]


class MultilabelConfig(ImageConfig):
    """Settings of the multi-label task."""

    name: Literal["multilabel"] = Field(default="multilabel", description="The task.")
    positive_weight: float = Field(
        default=1.0,
        gt=0,
        description="Weight of the classes that an image shows, relative to those that it does "
        "not show; above 1 for rare classes.",
    )
    threshold: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Least probability of a predicted class, for precision, recall and F1; "
        "average precision uses no threshold.",
    )
