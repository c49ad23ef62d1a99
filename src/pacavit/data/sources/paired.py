"""Base class of data sets whose images have masks in files."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pacavit.data.base import (
    IGNORE_INDEX,
    SPLITS,
    DataInfo,
    DataSource,
    MaskInfo,
    Split,
)
from pacavit.data.formats.files import fingerprint
from pacavit.data.formats.mask_files import MaskFiles
from pacavit.data.formats.masks import MaskCoding
from pacavit.data.formats.pairs import Pairs, Unpaired, pair_folders
from pacavit.data.formats.walk import Skipped, sub_folders
from pacavit.data.splits import SPLIT_NAMES, split_of
from pacavit.errors import DataError
from pacavit.utils.text import first_few, shown

__all__ = ["PairedSource", "pair_splits", "splits_in"]

_MOST_SIZES = 500  # images whose headers are read
_ANY_SIZE = (256, 256)  # where no header can be read


class PairedSource(DataSource):
    """Images and masks of each split, read when they are needed.

    All masks of a split are decoded and checked once, when it is loaded. Images are normalized with
    ImageNet's mean and standard deviation.

    Args:
        root: as given by the user.
        name: registered name.
        layout: how the data are called in ``DataInfo.version``.
        class_names: in label order.
        masks: values and colors of the classes.
        coding: how masks are read.
        pairs: the files of each split; a split without images may be missing.
        max_pixels: images with more pixels are left out.
        min_side: images with a shorter side are refused.
        notes: lines on what was found.

    Raises:
        DataError: there are fewer than two classes, or more than masks can have.
    """

    targets = ("mask",)

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        layout: str,
        class_names: Sequence[str],
        masks: MaskInfo,
        coding: MaskCoding,
        pairs: Mapping[Split, Pairs],
        max_pixels: int,
        min_side: int,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(root, val_size=len(pairs.get("val", ())))
        self.folder = root
        num = len(class_names)
        if not 2 <= num <= IGNORE_INDEX:
            raise DataError(
                f"{shown(root)} has {num} {'class' if num == 1 else 'classes'} of pixels "
                f"({first_few(class_names)}); segmentation needs 2 to {IGNORE_INDEX}, and "
                "background counts as one"
            )
        self._pairs, self._coding = pairs, coding
        self._max_pixels, self._min_side = max_pixels, min_side
        self._notes = notes
        self._loaded: dict[Split, MaskFiles] = {}
        numbers = " + ".join(f"{len(pairs[split]):,}" for split in SPLITS if split in pairs)
        listed = (f"{value} {name}" for value, name in zip(masks.values, class_names, strict=True))
        by_split = {str(split): found for split, found in pairs.items()}
        self._info = DataInfo(
            name,
            f"{layout}, {numbers} images in {num} classes ({fingerprint(by_split, beside=listed)})",
            tuple(class_names),
            self._usual_size(),
            IMAGENET_DEFAULT_MEAN,
            IMAGENET_DEFAULT_STD,
            masks,
        )

    @property
    def info(self) -> DataInfo:
        """Facts about the data; ``image_size`` is the most frequent size of the images."""
        return self._info

    @property
    def note(self) -> str | None:
        """Lines on what was skipped, and on unlabeled images of splits that are loaded."""
        lines = list(self._notes)
        for split, images in self._loaded.items():
            empty = images.statistics.empty
            if empty:
                who = "image has" if len(empty) == 1 else "images have"
                lines.append(f"{len(empty):,} {split} {who} no labeled pixel: {first_few(empty)}")
        return "\n".join(lines) or None

    def load(self, split: Split) -> MaskFiles:
        """One split, whose masks have been checked; checked once and kept.

        Raises:
            DataError: there are no such images, masks do not fit, or those to train on have one
                class only.
        """
        if split not in self._loaded:
            files = self.files(split)
            if files is None:
                raise DataError(
                    f"{shown(self.folder)} has no {split} images with masks{self._remedy(split)}"
                )
            counts = files.scan(f"{split} masks")
            shown_classes = counts.pixels.nonzero().flatten().tolist()
            if split == "train" and len(shown_classes) == 1:
                fraction = counts.unlabeled / (counts.unlabeled + int(counts.pixels.sum()))
                raise DataError(
                    f"{shown(self.folder)}: the training masks show only the class "
                    f"{self._info.class_names[shown_classes[0]]!r}, and {fraction:.0%} of their "
                    f"pixels are unlabeled; list every value that is a class, perhaps "
                    f"{IGNORE_INDEX}, as VALUE NAME"
                )
            self._loaded[split] = files
        return self._loaded[split]

    def load_all(self) -> MaskFiles:
        """The images of all splits together, those of "train" first."""
        pairs = [self._pairs[split] for split in SPLITS if split in self._pairs]
        files = self._files(
            Pairs(
                np.concatenate([each.files for each in pairs]),
                np.concatenate([each.masks for each in pairs]),
            )
        )
        files.scan("masks")
        return files

    def files(self, split: Split) -> MaskFiles | None:
        """The files of a split, without reading any; None if it has no images."""
        pairs = self._pairs.get(split)
        return None if pairs is None or len(pairs) == 0 else self._files(pairs)

    def _files(self, pairs: Pairs) -> MaskFiles:
        return MaskFiles(
            self.folder,
            pairs,
            self._coding,
            max_pixels=self._max_pixels,
            min_side=self._min_side,
        )

    def _usual_size(self) -> tuple[int, int]:
        """The most frequent (height, width) among evenly spread images."""
        largest = max(self._pairs, key=lambda split: len(self._pairs[split]))
        sizes = Counter(self._files(self._pairs[largest]).sample_sizes(_MOST_SIZES))
        return sizes.most_common(1)[0][0] if sizes else _ANY_SIZE

    @abstractmethod
    def _remedy(self, split: Split) -> str:
        """The end of the message for a split without images: why, and what to do."""


def splits_in(folder: Path) -> dict[Split, Path]:
    """The split folders in a folder, by common names of splits, in upper or lower case.

    Raises:
        DataError: the folder cannot be read, or two folders are for one split.
    """
    found: dict[Split, Path] = {}
    for name in sub_folders(folder)[0]:
        split = split_of(name)
        if split is None:
            continue
        if split in found:
            raise DataError(
                f"{shown(folder)} has two folders of {split} images, {found[split].name} and "
                f"{shown(name)}; put them into one"
            )
        found[split] = folder / name
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def pair_splits(
    root: Path,
    folders: Mapping[str, tuple[Path, Path]],
    skipped: Skipped,
    *,
    skip_unpaired: bool,
) -> tuple[dict[str, Pairs], Unpaired]:
    """The images of each split with their masks, and those left out.

    Args:
        root: of the data.
        folders: by split, or under the key "": folder of images, folder of masks.
        skipped: receives entries that are no images.
        skip_unpaired: leave out images without masks, and masks without images.

    Raises:
        DataError: files have no partner and are not to be skipped; or as ``pair_folders``.
    """
    found: dict[str, Pairs] = {}
    unpaired = Unpaired()
    for split, (images, masks) in folders.items():
        found[split], without = pair_folders(root, images, masks, skipped)
        unpaired += without
    if unpaired and not skip_unpaired:
        raise DataError(
            f"{shown(root)}: {unpaired}; add what is missing, or leave them out with "
            "data.options.unpaired=skip"
        )
    return found, unpaired
