"""Segmentations of image files as files: label images, overlays with a legend, and areas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pacavit.data import DataInfo
from pacavit.report.prediction import PictureFolder
from pacavit.tasks.base import TaskPrediction
from pacavit.tasks.segmentation import ImageSegmentation
from pacavit.tasks.segmentation.pictures import overlay, with_legend
from pacavit.utils.pictures import gray_png_bytes, jpeg_bytes

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
        self.folder = PictureFolder(out, overwrite=overwrite)
        assert info.masks is not None
        self.info, self.masks = info, info.masks
        kind = torch.uint8 if max(info.masks.values) <= 255 else torch.uint16
        self._values = torch.tensor(info.masks.values, dtype=kind)
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
        name = self.folder.name(prediction.path)
        labels = prediction.labels
        picture = overlay(image(), labels, self.masks.colors)
        colors = dict(zip(self.info.class_names, self.masks.colors, strict=True))
        entries = [(each.name, colors[each.name]) for each in prediction.areas]
        contents = {
            f"{name}.labels.png": gray_png_bytes(self._values[labels.long()]),
            f"{name}.overlay.jpg": jpeg_bytes(with_legend(picture, entries)),
        }
        record["files"] = list(contents)
        self.folder.write(contents)

    def finish(self) -> None:
        """Write the areas of the classes of all images."""
        content = json.dumps(self._records, indent=2).encode() + b"\n"
        self.folder.write({PREDICTIONS: content})
