"""Base class of data sets whose images are packed into shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from pacavit.data.base import SPLITS, DataInfo, DataSource, Split
from pacavit.data.formats.files import fingerprint
from pacavit.data.formats.shards import EncodedImages, RowListing, ShardImages
from pacavit.data.splits import hold_out_missing
from pacavit.errors import DataError
from pacavit.utils.text import first_few, shown

__all__ = ["ShardedSource"]

_NO_LABEL = -1


class ShardedSource(DataSource):
    """Labeled images in shards, read by the loader's workers; normalized as ImageNet.

    Args:
        root: as given by the user.
        name: registered name.
        images: of all shards.
        listings: rows of each split, or of all images under the key "". Labels are positions in
            ``names``; a split whose labels are all -1 has none and is left out.
        names: the stored class names in label order; None: the numbers of the labels.
        files: the shards; their sizes are part of the version of the data.
        classes: class names in label order; None: the stored ones.
        val_size: images held out for validation; None: about 15 % if there are none.
        test_size: images held out for testing; None: about 15 % if no shard has a split.
        val_as_test: stored validation images are the split "test".
        evaluated: the only split that is needed; None: for training.
        image_size: height and width in pixels of a batch.
        max_pixels: images with more pixels are left out.

    Raises:
        DataError: a label has no name, a class is not known, or a size does not fit.
    """

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        images: EncodedImages,
        listings: Mapping[str, RowListing],
        names: Sequence[str] | None,
        files: Sequence[Path],
        classes: Sequence[str] | None,
        val_size: int | None,
        test_size: int | None,
        val_as_test: bool,
        evaluated: Split | None,
        image_size: int,
        max_pixels: int,
    ) -> None:
        labeled = {
            split: listing
            for split, listing in listings.items()
            if len(listing) and bool((listing.labels != _NO_LABEL).any())
        }
        self._notes = [
            f"the {len(listing):,} {split or 'stored'} images have no labels and are not used"
            for split, listing in listings.items()
            if split not in labeled and len(listing)
        ]
        if not labeled:
            raise DataError(f"{shown(root)} has no images with labels")
        if val_as_test:
            if "val" not in labeled:
                raise DataError(
                    f"val_as_test has no effect: {shown(root)} has no validation images; leave it "
                    "out"
                )
            labeled["test"] = labeled.pop("val")
        stored = _stored_names(labeled, names, images)
        own = tuple(stored) if classes is None else tuple(classes)
        labeled = {
            split: _with_classes(listing, stored, own, root) for split, listing in labeled.items()
        }
        sizes = (f"{file.name} {file.stat().st_size}" for file in files)
        number = sum(map(len, labeled.values()))
        version = f"{number:,} images in {len(files):,} shards, {len(own):,} classes " + (
            f"({fingerprint(labeled, beside=sizes)})"
        )
        if len(own) < 2:
            raise DataError(f"{shown(root)} has fewer than two classes: {', '.join(own) or 'none'}")
        self._listings = hold_out_missing(root, labeled, val_size, test_size, evaluated)
        super().__init__(root, val_size=len(self._listings.get("val", ())))
        self._info = DataInfo(
            name,
            version,
            own,
            (image_size, image_size),
            IMAGENET_DEFAULT_MEAN,
            IMAGENET_DEFAULT_STD,
        )
        self._images, self._max_pixels = images, max_pixels
        self._loaded: dict[Split, ShardImages] = {}

    @property
    def info(self) -> DataInfo:
        """Facts about the data; ``version`` has a fingerprint of the shards."""
        return self._info

    @property
    def note(self) -> str | None:
        """A line on images that are not used; None if all are."""
        return "; ".join(self._notes) or None

    def load(self, split: Split) -> ShardImages:
        """The images of one split; those that cannot be read are recorded for all users."""
        if split not in self._loaded:
            listing = self._listings.get(split)
            if listing is None or len(listing) == 0:
                assert self.root is not None
                raise DataError(
                    f"{shown(self.root)} has no {split} images: no shard has that split in its "
                    "name, and none of its images are held out for it; choose another split"
                )
            self._loaded[split] = self._read(listing)
        return self._loaded[split]

    def files(self, split: Split) -> ShardImages | None:
        """The images of a split, without reading any; None if it has none."""
        return self.load(split) if len(self._listings.get(split, ())) else None

    def load_all(self) -> ShardImages:
        """The images of all splits together, those of "train" first."""
        listings = [self._listings[split] for split in SPLITS if split in self._listings]
        return self._read(
            RowListing(
                np.concatenate([listing.files for listing in listings]),
                torch.cat([listing.labels for listing in listings]),
                torch.cat([listing.rows for listing in listings]),
            )
        )

    def _read(self, listing: RowListing) -> ShardImages:
        size = self._info.image_size
        return ShardImages(
            self._images, listing.rows, listing.labels, size, max_pixels=self._max_pixels
        )


def _stored_names(
    listings: Mapping[str, RowListing], names: Sequence[str] | None, images: EncodedImages
) -> Sequence[str]:
    """The name of each label; its number if there are no names."""
    largest = max(int(listing.labels.max()) for listing in listings.values())
    num = largest + 1 if names is None else len(names)
    for listing in listings.values():
        wrong = ((listing.labels < 0) | (listing.labels >= num)).nonzero()[:, 0]
        if len(wrong):
            where = images.location(int(listing.rows[wrong[0]]))
            raise DataError(
                f"{where} has label {int(listing.labels[wrong[0]])}, outside of 0..{num - 1}"
                + (f", as have {len(wrong) - 1:,} others" if len(wrong) > 1 else "")
            )
    return [str(label) for label in range(num)] if names is None else names


def _with_classes(
    listing: RowListing, stored: Sequence[str], classes: Sequence[str], root: Path
) -> RowListing:
    """The rows with labels as positions in ``classes``."""
    if tuple(stored) == tuple(classes):
        return listing
    number = {name: label for label, name in enumerate(classes)}
    present = set(listing.labels.tolist())
    unknown = [repr(stored[label]) for label in sorted(present) if stored[label] not in number]
    if unknown:
        raise DataError(
            f"{shown(root)} has classes that the training images do not have: "
            f"{first_few(unknown)}; remove them"
        )
    table = torch.tensor([number.get(name, _NO_LABEL) for name in stored])
    labels: Tensor = table[listing.labels]
    return replace(listing, labels=labels)
