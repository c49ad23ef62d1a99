"""Base class of data sets whose image files are listed in advance."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pacavit.data.base import SPLITS, DataInfo, DataSource, LabeledImages, Split
from pacavit.data.formats.files import FileImages, Listing
from pacavit.errors import DataError
from pacavit.utils.text import shown

__all__ = ["ListedSource"]


class ListedSource(DataSource):
    """Image files of each split, read when a split is loaded, or when an image is needed.

    Images are normalized with ImageNet's mean and standard deviation.

    Args:
        root: as given by the user.
        name: registered name.
        version: of the data.
        class_names: in label order.
        listings: the files of each split; a split without images may be missing.
        folder: that the listed paths are relative to.
        image_size: (height, width) in pixels of stored images.
        in_memory: decode a split once, when it is loaded.
        max_pixels: images with more pixels are left out.
    """

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        version: str,
        class_names: tuple[str, ...],
        listings: Mapping[Split, Listing],
        folder: Path,
        image_size: tuple[int, int],
        in_memory: bool,
        max_pixels: int,
    ) -> None:
        super().__init__(root, val_size=len(listings.get("val", ())))
        self._info = DataInfo(
            name, version, class_names, image_size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        )
        self._listings, self._folder = listings, folder
        self._in_memory, self._max_pixels = in_memory, max_pixels
        self._loaded: dict[Split, LabeledImages] = {}

    @property
    def info(self) -> DataInfo:
        """Facts about the data; ``version`` has a fingerprint if the data are the user's own."""
        return self._info

    def load(self, split: Split) -> LabeledImages:
        """The images of one split, in memory or as files; read once and kept."""
        if split not in self._loaded:
            listing = self._listings.get(split)
            if listing is None or len(listing) == 0:
                assert self.root is not None
                raise DataError(f"{shown(self.root)} has no {split} images{self._remedy(split)}")
            self._loaded[split] = self._read(listing)
        return self._loaded[split]

    def load_all(self) -> LabeledImages:
        """The images of all splits together, those of "train" first."""
        listings = [self._listings[split] for split in SPLITS if split in self._listings]
        files = np.concatenate([listing.files for listing in listings])
        return self._read(Listing(files, torch.cat([listing.labels for listing in listings])))

    def _read(self, listing: Listing) -> LabeledImages:
        files = self._files(listing)
        return files.into_memory() if self._in_memory else files

    def files(self, split: Split) -> FileImages | None:
        """The files of a split, without reading any; None if it has no images."""
        listing = self._listings.get(split)
        return None if listing is None or len(listing) == 0 else self._files(listing)

    def _files(self, listing: Listing) -> FileImages:
        size = self._info.image_size
        return FileImages(self._folder, listing, size, max_pixels=self._max_pixels)

    @abstractmethod
    def _remedy(self, split: Split) -> str:
        """The end of the message for a split without images: why, and what to do."""
