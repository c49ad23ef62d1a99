"""Detections in COCO's result format, the list of records that detection tools exchange."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

import torch

from pacavit.data import DataInfo, ObjectImages, Objects, Rle
from pacavit.data.formats.segments import SegmentError, read_segment, tight_box
from pacavit.errors import DataError
from pacavit.tasks.detection.predictions import Detections, coco_boxes
from pacavit.utils.progress import progress
from pacavit.utils.text import first_few, one_line, shown

__all__ = ["ResultFile", "file_names", "result_records", "results_json"]

_NUMBER = (int, float)


def result_records(
    found: Detections, info: DataInfo, image_id: int, file_name: str | None
) -> list[dict[str, Any]]:
    """The detections of an image as records, which lose no digit.

    Args:
        found: the detections.
        info: of the data that the model was trained on; gives the classes their numbers.
        image_id: number of the image.
        file_name: of the image; None leaves the key out.
    """
    assert info.objects is not None
    boxes, masks = coco_boxes(found.boxes), found.masks or (None,) * len(found)
    columns = zip(found.labels.tolist(), boxes, found.scores.tolist(), masks, strict=True)
    name = {} if file_name is None else {"file_name": file_name}
    return [
        {
            "image_id": image_id,
            **name,
            "category_id": info.objects.category_ids[label],
            "bbox": box,
            "score": score,
            **({} if mask is None else {"segmentation": mask.to_json()}),
        }
        for label, box, score, mask in columns
    ]


def results_json(records: Sequence[Mapping[str, Any]]) -> bytes:
    """The content of a file of records, one a line."""
    lines = (json.dumps(record, separators=(",", ":")) for record in records)
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def file_names(paths: Sequence[Path]) -> list[str]:
    """Names of image files for records: without folders, if all differ; else the whole paths."""
    names = [shown(path.name) for path in paths]
    if len(set(names)) < len(names):
        return [shown(path.as_posix()) for path in paths]
    return names


@dataclass(frozen=True, eq=False)
class ResultFile:
    """A file of records.

    Attributes:
        path: of the file.
        records: in its order.
    """

    path: Path
    records: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JSON file.

        Raises:
            DataError: it is missing, or does not hold a list of records.
        """
        try:
            content = json.loads(path.read_bytes())
        except OSError as error:
            raise DataError(f"{shown(path)} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{shown(path)} is no JSON file: {one_line(error)}") from error
        if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
            what = "does not hold predictions"
            if isinstance(content, dict) and "annotations" in content:
                what = "holds annotations, as data sets have them, and no predictions"
            raise DataError(
                f"{shown(path)} {what}; give a list of records with image_id, category_id, bbox "
                "and score (COCO's result format)"
            )
        return cls(path, content)

    @property
    def has_masks(self) -> bool:
        """Whether every record has a mask, and there is any."""
        return bool(self.records) and all("segmentation" in record for record in self.records)

    def detections(self, images: ObjectImages, info: DataInfo, *, masks: bool) -> list[Detections]:
        """The detections in each image of a split; no image is decoded.

        Records belong to the image with their ``file_name``, if all records have one and all images
        are files, else to that with their ``image_id``.

        Args:
            images: of the split.
            info: of the data; gives the numbers of the classes.
            masks: read the masks.

        Raises:
            DataError: a record is malformed, or does not fit the images.
        """
        places = _Places(self.path, images, self.records)
        truths = [images.target(position) for position in range(len(images))]
        reader = _Reader(self.path, info, masks=masks)
        rows: list[list[_Row]] = [[] for _ in truths]
        for number, record in enumerate(
            progress(self.records, "reading records", len(self.records)), 1
        ):
            place = places(number, record)
            rows[place].append(reader.row(number, record, truths[place]))
        return [
            _detections(own, truth, masks=masks) for own, truth in zip(rows, truths, strict=True)
        ]


class _Row(NamedTuple):
    box: tuple[float, float, float, float]  # x1, y1, x2, y2
    label: int
    score: float
    mask: Rle | None


def _detections(rows: list[_Row], truth: Objects, *, masks: bool) -> Detections:
    rows = sorted(rows, key=lambda row: -row.score)  # stable: as in the file where scores are equal
    return Detections(
        torch.tensor([row.box for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row.label for row in rows], dtype=torch.int64),
        torch.tensor([row.score for row in rows], dtype=torch.float32),
        truth.size,
        tuple(row.mask for row in rows if row.mask is not None) if masks else None,
    )


