"""Rendered pictures of shapes with ground truth for every pixel."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from pacavit.data.base import DATASETS, DataInfo, DataSource, MemoryImages, Split
from pacavit.data.sources.scenes import SHAPE_NAMES, Scenes, render_scenes
from pacavit.errors import DataError

__all__ = ["Scenes", "Shapes", "render_scenes"]

# First scene number of each split; they are so far apart that splits never share a scene.
_FIRST_SCENE: dict[Split, int] = {"train": 0, "val": 1 << 32, "test": 2 << 32}
_CHUNK = 64
_MEAN, _STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@DATASETS.register("shapes")
class Shapes(DataSource):
    """Colored, textured shapes on a cluttered background; rendered, needs no files.

    The class of a picture is that of its subject, the largest shape; up to three smaller shapes of
    any class are distractors. ``scenes`` returns the boxes and masks of all of them.

    Args:
        root: must be None.
        val_size: scenes for validation, in addition to those for training.
        train_size: scenes for training.
        test_size: scenes for testing.
        image_size: side in pixels.
        seed: of the scenes.

    Raises:
        DataError: a root is given.
    """

    default_val_size: ClassVar[int] = 1000

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        train_size: PositiveInt = 10_000,
        test_size: PositiveInt = 2000,
        image_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(root, val_size=val_size)
        if root is not None:
            raise DataError(f"shapes are rendered and take no data folder, got {root}")
        self._sizes: dict[Split, int] = {
            "train": train_size,
            "val": self.val_size,
            "test": test_size,
        }
        self.image_size, self.seed = image_size, seed
        self._splits: dict[Split, MemoryImages] = {}

    @property
    def info(self) -> DataInfo:
        """Facts about the data; mean and std are round numbers near those of the pictures."""
        return DataInfo(
            name="shapes",
            version=f"shapes ({self.image_size} x {self.image_size}, seed {self.seed})",
            class_names=SHAPE_NAMES,
            image_size=(self.image_size, self.image_size),
            mean=_MEAN,
            std=_STD,
        )

    def load(self, split: Split) -> MemoryImages:
        """The pictures of one split, (num, 3, size, size) uint8; rendered once and kept."""
        num = self._sizes[split]
        if num == 0:
            raise DataError("shapes has no validation images because val_size is 0")
        if split not in self._splits:
            images = torch.empty(num, 3, self.image_size, self.image_size, dtype=torch.uint8)
            labels = torch.empty(num, dtype=torch.int64)
            for chunk in torch.arange(num).split(_CHUNK):
                scenes = self.scenes(split, chunk)
                images[chunk], labels[chunk] = scenes.images, scenes.classes[:, 0]
            self._splits[split] = MemoryImages(images, labels)
        return self._splits[split]

    def scenes(self, split: Split, indices: Tensor) -> Scenes:
        """Pictures of a split with their ground truth.

        Args:
            split: the split of the scenes.
            indices: (B,) int64 positions in the split.
        """
        numbers = indices.cpu() + _FIRST_SCENE[split]
        return render_scenes(numbers, size=self.image_size, seed=self.seed)

    def instances(self, split: Split, indices: Tensor) -> Tensor:
        """Masks of the shapes, 1 for the subject, 0 for the background: (B, size, size) uint8."""
        return self.scenes(split, indices).instances
