"""A folder of your own images, with one sub-folder per class."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from pacavit.data.base import DATASETS, Split
from pacavit.data.formats.files import (
    Listing,
    class_folders,
    class_names,
    fingerprint,
    list_images,
)
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.formats.walk import Skipped
from pacavit.data.sources.listed import ListedSource
from pacavit.data.splits import SPLIT_NAMES, hold_out_missing, split_of
from pacavit.errors import DataError
from pacavit.utils.text import first_few, shown

__all__ = ["Folder"]

_KNOWN_NAMES = ", ".join(name for names in SPLIT_NAMES.values() for name in names)
_SPLIT_WORDS = frozenset(_KNOWN_NAMES.split(", ")) | {"eval", "evaluation", "heldout", "holdout"}
_ALIKE = 0.85  # similarity of a misspelt name, such as "trainig"; "text" has 0.75 to "test"


def _resembles_split(name: str) -> bool:
    """Whether a name contains the name of a split ("train_old", "holdout") or misspells one."""
    words = re.findall(r"[a-z]+", name.lower())
    letters = "".join(words)
    return (
        not _SPLIT_WORDS.isdisjoint([*words, letters])
        or any(sorted(letters) == sorted(word) for word in _SPLIT_WORDS)  # "tset"
        or bool(difflib.get_close_matches(letters, _SPLIT_WORDS, n=1, cutoff=_ALIKE))
    )


@DATASETS.register("folder")
class Folder(ListedSource):
    """Your own images: a folder with one sub-folder per class; any formats, sizes and modes.

    Either ROOT contains the class folders, and images are held out for validation and testing; or
    ROOT/train, ROOT/val and ROOT/test contain them. Without ROOT/val, validation images are held
    out of ROOT/train; without ROOT/test, there are no test images. ROOT/test alone suffices for an
    evaluation. Split folders may have other common names, in upper or lower case (``split_of``);
    names that only resemble one are refused.

    Hidden and system files and folders are ignored, see ``data.formats.walk``.

    Images are held out by a hash of their names, see ``data.splits.named_holdout``: unless a size
    is given, adding files never moves a training image into another split.

    Images are normalized with ImageNet's mean and standard deviation.

    Args:
        root: the folder.
        val_size: images held out for validation; None: about 15 % of those not for testing.
        test_size: images held out for testing; None: about 15 % of all if ROOT contains the class
            folders, none otherwise.
        image_size: height and width in pixels of stored images: the central square of each
            image, resized. In a recipe, that of the task unless it is given.
        in_memory: decode all images once, at the start (in a recipe, unless the task crops whole
            images); otherwise the loader's workers read each one when it is needed.
        max_pixels: images with more pixels are left out, like broken ones.
        classes: class names in label order, such as those of a model to evaluate. Folders are
            matched by name, and other names are refused; a class may have no images. None: all
            classes of the training folder, or of the only folder, sorted; each needs images.
        evaluated: the only split that is needed, to evaluate a trained model; set by the engine.
            Sizes of splits that have a folder are then ignored, and those of others are not used.
            None: for training.

    Attributes:
        skipped: files and folders that are not used as images.

    Raises:
        DataError: there is no such folder, it has another layout, fewer than two classes or no
            images, ``val_size`` does not fit, or the images would not fit into memory.
    """

    refuses_duplicates = True

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        test_size: NonNegativeInt | None = None,
        image_size: PositiveInt = 64,
        in_memory: bool = True,
        max_pixels: PositiveInt = MAX_PIXELS,
        classes: tuple[str, ...] | None = None,
        evaluated: Split | None = None,
    ) -> None:
        if root is None:
            raise DataError("a folder of images is needed: name it with --data ROOT")
        if classes is not None and len(set(classes)) < len(classes):
            raise DataError("data.options.classes names a class twice; remove one")
        self.skipped = Skipped()
        self.classes, found = _find(root, classes, self.skipped)
        shown_classes = {label for listing in found.values() for label in listing.labels.tolist()}
        version = f"folder of {sum(map(len, found.values())):,} images " + (
            f"in {len(shown_classes)} classes ({fingerprint(found)})"
        )
        listings = hold_out_missing(root, found, val_size, test_size, evaluated)
        if classes is None and "train" in listings:
            _check_counts(self.classes, listings["train"], "left to train on")
        super().__init__(
            root,
            name="folder",
            version=version,
            class_names=self.classes,
            listings=listings,
            folder=root,
            image_size=(image_size, image_size),
            in_memory=in_memory,
            max_pixels=max_pixels,
        )

    @property
    def note(self) -> str | None:
        """A line on the files and folders that are skipped; None if there are none."""
        return None if self.root is None else self.skipped.describe(self.root)

    def _remedy(self, split: Split) -> str:
        return (
            f": it has no folder {split} with class folders, and none of its images are held out "
            "for that; add the folder, or choose another split"
        )


def _find(
    root: Path, known: Sequence[str] | None, skipped: Skipped
) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """Class names, and the images of each split folder; under the key "" without split folders."""
    folders = _split_folders(root, skipped) or {"": root}
    first = next(iter(folders.values()))
    classes = class_names(first) if known is None else tuple(known)
    listings = {
        split: list_images(root, folder, classes, skipped) for split, folder in folders.items()
    }
    if known is None:
        if len(classes) < 2:
            raise DataError(
                f"{shown(first)} has one class folder only, {classes[0]!r}; classification needs "
                "at least two"
            )
        where = f"in its folder in {shown(first)}"
        _check_counts(classes, next(iter(listings.values())), where)
    return classes, listings


def _split_folders(root: Path, skipped: Skipped) -> dict[str, Path]:
    """The split folders in a root, in the order train, val, test; empty if it has none.

    Raises:
        DataError: two folders are for one split, a name only resembles those of splits, or the
            splits hold no class folders.
    """
    beside = Skipped()
    inside = class_folders(root, beside)
    named = {name: split for name in inside if (split := split_of(name)) is not None}
    # A class may be called "train"; its folder holds images, no folders.
    splits = {name: split for name, split in named.items() if class_folders(root / inside[name])}
    if not splits:
        if len(inside) == len(named) and len(set(named.values())) > 1:
            raise DataError(
                f"{shown(root)} has the folders {' and '.join(named)} without class folders in "
                "them; put the images of each class into a folder of its own"
            )
        return {}
    folders: dict[str, Path] = {}
    for split in SPLIT_NAMES:
        names = [name for name in splits if splits[name] == split]
        if len(names) > 1:
            raise DataError(
                f"{shown(root)} has {len(names)} folders of {split} images, {' and '.join(names)}; "
                "put them into one"
            )
        if names:
            folders[split] = root / inside[names[0]]
    others = [name for name in inside if name not in splits]
    alike = [repr(name) for name in others if name not in named and _resembles_split(name)]
    if alike:
        raise DataError(
            f"{shown(root)} has the split folders {', '.join(splits)} and also {first_few(alike)}, "
            f"which is not the name of a split ({_KNOWN_NAMES}); rename it, or move it elsewhere"
        )
    for name in others:
        beside.add("beside", inside[name])
    skipped.update(beside)
    return folders


def _check_counts(classes: Sequence[str], listing: Listing, where: str) -> None:
    counts = listing.labels.bincount(minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise DataError(f"class {name!r} has no images {where}; add some, or remove the folder")
