"""Labeled images in parquet files, as the Hugging Face hub has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt

from pacavit.data.base import DATASETS, Split
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.formats.parquet import IMAGE_COLUMNS, ParquetRows
from pacavit.data.formats.shards import RowListing, find_split_shards, read_names
from pacavit.data.sources.sharded import ShardedSource
from pacavit.errors import DataError
from pacavit.utils.text import shown

__all__ = ["Parquet"]

_NO_LABEL = -1


@DATASETS.register("parquet")
class Parquet(ShardedSource):
    """Parquet shards of any number of images, in the layout of the Hugging Face hub.

    ROOT, or ROOT/data, holds ``train-*.parquet``, and perhaps ``validation-*.parquet`` and
    ``test-*.parquet``. Each has a column ``image`` or ``img`` with the encoded images, as a struct
    with ``bytes`` or as bytes, and a column of labels, as numbers or texts. Images of splits
    without shards are held out of the training images, as by the source ``folder``. Row groups are
    read when an image in them is needed.

    Args:
        root: the folder; or a pattern of names in it, ``folder/train-*.parquet``.
        val_size: images held out for validation; None: about 15 % if no shards are for it.
        test_size: images held out for testing; None: about 15 % if no shard has a split.
        val_as_test: the stored validation images are the split "test", and "val" is held out of
            the training images: for data whose own test images have no labels, such as ImageNet.
        label: column of labels.
        names: file with the class names in label order, one a line. None: those in the files, as
            the hub stores them; or those of ROOT/classes.txt; or the numbers of the labels.
        image_size: height and width in pixels of a batch; the crop of a task has its own size.
        max_pixels: images with more pixels are left out, like broken ones.
        classes: class names in label order, such as those of a model to evaluate; the data may
            contain only these. None: the stored ones.
        evaluated: the only split that is needed, to evaluate a trained model; set by the engine.

    Raises:
        DataError: shards are missing or broken, have other columns, or labels do not fit.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        test_size: NonNegativeInt | None = None,
        val_as_test: bool = False,
        label: str = "label",
        names: Path | None = None,
        image_size: PositiveInt = 224,
        max_pixels: PositiveInt = MAX_PIXELS,
        classes: tuple[str, ...] | None = None,
        evaluated: Split | None = None,
    ) -> None:
        if root is None:
            raise DataError("a folder of parquet files is needed: name it with --data ROOT")
        shards = find_split_shards(root, ".parquet")
        files = [file for group in shards.values() for file in group]
        rows = ParquetRows(files)
        images = _ParquetImages(rows)
        stored = read_names(files[0].parent, names)
        if stored is None:
            stored = _feature_names(rows.features().get(label))
        values = rows.all(rows.column([label], f"labels {label!r} (data.options.label)"))
        labels, found = _labels(values, stored, rows)
        ends = np.cumsum([len(group) for group in shards.values()])
        listings = {}
        for split, end in zip(shards, ends, strict=True):
            first, last = rows.starts[end - len(shards[split])], rows.starts[end]
            listings[split] = _listing(rows, labels, int(first), int(last))
        super().__init__(
            root,
            name="parquet",
            images=images,
            listings=listings,
            names=found,
            files=files,
            classes=classes,
            val_size=val_size,
            test_size=test_size,
            val_as_test=val_as_test,
            evaluated=evaluated,
            image_size=image_size,
            max_pixels=max_pixels,
        )


class _ParquetImages:
    """The column of images of parquet files."""

    def __init__(self, rows: ParquetRows) -> None:
        self.rows = rows
        self.column = rows.column(IMAGE_COLUMNS, "images, image or img")

    def encoded(self, row: int) -> bytes:
        value: Any = self.rows.value(row, self.column)
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise DataError(f"{self.location(row)} has no embedded image")
        return data

    def location(self, row: int) -> str:
        file, number = self.rows.place(row)
        return f"{shown(file)}: row {number}"


def _listing(rows: ParquetRows, labels: torch.Tensor, first: int, last: int) -> RowListing:
    names = []
    ends = rows.starts.tolist()
    for file, start, stop in zip(rows.files, ends, ends[1:], strict=False):
        inside = range(max(start, first), min(stop, last))
        names += [f"{file.name}:{row - start}".encode() for row in inside]
    return RowListing(np.array(names, np.bytes_), labels[first:last], torch.arange(first, last))


def _labels(
    values: Sequence[Any], names: Sequence[str] | None, rows: ParquetRows
) -> tuple[torch.Tensor, Sequence[str] | None]:
    """(num,) int64 labels, and the names of texts."""
    texts = {value for value in values if isinstance(value, str)}
    if texts:
        names = sorted(texts) if names is None else names
        number = {name: label for label, name in enumerate(names)}
        values = [number.get(value, value) if isinstance(value, str) else value for value in values]
    values = [_NO_LABEL if value is None else value for value in values]
    for row, value in enumerate(values):
        if not isinstance(value, int):
            file, inside = rows.place(row)
            raise DataError(
                f"{shown(file)}: row {inside} has the label {value!r}, which is no number or name "
                "of a class"
            )
    return torch.tensor(values, dtype=torch.int64), names


def _feature_names(feature: Any) -> tuple[str, ...] | None:
    """The class names of a column, from what the hub says about it; None if it says none."""
    names = feature.get("names") if isinstance(feature, Mapping) else None
    if isinstance(names, Mapping):
        names = list(names.values())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) or None
