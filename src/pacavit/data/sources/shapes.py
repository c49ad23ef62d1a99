"""Rendered pictures of shapes with ground truth for every pixel."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, TypeAlias

import torch
from pydantic import PositiveInt
from torch import Tensor

from pacavit.data.base import (
    DATASETS,
    DataInfo,
    DataSource,
    MaskInfo,
    MemoryImages,
    ObjectInfo,
    Split,
    TargetKind,
)
from pacavit.data.formats.rle import encode_masks
from pacavit.data.masks import MemoryMasks
from pacavit.data.objects import MemoryObjects, Objects
from pacavit.data.palette import class_colors
from pacavit.data.sources.scenes import SHAPE_NAMES, Scenes, render_scenes
from pacavit.errors import DataError

__all__ = ["Scenes", "Shapes", "render_scenes"]

# First scene number of each split; they are so far apart that splits never share a scene.
_FIRST_SCENE: dict[Split, int] = {"train": 0, "val": 1 << 32, "test": 2 << 32}
_CHUNK = 64
_MASK_NAMES = ("background", *SHAPE_NAMES)
_OBJECTS: tuple[TargetKind, ...] = ("boxes", "instances")
_MEAN, _STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

Rendered: TypeAlias = MemoryImages | MemoryMasks | MemoryObjects


@DATASETS.register("shapes")
class Shapes(DataSource):
    """Colored, textured shapes on a cluttered background; rendered, needs no files.

    The class of a picture is that of its subject, the largest shape; up to three smaller shapes of
    any class are distractors. As masks, all shapes count, and the background is a class of its own,
    the first. As objects, all shapes have boxes around their visible parts, and as instances masks
    of these. ``scenes`` returns the boxes and masks of all shapes.

    Args:
        root: must be None.
        val_size: scenes for validation, in addition to those for training.
        train_size: scenes for training.
        test_size: scenes for testing.
        image_size: side in pixels.
        seed: of the scenes.
        target: "label" for the class of the subject, "mask" for that of every pixel, "boxes" or
            "instances" for all shapes; set by the task.

    Raises:
        DataError: a root is given.
    """

    targets = ("label", "mask", "boxes", "instances")
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
        target: TargetKind = "label",
    ) -> None:
        super().__init__(root, val_size=val_size)
        if root is not None:
            raise DataError(f"shapes are rendered and take no data folder, got {root}")
        self._sizes: dict[Split, int] = {
            "train": train_size,
            "val": self.val_size,
            "test": test_size,
        }
        self.image_size, self.seed, self.target = image_size, seed, target
        self._splits: dict[Split, Rendered] = {}

    @property
    def info(self) -> DataInfo:
        """Facts about the data; mean and std are round numbers near those of the pictures."""
        names: tuple[str, ...] = SHAPE_NAMES
        masks = objects = None
        if self.target == "mask":
            names = _MASK_NAMES
            masks = MaskInfo(tuple(range(len(names))), class_colors(names))
        elif self.target in _OBJECTS:
            objects = ObjectInfo(tuple(range(1, len(names) + 1)), class_colors(names))
        return DataInfo(
            name="shapes",
            version=f"shapes ({self.image_size} x {self.image_size}, seed {self.seed})",
            class_names=names,
            image_size=(self.image_size, self.image_size),
            mean=_MEAN,
            std=_STD,
            masks=masks,
            objects=objects,
        )

    def load(self, split: Split) -> Rendered:
        """The pictures of one split, (num, 3, size, size) uint8; rendered once and kept."""
        num = self._sizes[split]
        if num == 0:
            raise DataError("shapes has no validation images because val_size is 0")
        if split not in self._splits:
            self._splits[split] = self._render(split, num)
        return self._splits[split]

    def _render(self, split: Split, num: int) -> Rendered:
        size = (self.image_size, self.image_size)
        images = torch.empty(num, 3, *size, dtype=torch.uint8)
        labels = torch.empty(num, dtype=torch.int64)
        masks = torch.empty(num if self.target == "mask" else 0, *size, dtype=torch.uint8)
        objects: list[Objects] = []
        for chunk in torch.arange(num).split(_CHUNK):
            scenes = self.scenes(split, chunk)
            images[chunk], labels[chunk] = scenes.images, scenes.classes[:, 0]
            if self.target == "mask":
                masks[chunk] = scenes.semantic
            elif self.target in _OBJECTS:
                numbers = chunk.tolist()
                objects += [
                    self._objects(scenes, row, number) for row, number in enumerate(numbers)
                ]
        if self.target == "mask":
            return MemoryMasks(images, masks, len(_MASK_NAMES))
        if self.target in _OBJECTS:
            return MemoryObjects(images, objects, len(SHAPE_NAMES))
        return MemoryImages(images, labels)

    def _objects(self, scenes: Scenes, row: int, number: int) -> Objects:
        """The visible shapes of one of some scenes, which is the image at a position."""
        seen = scenes.classes[row] >= 0
        masks = scenes.masks[row][seen]
        labels = scenes.classes[row][seen]
        return Objects(
            scenes.boxes[row][seen],
            labels,
            torch.zeros(len(labels), dtype=torch.bool),
            masks.sum((1, 2)).float(),
            (self.image_size, self.image_size),
            number + 1,
            encode_masks(masks) if self.target == "instances" else None,
        )

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