class _Places:
    """Positions of records in a split, by file name or by number."""

    def __init__(
        self, path: Path, images: ObjectImages, records: Sequence[Mapping[str, Any]]
    ) -> None:
        self.path, self.num_images = path, len(images)
        files = [images.file(position) for position in range(len(images))]
        parts = [file.parts for file in files if file is not None]
        named = len(parts) == len(files) and all("file_name" in record for record in records)
        self.key = "file_name" if named else "image_id"
        self.by_number: dict[float, list[int]] = {
            images.target(place).image_id: [place] for place in range(len(images))
        }
        self.by_path: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        self.by_end: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, own in enumerate(parts):
            self.by_path[own].append(place)
            for end in _ends(own):
                self.by_end[end].append(place)

    def __call__(self, number: int, record: Mapping[str, Any]) -> int:
        """The position of the image of a record."""
        where, value = f"record {number} of {shown(self.path)}", record.get(self.key)
        if value is None:
            raise DataError(f"{where} has no {self.key}")
        places = self._named(value) if self.key == "file_name" else self._numbered(value)
        if not places:
            raise DataError(
                f"{where} has the {self.key} {value!r}, which none of the {self.num_images:,} "
                "images of the split has; is the file of another split, or of other data?"
            )
        if len(places) > 1:
            raise DataError(
                f"{where} has the file_name {value!r}, which {len(places)} images of the split "
                "have; write the names with their folders"
            )
        return places[0]

    def _numbered(self, value: Any) -> Sequence[int]:
        return self.by_number.get(value, ()) if isinstance(value, _NUMBER) else ()

    def _named(self, value: Any) -> Sequence[int]:
        """The images of that path; it may begin with more folders than the data's, or with less."""
        if not isinstance(value, str):
            return ()
        parts = PurePosixPath(value.replace("\\", "/")).parts
        shorter = self.by_end.get(parts, ())
        longer = (self.by_path[end] for end in _ends(parts) if end in self.by_path)
        return shorter or next(longer, ())


def _ends(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """A path, and the same without its first folders, the longest first."""
    return [parts[first:] for first in range(len(parts))]


class _Reader:
    """Checks the values of records."""

    def __init__(self, path: Path, info: DataInfo, *, masks: bool) -> None:
        assert info.objects is not None
        self.path, self.masks = path, masks
        self.labels = {number: label for label, number in enumerate(info.objects.category_ids)}

    def row(self, number: int, record: Mapping[str, Any], truth: Objects) -> _Row:
        """One record.

        Args:
            number: of the record, from 1.
            record: the record.
            truth: the objects in its image.
        """
        try:
            mask = _mask(record, truth.size) if self.masks else None
            return _Row(_box(record, mask), self._label(record), _score(record), mask)
        except ValueError as error:
            raise DataError(f"record {number} of {shown(self.path)} {error}") from error

    def _label(self, record: Mapping[str, Any]) -> int:
        value = record.get("category_id")
        if not isinstance(value, _NUMBER) or value not in self.labels:
            known = first_few([str(number) for number in self.labels])
            raise ValueError(
                f"has the category_id {value!r}, which is no class of the data; they have {known}"
            )
        return self.labels[int(value)]


def _score(record: Mapping[str, Any]) -> float:
    value = record.get("score")
    if not isinstance(value, _NUMBER) or not 0 <= value <= 1:
        raise ValueError(f"has the score {value!r}; scores are numbers in 0..1")
    return float(value)


def _box(record: Mapping[str, Any], mask: Rle | None) -> tuple[float, float, float, float]:
    """The corners of a record's box; without one, those of its mask."""
    value: Any = record.get("bbox")
    if value is None and mask is not None:
        return tight_box(mask)
    numbers = isinstance(value, list) and all(isinstance(each, _NUMBER) for each in value)
    if not numbers or len(value) != 4 or not all(map(math.isfinite, value)):
        raise ValueError(f"has the bbox {value!r}; give four numbers: x, y, width, height")
    x, y, width, height = map(float, value)
    if width < 0 or height < 0:
        raise ValueError(
            f"has the bbox {value!r} of a negative size; it is x, y, width, height, not two corners"
        )
    return x, y, x + width, y + height


def _mask(record: Mapping[str, Any], size: tuple[int, int]) -> Rle:
    """The mask of a record, of an image of (height, width) pixels."""
    try:
        return read_segment(record.get("segmentation"), size)
    except SegmentError as error:
        if error.kind == "no_mask":
            raise ValueError("has no segmentation, which instance segmentation needs") from error
        if error.kind == "mask_size":
            raise ValueError(f"has a mask of {error}") from error
        raise ValueError(f"has a mask that does not decode: {error}") from error
