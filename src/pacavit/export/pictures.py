"""Real images with which an exported file is checked."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from torch import Tensor

from pacavit.data import ImageSet, decode_image
from pacavit.engine import LoadedModel, build
from pacavit.errors import PacavitError
from pacavit.utils.progress import announce

__all__ = ["NUMBER", "has_data", "real_pictures", "spread"]

NUMBER = 3
"""Of the images."""
_DRAWN = ("bird", "ship", "airplane")
_EMBEDDED = ("digits", "shapes")  # data sets that need no files


def real_pictures(model: LoadedModel, root: Path | None = None) -> tuple[list[Tensor], str]:
    """Three images (3, H, W) uint8, and where they come from.

    Validation images of the data set that the model was trained on, spread over the split; if its
    folder is not known or not there, pictures of this package. Nothing is downloaded.

    Args:
        model: its recipe names the data set.
        root: folder with the data, instead of the recipe's.

    Raises:
        PacavitError: a folder was given, and has no such data.
    """
    if not has_data(model, root):
        return _drawn(), "pictures of this package"
    try:
        found = spread(build.data_source(model.recipe, root, model.info, "val").load("val"))
    except (PacavitError, OSError) as error:
        if root is not None:
            raise
        announce(f"checking with pictures of this package, without the data set: {error}")
        return _drawn(), "pictures of this package"
    return found, f"validation images of {model.info.name}"


def has_data(model: LoadedModel, root: Path | None) -> bool:
    """Whether it is known where the data set of a model lies, given a folder or None."""
    known = root is not None or model.recipe.data.root is not None
    return known or model.info.name in _EMBEDDED


def spread(images: ImageSet) -> list[Tensor]:
    """Three images (3, H, W) uint8 of a split, far from each other."""
    positions = [index * len(images) // NUMBER for index in range(NUMBER)]
    return [images[position].image.cpu() for position in positions]


def _drawn() -> list[Tensor]:
    """Pictures that were drawn for the demo."""
    folder = resources.files("pacavit.demo") / "pictures"
    names = [f"{name}.jpg" for name in _DRAWN]
    return [decode_image((folder / name).read_bytes(), name) for name in names]
