"""A folder of your own images, sorted into classes by sub-folders."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pacavit.data.base import DATASETS, DataInfo, DataSource, LabelledImages, Split
from pacavit.data.formats.files import (
    FileImages,
    Listing,
    class_folders,
    class_names,
    fingerprint,
    list_images,
)
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.formats.walk import Skipped
from pacavit.data.splits import named_holdout
from pacavit.errors import DataError
from pacavit.utils.text import first_few, shown

__all__ = ["Folder", "split_of"]

_HELD_OUT = 0.15  # default fraction of the images for validation, and for testing
_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_UNDERSTOOD = ", ".join(name for names in _SPLIT_NAMES.values() for name in names)
# "train2017", "test_set"; the words that other names of splits are made of.
_SPLIT_SUFFIX = re.compile(r"[ _-]*(set|\d{4})$")
_SPLIT_WORDS = frozenset(_UNDERSTOOD.split(", ")) | {"eval", "evaluation", "heldout", "holdout"}
_ALIKE = 0.85  # similarity of a misspelt name, such as "trainig"; "text" has 0.75 to "test"


def split_of(name: str) -> Split | None:
    """The split that a folder's name stands for; None if it is not one of the usual spellings.

    Upper and lower case are the same; "set" or a year may follow, as in ``Test_Set`` and
    ``train2017``.
    """
    word = _SPLIT_SUFFIX.sub("", name.lower())
    return next((split for split, names in _SPLIT_NAMES.items() if word in names), None)


def _resembles_split(name: str) -> bool:
    """Whether a name has a split's word in it ("train_old", "holdout") or is a misspelt one."""
    words = re.findall(r"[a-z]+", name.lower())
    letters = "".join(words)
    return (
        not _SPLIT_WORDS.isdisjoint([*words, letters])
        or any(sorted(letters) == sorted(word) for word in _SPLIT_WORDS)  # "tset"
        or bool(difflib.get_close_matches(letters, _SPLIT_WORDS, n=1, cutoff=_ALIKE))
    )


@DATASETS.register("folder")
class Folder(DataSource):
    """Your own images: a folder with one sub-folder a class, any formats, sizes and modes.

    The class folders lie in ROOT, and images are held out for validation and testing; or they lie
    in ROOT/train, ROOT/val and ROOT/test. Without ROOT/val its images are held out of ROOT/train;
    without ROOT/test there are no test images. A lone ROOT/test is enough to evaluate on. Split
    folders may have other usual names in upper or lower case (``split_of``); names that only
    resemble one are refused.

    Hidden and system files and folders are ignored, see ``data.formats.walk``.

    Which images are held out follows from their names, see ``data.splits.named_holdout``: as long
    as no size is given, files that are added turn no training image into one of the others.

    Images are normalised with ImageNet's mean and standard deviation.

    Args:
        root: the folder.
        val_size: images held out for validation; None: about 15 % of those not for testing.
        test_size: images held out for testing; None: about 15 % of all where the class folders
            lie in ROOT, none otherwise.
        image_size: height and width in pixels that images are kept with: cut to their central
            square, then resized. What the network sees is the task's business.
        in_memory: decode all images once, at the start. Otherwise the loader's workers read each
            one whenever it is needed.
        max_pixels: images with more pixels are left out, as broken ones are.
        classes: class names in label order, such as those of a model to evaluate. Folders are
            matched to them by name, and other names are refused; a class may have no images. None:
            all classes of the training folder, or of the only folder, sorted; each needs images.

    Attributes:
        skipped: files and folders that are not used as images.

    Raises:
        DataError: there is no such folder, it has another layout, fewer than two classes or no
            images, ``val_size`` does not fit, or the images would not fit into memory.
    """

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
    ) -> None:
        if root is None:
            raise DataError("a folder of images is needed: name it with --data ROOT")
        if classes is not None and len(set(classes)) < len(classes):
            raise DataError("data.options.classes names a class twice; remove one")
        self.skipped = Skipped()
        self.classes, listings = _find(root, classes, self.skipped)
        found = len({label for listing in listings.values() for label in listing.labels.tolist()})
        self._copy = f"folder of {sum(map(len, listings.values())):,} images " + (
            f"in {found} classes ({fingerprint(listings)})"
        )
        self._listings = _hold_out_missing(root, listings, val_size, test_size)
        if classes is None and "train" in self._listings:
            _check_counts(self.classes, self._listings["train"], "left to train on")
        super().__init__(root, val_size=len(self._listings.get("val", ())))
        self.size, self.in_memory, self.max_pixels = image_size, in_memory, max_pixels
        self._loaded: dict[Split, LabelledImages] = {}

    @property
    def info(self) -> DataInfo:
        """Facts of the data; ``version`` has a fingerprint of the names of all images."""
        return DataInfo(
            name="folder",
            version=self._copy,
            class_names=self.classes,
            image_size=(self.size, self.size),
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
        )

    @property
    def note(self) -> str | None:
        """Which files and folders are skipped; None for none."""
        return None if self.root is None else self.skipped.describe(self.root)

    def load(self, split: Split) -> LabelledImages:
        """The images of one split, in memory or as files; read once and kept."""
        if split not in self._loaded:
            listing = self._listings.get(split)
            assert self.root is not None
            if listing is None or len(listing) == 0:
                raise DataError(
                    f"{shown(self.root)} has no {split} images: it has no folder {split} with "
                    "class folders, and none of its images are held out for that; add the folder, "
                    "or choose another split"
                )
            files = FileImages(
                self.root, listing, (self.size, self.size), max_pixels=self.max_pixels
            )
            self._loaded[split] = files.into_memory() if self.in_memory else files
        return self._loaded[split]


