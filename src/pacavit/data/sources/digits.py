"""Handwritten digits that come with scikit-learn: 1797 gray images of 8 x 8 pixels, 10 classes.

Source: E. Alpaydin, C. Kaynak: "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998; https://doi.org/10.24432/C50P49 (its test part).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F

from pacavit.data.base import DATASETS, DataInfo, DataSource, MemoryImages, Split
from pacavit.data.splits import hold_out_validation, stratified_holdout, take
from pacavit.errors import DataError

__all__ = ["Digits"]

_SIZE = 32
_TEST_SIZE = 360
_MEAN, _STD = 0.3049, 0.3235


@DATASETS.register("digits")
class Digits(DataSource):
    """The default data set, which is part of scikit-learn; needs no files.

    Images are enlarged once to 32 x 32 RGB, the size that the small-image models are made for.
    scikit-learn defines no split; here 360 images are the test set, always the same ones.

    Args:
        root: must be None.
        val_size: images held out of the 1437 others for validation.

    Raises:
        DataError: a root is given, or ``val_size`` does not fit.
    """

    default_val_size: ClassVar[int] = 180

    def __init__(self, root: Path | None = None, *, val_size: int | None = None) -> None:
        super().__init__(root, val_size=val_size)
        if root is not None:
            raise DataError(f"digits comes with scikit-learn and takes no data folder, got {root}")
        self._splits: dict[Split, MemoryImages] = {}

    @property
    def info(self) -> DataInfo:
        """Facts about the data; mean and std are those of the 1437 images outside the test set."""
        return DataInfo(
            name="digits",
            version="digits (scikit-learn, 8 x 8 enlarged to 32 x 32)",
            class_names=tuple("0123456789"),
            image_size=(_SIZE, _SIZE),
            mean=(_MEAN, _MEAN, _MEAN),
            std=(_STD, _STD, _STD),
        )

    def load(self, split: Split) -> MemoryImages:
        """The images of one split, (num, 3, 32, 32) uint8; loaded once and kept."""
        if not self._splits:
            full = _load_all()
            rest, test = stratified_holdout(full.labels, _TEST_SIZE)
            train, val = hold_out_validation(take(full, rest), self.val_size)
            self._splits = {"train": train, "val": val, "test": take(full, test)}
        images = self._splits[split]
        if len(images) == 0:
            raise DataError(
                "digits has no validation images because data.val_size is 0; hold some out"
            )
        return images


def _load_all() -> MemoryImages:
    # Imported here because scikit-learn takes a second to load.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    gray = torch.from_numpy(bunch.images).float()[:, None] / 16  # stored as 0..16
    large = F.interpolate(gray, size=(_SIZE, _SIZE), mode="bilinear", antialias=False)
    images = (large * 255).round().to(torch.uint8).repeat(1, 3, 1, 1)
    return MemoryImages(images, torch.from_numpy(bunch.target).long())
