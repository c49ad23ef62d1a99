"""Images with labels in a CSV file: one class per image, or any number."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from pacavit.data.base import DATASETS, SPLITS, Split, TargetKind
from pacavit.data.formats.files import Listing, fingerprint
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.sources.listed import ListedSource
from pacavit.data.splits import named_holdout, split_of
from pacavit.errors import DataError
from pacavit.utils.text import first_few, shown

__all__ = ["CsvLabels"]

_IMAGE_COLUMNS = ("image", "file", "filename", "path")
_LABEL_COLUMNS = ("labels", "label", "class", "classes")
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_SEPARATORS = ";|"
_MAX_BYTES = 2**30
_MAX_CLASSES = 10_000


class _Row(NamedTuple):
    """One row of the file: line number, image, classes, and split if there is one."""

    line: int
    image: str
    classes: tuple[str, ...]
    split: Split | None


@DATASETS.register("csv")
class CsvLabels(ListedSource):
    """A folder of images with a CSV file of their labels.

    The first line names the columns. One is ``image`` (or ``file``, ``filename``, ``path``): paths
    relative to the folder of the CSV file. The classes are in one column ``labels`` (or ``label``,
    ``class``, ``classes``), separated by ``;`` or ``|``; or there is one column per class, with 1
    if the image shows it and 0 if not. A column ``split`` may contain ``train``, ``val`` or
    ``test``; without it, images are held out by a hash of their names.

    Single-label tasks need exactly one class per image. Images are normalized with ImageNet's mean
    and standard deviation.

    Args:
        root: the CSV file, or a folder with one named ``labels.csv``.
        val_size: images held out for validation; None: about 15 % of those not for testing.
        test_size: images held out for testing if there is no column ``split``; None: 15 %.
        image_size: height and width in pixels of stored images: the central square of each
            image, resized. In a recipe, that of the task unless it is given.
        in_memory: decode all images once, at the start (in a recipe, unless the task crops whole
            images); otherwise each time one is needed.
        max_pixels: images with more pixels are left out, like broken ones.
        target: "label" for one class per image, "labels" for a row of 0 and 1; set by the task.
        classes: class names in label order, such as those of a model to evaluate; the file may
            contain only these. None: the classes in the file, sorted.
        evaluated: the only split that is needed, to evaluate a trained model; set by the engine.
            Sizes of splits that the file names are then ignored, and those of others are not
            used. None: for training.

    Raises:
        DataError: the file is missing or broken, images are missing, or a size does not fit.
    """

    targets = ("label", "labels")
    refuses_duplicates = True

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        test_size: NonNegativeInt | None = None,
        image_size: PositiveInt = 64,
        in_memory: bool = True,
        max_pixels: PositiveInt = MAX_PIXELS,
        target: TargetKind = "label",
        classes: tuple[str, ...] | None = None,
        evaluated: Split | None = None,
    ) -> None:
        if root is None:
            raise DataError("a CSV file of labels is needed: name it with --data FILE.csv")
        file = root / "labels.csv" if root.is_dir() else root
        name = shown(file)
        rows = _read(file, name)
        if target == "label":
            _check_single(name, rows)
        found = sorted({label for row in rows for label in row.classes})
        self.classes = tuple(found) if classes is None else classes
        unknown = [label for label in found if label not in self.classes]
        if unknown:
            raise DataError(
                f"{name} names classes that the model does not know: {first_few(unknown)}; "
                f"known: {first_few(self.classes)}"
            )
        if len(self.classes) < 2:
            raise DataError(
                f"{name} has fewer than two classes: {', '.join(self.classes) or 'none'}"
            )
        if len(self.classes) > _MAX_CLASSES:
            raise DataError(
                f"{name} has {len(self.classes):,} different classes; check its separators"
            )
        _check_files(file.parent, name, rows)
        full = Listing(
            np.array([os.fsencode(row.image) for row in rows]), _labels(rows, self.classes, target)
        )
        super().__init__(
            root,
            name="csv",
            version=f"{shown(file.name)} with {len(rows):,} images in {len(self.classes)} classes "
            f"({fingerprint({'': full}, beside=(' '.join(row.classes) for row in rows))})",
            class_names=self.classes,
            listings=_splits(name, rows, full, self.classes, val_size, test_size, evaluated),
            folder=file.parent,
            image_size=(image_size, image_size),
            in_memory=in_memory,
            max_pixels=max_pixels,
        )

    def _remedy(self, split: Split) -> str:
        return f"; give some of them the split {split!r}, or choose another split"


def _read(file: Path, name: str) -> list[_Row]:
    """All rows of a file of labels."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(f"{name} is larger than {_MAX_BYTES >> 20} MiB; split it")
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(_rows(name, csv.reader(stream, strict=True)))
    except FileNotFoundError:
        raise DataError(
            f"there is no file of labels {name}; name it with --data FILE.csv"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} is not a CSV file in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{name} names no images")
    repeated = [image for image, count in Counter(row.image for row in rows).items() if count > 1]
    if repeated:
        raise DataError(
            f"{name} names {len(repeated)} images more than once: "
            f"{first_few(list(map(shown, repeated)))}; keep one line of each"
        )
    return rows


