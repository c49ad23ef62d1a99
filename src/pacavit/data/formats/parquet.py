"""Labeled images in the parquet layout of the Hugging Face hub."""

from __future__ import annotations

import json
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pacavit.data.base import MemoryImages
from pacavit.errors import DataError
from pacavit.utils.progress import progress
from pacavit.utils.text import one_line, shown

if TYPE_CHECKING:
    from pyarrow import Schema, Table
    from pyarrow.parquet import ParquetFile

__all__ = [
    "IMAGE_COLUMNS",
    "ParquetRows",
    "count_images",
    "find_shards",
    "read_image_format",
    "read_images",
]

IMAGE_COLUMNS = ("img", "image")
"""Names of the column with images, as the Hugging Face hub stores them."""
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
_BATCH_ROWS = 1000
_OPEN_FILES = 16  # of each process
_KEPT_GROUPS = 2  # row groups that each process keeps; one of 1,000 photographs has 100 MB


def find_shards(folder: Path, split: str) -> list[Path]:
    """The files ``<split>-*.parquet`` of a folder, sorted; an empty list if there are none.

    Raises:
        DataError: there are fewer shards than the count in names ending in ``-of-<count>``.
    """
    shards = sorted(folder.glob(f"{split}-*.parquet"))
    if shards:
        promised = shards[0].stem.rpartition("-of-")[2]
        if promised.isdecimal() and int(promised) != len(shards):
            raise DataError(
                f"{folder} holds {len(shards)} of {int(promised)} files {split}-*.parquet; "
                "add the missing ones"
            )
    return shards


def count_images(shards: Sequence[Path]) -> int:
    """Total number of rows of all shards, from their metadata; DataError for a broken file."""
    num = 0
    for shard in shards:
        with _open(shard) as file:
            num += file.metadata.num_rows
    return num


def read_image_format(shard: Path) -> str:
    """How the first image of a shard is encoded, "JPEG" or "PNG"; DataError for any other."""
    for _, data, _ in _rows(shard, batch_rows=1):
        for magic, name in _MAGIC.items():
            if data.startswith(magic):
                return name
        raise DataError(f"{shard}: row 0 is neither a JPEG nor a PNG image")
    raise DataError(f"{shard} holds no images")


def read_images(shards: Sequence[Path], size: tuple[int, int], num_classes: int) -> MemoryImages:
    """Decode all images of some shards, in their order.

    The columns are ``img`` or ``image``, a struct with the encoded ``bytes``, and ``label``.

    Args:
        shards: parquet files.
        size: (height, width) that every image must have.
        num_classes: labels must lie in 0 .. num_classes - 1.

    Raises:
        DataError: a file is broken or has other columns, or an image or a label does not fit; one
            line with the file and the row.
    """
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    with warnings.catch_warnings():
        # Pillow warns of images that claim to be huge; here they have the wrong size anyway.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for shard in shards:
            rows = _rows(shard, _BATCH_ROWS)
            for row, data, label in progress(rows, f"reading {shard.name}", count_images([shard])):
                where = f"{shard}: row {row}"
                if not 0 <= label < num_classes:
                    raise DataError(f"{where} has label {label} outside 0..{num_classes - 1}")
                images.append(_decode(data, size, where))
                labels.append(label)
    if not images:
        raise DataError(f"{shards[0].parent} holds no images in its parquet files")
    return MemoryImages(torch.from_numpy(np.stack(images)), torch.tensor(labels))


