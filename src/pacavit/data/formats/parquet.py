"""Labeled images in the parquet layout of the Hugging Face hub."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pacavit.data.base import MemoryImages
from pacavit.errors import DataError
from pacavit.utils.progress import progress
from pacavit.utils.text import one_line

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

__all__ = ["count_images", "find_shards", "read_image_format", "read_images"]

_IMAGE_COLUMNS = ("img", "image")
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
_BATCH_ROWS = 1000


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
        reason = str(error).partition("\n")[0]
        raise DataError(f"{shard} is not a readable parquet file: {reason}") from error


def _image_column(file: ParquetFile, shard: Path) -> str:
    import pyarrow as pa

    schema = file.schema_arrow
    for name in _IMAGE_COLUMNS:
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
