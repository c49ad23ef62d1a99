"""What tasks share whose results are places in images of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field
from torch import Tensor, nn

from pacavit.data import Batch, Placement, Region, check_options
from pacavit.errors import PacavitError, RecipeError
from pacavit.tasks.base import TaskConfig
from pacavit.utils.refusals import REFUSALS
from pacavit.utils.registry import Registry
from pacavit.utils.text import one_line

__all__ = ["DenseConfig", "Side", "create_part", "input_sizes", "predict_by_size"]

Side = Annotated[int, Field(gt=0, le=4096)]
M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


class DenseConfig(TaskConfig):
    """Settings of tasks that resize images and keep their aspect ratio."""

    image_size: int | None = Field(
        default=None,
        gt=0,
        description="Shorter side in pixels that images are resized to; leave it out for images "
        "as they are stored.",
    )
    longest_side: Side | None = Field(
        default=None,
        description="Where resizing to image_size would make the longer side longer than this, "
        "it gets this length instead.",
    )
    crop_size: tuple[Side, Side] | None = Field(
        default=None, description="Height and width in pixels of the crops in training."
    )
    stages: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None,
        description="Indices of the backbone's maps that the head or detector gets; leave it out "
        "for the default of the backbone.",
    )

    def input_size(self, stored: tuple[int, int], image_size: int | None = None) -> tuple[int, int]:
        """(height, width) in pixels of the usual input in training.

        Args:
            stored: (height, width) of the stored images.
            image_size: replaces the config's own; a ``crop_size`` shrinks in proportion.
        """
        own = self.resized(stored)
        usual = own if self.crop_size is None else self.crop_size
        if image_size is None:
            return usual
        factor = image_size / min(own)
        return (max(1, round(usual[0] * factor)), max(1, round(usual[1] * factor)))

    def resized(self, stored: tuple[int, int], image_size: int | None = None) -> tuple[int, int]:
        """(height, width) of an image after resizing to ``image_size`` and ``longest_side``.

        Args:
            stored: (height, width) of the image.
            image_size: shorter side; None: that of the config.
        """
        size = image_size or self.image_size
        if size is None:
            return stored
        factor = size / min(stored)
        if self.longest_side is not None:
            factor = min(factor, self.longest_side / max(stored))
        return (max(1, round(stored[0] * factor)), max(1, round(stored[1] * factor)))


def create_part(
    registry: Registry[M], field: str, name: str, options: Mapping[str, Any], *arguments: Any
) -> M:
    """The registered part of a network that a recipe names.

    Args:
        registry: of the parts.
        field: of the recipe, which holds the options.
        name: of the part.
        options: of the recipe.
        *arguments: further arguments of the part, before its options.

    Raises:
        UnknownNameError: there is no such part, or it has no such option.
        RecipeError: the part refuses an option.
    """
    checked = check_options(registry.get(name), options, field)
    try:
        return registry.create(name, *arguments, options=checked)
    except PacavitError:
        raise
    except REFUSALS as error:
        raise RecipeError(
            f"{registry.kind} {name!r} refuses its arguments: "
            f"{one_line(error, kind=True).rstrip('.')}; check {field} ({', '.join(options)})"
        ) from error


def input_sizes(batch: Batch) -> list[tuple[int, int]]:
    """(height, width) of each image in its batch, without padding."""
    if batch.placements:
        return [placement.input_size for placement in batch.placements]
    return [(batch.images.shape[2], batch.images.shape[3])] * len(batch)


def predict_by_size(
    batch: Batch, predict: Callable[[Tensor, Sequence[Placement]], Sequence[T]]
) -> list[T]:
    """One result per image, where images of different sizes are computed apart.

    They are computed without their padding, so that an image's result does not depend on others in
    the batch.

    Args:
        batch: images with or without placements.
        predict: images (b, 3, height, width) of one size, and where they lie in it -> b results.
    """
    by_size: dict[tuple[int, int], list[int]] = {}
    for position, size in enumerate(input_sizes(batch)):
        by_size.setdefault(size, []).append(position)
    results: dict[int, T] = {}
    for size, positions in by_size.items():
        placements = [
            batch.placements[position]
            if batch.placements
            else Placement(size, Region(0, 0, *size), size)
            for position in positions
        ]
        found = predict(batch.images[positions, :, : size[0], : size[1]], placements)
        results.update(zip(positions, found, strict=True))
    return [results[position] for position in range(len(batch))]