class ParquetRows:
    """The rows of parquet files by position; a row group is read when one of its rows is needed.

    The last row groups are kept, so reading in order reads each of them once. Processes may share
    an instance.

    Args:
        files: one or more, with the same columns.

    Attributes:
        starts: (files + 1,) int64, the position of the first row of each file.

    Raises:
        DataError: a file is missing, broken or has other columns than the first.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files, self._process = tuple(files), os.getpid()
        self._opened: OrderedDict[int, ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int, str], Table] = OrderedDict()
        self._group_starts: list[NDArray[np.int64]] = []
        for number, file in enumerate(files):
            with _open(file) as opened:
                if number == 0:
                    self.schema: Schema = opened.schema_arrow
                elif not opened.schema_arrow.equals(self.schema):
                    raise DataError(
                        f"{shown(file)} has other columns than {shown(files[0])}: "
                        f"{', '.join(opened.schema_arrow.names)}"
                    )
                data = opened.metadata
                rows = [data.row_group(group).num_rows for group in range(data.num_row_groups)]
                self._group_starts.append(np.cumsum([0, *rows]))
        self.starts = np.cumsum([0, *(each[-1] for each in self._group_starts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": OrderedDict(), "_groups": OrderedDict()}

    def column(self, names: Sequence[str], wanted: str) -> str:
        """The first of some columns that the files have.

        Args:
            names: of columns.
            wanted: what the column is for, in the message.

        Raises:
            DataError: there is none of them.
        """
        found = next((name for name in names if name in self.schema.names), None)
        if found is None:
            raise DataError(
                f"{shown(self.files[0])} has no column of {wanted}; it has "
                f"{', '.join(self.schema.names) or 'none'}"
            )
        return found

    def features(self) -> dict[str, Any]:
        """What the Hugging Face hub's metadata say about each column; empty without them."""
        try:
            stored = json.loads((self.schema.metadata or {})[b"huggingface"])["info"]["features"]
        except (KeyError, TypeError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def all(self, column: str) -> list[Any]:
        """The values of a column in all rows, for columns of small values."""
        values: list[Any] = []
        for file in self.files:
            with _open(file) as opened:
                values += opened.read(columns=[column]).column(column).to_pylist()
        return values

    def place(self, position: int) -> tuple[Path, int]:
        """The file of a row, and its number in it."""
        number = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.files[number], position - int(self.starts[number])

    def value(self, position: int, column: str) -> Any:
        """The value of a column at a position, as a plain Python object.

        Raises:
            DataError: the file is broken, or was replaced by one with fewer rows.
        """
        number = int(np.searchsorted(self.starts, position, side="right")) - 1
        row, starts = position - int(self.starts[number]), self._group_starts[number]
        group = int(np.searchsorted(starts, row, side="right")) - 1
        table = self._group(number, group, column)
        try:
            return table.column(column)[row - int(starts[group])].as_py()
        except (IndexError, UnicodeDecodeError) as error:
            raise DataError(
                f"{shown(self.files[number])}: row {row} cannot be read: {one_line(error)}"
            ) from error

    def _group(self, number: int, group: int, column: str) -> Table:
        """One column of a row group of a file."""
        import pyarrow as pa

        self._reopen_in_workers()
        key = (number, group, column)
        if key not in self._groups:
            file = self.files[number]
            try:
                table = self._file(number).read_row_group(group, columns=[column])
            except (pa.ArrowException, OSError) as error:
                raise DataError(
                    f"{shown(file)}: row group {group} cannot be read: {_first_line(error)}"
                ) from error
            self._groups[key] = table
            while len(self._groups) > _KEPT_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _file(self, number: int) -> ParquetFile:
        import pyarrow.parquet as pq

        if number not in self._opened:
            self._opened[number] = pq.ParquetFile(self.files[number])
            while len(self._opened) > _OPEN_FILES:
                self._opened.popitem(last=False)[1].close()
        self._opened.move_to_end(number)
        return self._opened[number]

    def _reopen_in_workers(self) -> None:
        """Forget files that a parent process has opened: it reads with the same handles."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._opened, self._groups = OrderedDict(), OrderedDict()


def _decode(data: bytes, size: tuple[int, int], where: str) -> NDArray[np.uint8]:
    """Encoded image -> (3, height, width); faster than ``decode_image`` for many small images."""
    try:
        with Image.open(BytesIO(data), formats=tuple(_MAGIC.values())) as image:
            width, height = image.size
            if (height, width) == size:
                return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    # Pillow's decoders raise almost anything on broken input.
    except Exception as error:
        raise DataError(f"{where} holds a broken image: {one_line(error)}") from error
    raise DataError(f"{where} has {height} x {width} pixels, expected {size[0]} x {size[1]}")


def _rows(shard: Path, batch_rows: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield (row, encoded image, label) from a shard, with few rows in memory at a time."""
    row = 0
    with _open(shard) as file:
        column = _image_column(file, shard)
        for batch in file.iter_batches(batch_rows, columns=[column, "label"]):
            encoded = batch.column(column).field("bytes").to_pylist()
            for data, label in zip(encoded, batch.column("label").to_pylist(), strict=True):
                if data is None or label is None:
                    raise DataError(f"{shard}: row {row} has no embedded image or no label")
                yield row, data, label
                row += 1


@contextmanager
def _open(shard: Path) -> Iterator[ParquetFile]:
    """A parquet file; errors of the library while it is open become DataError."""
    # pyarrow is large, and most commands read no parquet file.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(shard) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = _first_line(error)
        raise DataError(f"{shard} is not a readable parquet file: {reason}") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _image_column(file: ParquetFile, shard: Path) -> str:
    import pyarrow as pa

    schema = file.schema_arrow
    for name in IMAGE_COLUMNS:
        if name in schema.names and "label" in schema.names:
            image, label = schema.field(name).type, schema.field("label").type
            embedded = (
                pa.types.is_struct(image)
                and image.get_field_index("bytes") >= 0
                and pa.types.is_binary(image.field("bytes").type)
            )
            if embedded and pa.types.is_integer(label):
                return name
    raise DataError(
        f"{shard} must have a column img or image with fields bytes and path, and an integer "
        f"column label; it has {', '.join(schema.names)}"
    )
