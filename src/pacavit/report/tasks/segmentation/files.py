"""Segmentations of image files as files: label images, overlays with a legend, and areas."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pacavit.data import DataInfo
from pacavit.errors import PacavitError
from pacavit.tasks.base import TaskPrediction
from pacavit.tasks.segmentation import ImageSegmentation
from pacavit.tasks.segmentation.pictures import overlay, with_legend
from pacavit.utils import files
from pacavit.utils.pictures import gray_png_bytes, jpeg_bytes
from pacavit.utils.text import shown

__all__ = ["PREDICTIONS", "SegmentationWriter"]

PREDICTIONS = "predictions.json"


class SegmentationWriter:
    """Writes ``NAME.labels.png`` and ``NAME.overlay.jpg`` of each image, and ``predictions.json``.

    Label images have the size of the image (as it is displayed, see EXIF) and the data set's own
    numbers of the classes as gray values, of 16 bits if one is above 255. The JSON file has the
    areas of the classes and the names of the files. Images of the same name get a number behind it.

    Args:
        out: folder, created if needed.
        info: of the data that the model was trained on.
        overwrite: write into a folder that is not empty.

    Raises:
        PacavitError: a file, or a folder that is not empty, is in the way.
    """

    def __init__(self, out: Path, info: DataInfo, *, overwrite: bool) -> None:
        if out.exists() and not out.is_dir():
            raise PacavitError(
                f"{shown(out)} is a file; segmentations are written into a folder: choose another"
            )
        if out.is_dir() and any(out.iterdir()) and not overwrite:
            raise PacavitError(
                f"{shown(out)} is not empty; give --overwrite to write into it, or another folder"
            )
        assert info.masks is not None
        self.out, self.info, self.masks = out, info, info.masks
        kind = torch.uint8 if max(info.masks.values) <= 255 else torch.uint16
        self._values = torch.tensor(info.masks.values, dtype=kind)
        self._used: Counter[str] = Counter()
        self._records: list[dict[str, Any]] = []

    def add(self, prediction: TaskPrediction, image: Callable[[], Tensor]) -> None:
        """Write the files of an image.

        Raises:
            CheckpointError: a file cannot be written.
        """
        record = prediction.to_dict()
        self._records.append(record)
        if not isinstance(prediction, ImageSegmentation) or prediction.labels is None:
            return
        name = self._name(prediction.path)
        labels = prediction.labels
        picture = overlay(image(), labels, self.masks.colors)
        colors = dict(zip(self.info.class_names, self.masks.colors, strict=True))
        entries = [(each.name, colors[each.name]) for each in prediction.areas]
        contents = {
            f"{name}.labels.png": gray_png_bytes(self._values[labels.long()]),
            f"{name}.overlay.jpg": jpeg_bytes(with_legend(picture, entries)),
        }
        record["files"] = list(contents)
        for file, content in contents.items():
            with files.writing(self.out / file):
                files.replace_file(self.out / file, content)

    def finish(self) -> None:
        """Write the areas of the classes of all images."""
        content = json.dumps(self._records, indent=2).encode() + b"\n"
        with files.writing(self.out / PREDICTIONS):
            files.replace_file(self.out / PREDICTIONS, content)

    def _name(self, path: Path) -> str:
        """The stem of an image's name, with a number if an earlier image has the same."""
        stem = path.stem
        self._used[stem] += 1
        count = self._used[stem]
        return stem if count == 1 else f"{stem}-{count}"
