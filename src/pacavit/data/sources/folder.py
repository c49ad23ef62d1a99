"""A folder of your own images, sorted into classes by sub-folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pacavit.data.base import DATASETS, DataInfo, DataSource, ImageSet, Split
from pacavit.data.formats.files import FileImages, Listing, class_names, fingerprint, list_images
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.splits import named_holdout
from pacavit.errors import DataError

__all__ = ["Folder"]

_SHARE = 0.15  # of the images, for validation and for testing, unless told otherwise
_MEMORY_LIMIT = 4 * 2**30
_SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@DATASETS.register("folder")
class Folder(DataSource):
    """Your own images: a folder with one sub-folder a class, any formats, sizes and modes.

    The class folders lie in ROOT, and images are held out for validation and testing; or they lie
    in ROOT/train, ROOT/val and ROOT/test. Without ROOT/val its images are held out of ROOT/train;
    without ROOT/test there are no test images. A lone ROOT/test is enough to evaluate on.

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
    ) -> None:
        if root is None:
            raise DataError("a folder of images is needed: name it with --data ROOT")
        self.classes, listings = _find(root)
        self._copy = f"folder of {sum(map(len, listings.values())):,} images " + (
            f"in {len(self.classes)} classes ({fingerprint(listings)})"
        )
        self._listings = _part(root, listings, val_size, test_size)
        if "train" in self._listings:
            _check_counts(self.classes, self._listings["train"], "left to train on")
        super().__init__(root, val_size=len(self._listings.get("val", ())))
        self.size, self.in_memory, self.max_pixels = image_size, in_memory, max_pixels
        self._loaded: dict[Split, ImageSet] = {}

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

    def load(self, split: Split) -> ImageSet:
        """The images of one split, in memory or as files; read once and kept."""
        if split not in self._loaded:
            listing = self._listings.get(split)
            if listing is None or len(listing) == 0:
                raise DataError(
                    f"{self.root} has no {split} images: it has no folder {split}, and none of "
                    "its images are held out for that; add the folder, or choose another split"
                )
            assert self.root is not None
            files = FileImages(
                self.root, listing, (self.size, self.size), max_pixels=self.max_pixels
            )
            self._loaded[split] = self._into_memory(files) if self.in_memory else files
        return self._loaded[split]

    def _into_memory(self, files: FileImages) -> ImageSet:
        needed = len(files) * 3 * self.size**2
        if needed > _MEMORY_LIMIT:
            raise DataError(
                f"{len(files):,} images of {self.size} x {self.size} pixels take "
                f"{needed / 2**30:.0f} GiB of memory; lower data.options.image_size, or set "
                "data.options.in_memory=false"
            )
        return files.into_memory()


def _find(root: Path) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """Class names, and the images of each split that has a folder; "" where none has."""
    inside = class_names(root)
    folders: dict[str, Path] = {
        split: root / name
        for split, names in _SPLIT_FOLDERS.items()
        for name in names
        # A class may be called "train"; it holds images, no folders.
        if name in inside and class_names(root / name)
    }
    folders = folders or {"": root}
    first = next(iter(folders.values()))
    classes = class_names(first)
    listings = {split: list_images(root, folder, classes) for split, folder in folders.items()}
    if len(classes) < 2:
        raise DataError(
            f"{first} has one class folder only, {classes[0]!r}; telling classes apart takes two"
        )
    _check_counts(classes, next(iter(listings.values())), f"in its folder in {first}")
    return classes, listings


def _part(
    root: Path, listings: dict[str, Listing], val_size: int | None, test_size: int | None
) -> dict[str, Listing]:
    """Images of the three splits, as far as there are any, held out where no folder has them."""
    parted = dict(listings)
    whole = "" in parted
    if whole:
        parted["train"] = parted.pop("")
    for split, size in (("test", test_size), ("val", val_size)):
        if split in parted:
            if size is not None:
                raise DataError(
                    f"{split}_size has no effect: {root} has a folder of {split} images"
                )
        elif "train" in parted and (whole or split == "val" or size is not None):
            parted["train"], parted[split] = _hold_out(parted["train"], size, split)
    return parted


def _hold_out(listing: Listing, size: int | None, purpose: str) -> tuple[Listing, Listing]:
    """Part a listing in two by the names of its files; None holds out a share."""
    kept, held = named_holdout(
        listing.files, listing.labels, _SHARE if size is None else size, purpose
    )
    return listing.at(kept), listing.at(held)


def _check_counts(classes: Sequence[str], listing: Listing, where: str) -> None:
    counts = listing.labels.bincount(minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise DataError(f"class {name!r} has no images {where}; add some, or remove the folder")