def _rows(name: str, lines: Iterator[list[str]]) -> Iterator[_Row]:
    header = [name.strip() for name in next(lines, [])]
    lower = [name.lower() for name in header]
    image = _column(lower, _IMAGE_COLUMNS)
    if image is None:
        raise DataError(
            f"{name} has no column {_IMAGE_COLUMNS[0]!r} in its first line, which has "
            f"{', '.join(header) or 'nothing'}"
        )
    label, split = _column(lower, _LABEL_COLUMNS), _column(lower, ("split",))
    flags = [place for place in range(len(header)) if place not in (image, split)]
    if label is None and not flags:
        raise DataError(f"{name} has no column of labels beside {header[image]!r}")
    for cells in lines:
        line = lines.line_num  # type: ignore[attr-defined]  # of csv.reader
        if not cells:
            continue
        if len(cells) != len(header):
            raise DataError(f"{name}, line {line}: {len(cells)} cells instead of {len(header)}")
        if not cells[image].strip():
            raise DataError(f"{name}, line {line} names no image")
        if label is None:
            classes = tuple(
                header[place] for place in flags if _flag(name, line, header[place], cells[place])
            )
        else:
            classes = _names(cells[label])
        wanted = None if split is None else _split(name, line, cells[split])
        yield _Row(line, cells[image].strip(), classes, wanted)


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _names(cell: str) -> tuple[str, ...]:
    """The classes in a cell, each once."""
    for separator in _SEPARATORS[1:]:
        cell = cell.replace(separator, _SEPARATORS[0])
    names = (name.strip() for name in cell.split(_SEPARATORS[0]))
    return tuple(dict.fromkeys(name for name in names if name))


def _flag(name: str, line: int, column: str, cell: str) -> bool:
    try:
        return _FLAGS[cell.strip().lower()]
    except KeyError:
        raise DataError(
            f"{name}, line {line}, column {column!r}: {cell!r} is neither 0 nor 1; put classes "
            "into a column 'labels', or into one column each of 0 and 1"
        ) from None


def _split(name: str, line: int, cell: str) -> Split:
    split = split_of(cell.strip())
    if split is None:
        raise DataError(
            f"{name}, line {line}: {cell!r} is no split; choose among: {', '.join(SPLITS)}"
        )
    return split


def _check_single(name: str, rows: Sequence[_Row]) -> None:
    wrong = [row for row in rows if len(row.classes) != 1]
    if wrong:
        first = wrong[0]
        raise DataError(
            f"{name} has {len(wrong)} images without exactly one class, the first in line "
            f"{first.line} ({first.image}: {', '.join(first.classes) or 'none'}); the task "
            "'multilabel' takes any number"
        )


def _check_files(folder: Path, name: str, rows: Sequence[_Row]) -> None:
    missing = [row.image for row in rows if not (folder / row.image).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(rows)} images in {name} are not there: "
            f"{first_few(list(map(shown, missing)))}; paths start from the folder of the file"
        )


def _labels(rows: Sequence[_Row], classes: Sequence[str], target: TargetKind) -> Tensor:
    """(num,) int64, or (num, classes) uint8."""
    number = {name: label for label, name in enumerate(classes)}
    if target == "label":
        return torch.tensor([number[row.classes[0]] for row in rows])
    labels = torch.zeros(len(rows), len(classes), dtype=torch.uint8)
    for place, row in enumerate(rows):
        labels[place, [number[name] for name in row.classes]] = 1
    return labels


def _splits(
    name: str,
    rows: Sequence[_Row],
    full: Listing,
    classes: Sequence[str],
    val_size: int | None,
    test_size: int | None,
    evaluated: Split | None,
) -> dict[Split, Listing]:
    """The images of each split: as in the column ``split``, else held out by their names."""
    rarest = _rarest(rows, classes)
    named = rows[0].split is not None
    places: dict[Split, Tensor] = {
        split: torch.tensor(
            [place for place, row in enumerate(rows) if (row.split or "train") == split],
            dtype=torch.int64,
        )
        for split in SPLITS
    }
    if evaluated is None and named and test_size is not None:
        raise DataError(f"test_size has no effect: {name} has a column of splits")
    if evaluated is None and len(places["val"]) and val_size is not None:
        raise DataError(f"val_size has no effect: {name} has validation images")
    missing: list[tuple[Split, int | None]] = [] if named else [("test", test_size)]
    if not len(places["val"]) and len(places["train"]) and evaluated != "test":
        missing.append(("val", val_size))
    for split, size in missing:
        train = places["train"]
        kept, held = named_holdout(full.files[train.numpy()], rarest[train], size, split)
        places["train"], places[split] = train[kept], train[held]
    if not len(places["train"]) and not named and evaluated is None:
        raise DataError(f"{name} leaves no images to train on")
    return {split: full.at(positions) for split, positions in places.items()}


def _rarest(rows: Sequence[_Row], classes: Sequence[str]) -> Tensor:
    """The rarest class of each image; the number of classes if it has none: (num,) int64."""
    counts = Counter(name for row in rows for name in row.classes)
    number = {name: label for label, name in enumerate(classes)}
    return torch.tensor(
        [
            min(
                (number[name] for name in row.classes),
                key=lambda n: (counts[classes[n]], n),
                default=len(classes),
            )
            for row in rows
        ]
    )