def _find(
    root: Path, known: Sequence[str] | None, skipped: Skipped
) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """Class names, and the images of each split that has a folder; "" where none has."""
    folders = _split_folders(root, skipped) or {"": root}
    first = next(iter(folders.values()))
    classes = class_names(first) if known is None else tuple(known)
    listings = {
        split: list_images(root, folder, classes, skipped) for split, folder in folders.items()
    }
    if known is None:
        if len(classes) < 2:
            raise DataError(
                f"{shown(first)} has one class folder only, {classes[0]!r}; telling classes apart "
                "takes two"
            )
        where = f"in its folder in {shown(first)}"
        _check_counts(classes, next(iter(listings.values())), where)
    return classes, listings


def _split_folders(root: Path, skipped: Skipped) -> dict[str, Path]:
    """The folder of each split in a root, in the order train, val, test; none of bare classes.

    Raises:
        DataError: two folders are for one split, a name only resembles those of splits, or the
            splits hold no class folders.
    """
    beside = Skipped()
    inside = class_folders(root, beside)
    named = {name: split for name in inside if (split := split_of(name)) is not None}
    # A class may be called "train"; it holds images, no folders.
    splits = {name: split for name, split in named.items() if class_folders(root / inside[name])}
    if not splits:
        if len(inside) == len(named) and len(set(named.values())) > 1:
            raise DataError(
                f"{shown(root)} has the folders {' and '.join(named)} without class folders in "
                "them; put the images of each class into a folder of its own"
            )
        return {}
    folders: dict[str, Path] = {}
    for split in _SPLIT_NAMES:
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
            f"which is not the name of a split ({_UNDERSTOOD}); rename it, or move it elsewhere"
        )
    for name in others:
        beside.add("beside", inside[name])
    skipped.update(beside)
    return folders


def _hold_out_missing(
    root: Path, listings: dict[str, Listing], val_size: int | None, test_size: int | None
) -> dict[str, Listing]:
    """Images of the three splits, as far as there are any, held out where no folder has them."""
    splits = dict(listings)
    whole = "" in splits
    if whole:
        splits["train"] = splits.pop("")
    for split, size in (("test", test_size), ("val", val_size)):
        if split in splits:
            if size is not None:
                raise DataError(
                    f"{split}_size has no effect: {shown(root)} has a folder of {split} images"
                )
        elif "train" in splits and (whole or split == "val" or size is not None):
            splits["train"], splits[split] = _hold_out(splits["train"], size, split)
    return splits


def _hold_out(listing: Listing, size: int | None, purpose: str) -> tuple[Listing, Listing]:
    """Split a listing in two by the names of its files; None holds out the default fraction."""
    kept, held = named_holdout(
        listing.files, listing.labels, _HELD_OUT if size is None else size, purpose
    )
    return listing.at(kept), listing.at(held)


def _check_counts(classes: Sequence[str], listing: Listing, where: str) -> None:
    counts = listing.labels.bincount(minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise DataError(f"class {name!r} has no images {where}; add some, or remove the folder")
