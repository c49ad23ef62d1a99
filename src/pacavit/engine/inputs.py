"""Images to predict, by position: files, lists of files, and rows of parquet files.

Millions of them take little memory: paths are kept as bytes, and rows are read when needed.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pacavit.data.formats.parquet import IMAGE_COLUMNS, ParquetRows
from pacavit.data.formats.walk import Skipped, list_folder
from pacavit.errors import DataError
from pacavit.utils.files import open_regular
from pacavit.utils.text import shown

__all__ = ["ImageInput", "Input", "Inputs", "find_inputs"]

ImageInput: TypeAlias = "str | Path | bytes | NDArray[Any] | Image.Image | Tensor"
"""Path, bytes of a file, uint8 array (H, W) or (H, W, 3), PIL image, or uint8 tensor (3, H, W)."""

_LISTS = (".txt", ".lst")
_PATH_COLUMNS = ("path", "file", "filename", "file_name")
_CHUNK = 2**24  # bytes of a list that are searched for line ends at once


class Input(NamedTuple):
    """One image to predict.

    Attributes:
        name: the path; for an image without one, a name with its position.
        image: the image; no bytes if there is an error.
        error: why there is no image, in one line.
    """

    name: Path
    image: ImageInput
    error: str | None = None


class Inputs(ABC):
    """Images to predict, in a fixed order; several processes may read them."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, position: int) -> Input:
        """The image at a position, not decoded."""

    @abstractmethod
    def digest(self) -> str:
        """Differs if the images are others, or in another order, as far as their names tell."""


class _Given(Inputs):
    """Images that the caller holds in memory.

    Args:
        images: of any kind.
        start: number of the first one, which images without a path are named by.
    """

    def __init__(self, images: Sequence[ImageInput], start: int) -> None:
        self.images, self.start = images, start

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Input:
        image = self.images[position]
        if isinstance(image, str | Path):
            return Input(Path(image), image)
        return Input(Path(f"image {self.start + position}"), image)

    def digest(self) -> str:
        names = b"\0".join(os.fsencode(self[position].name) for position in range(len(self)))
        return hashlib.blake2b(names, digest_size=8).hexdigest()


class _Lines(Inputs):
    """Paths of image files, one a line.

    Args:
        text: (num_bytes,) uint8, the lines.
        folder: that the paths are relative to.

    Raises:
        DataError: there are no lines.
    """

    def __init__(self, text: NDArray[np.uint8], folder: Path) -> None:
        self.text, self.folder = text, folder
        ends = [
            np.flatnonzero(text[start : start + _CHUNK] == ord("\n")) + start
            for start in range(0, len(text), _CHUNK)
        ]
        stops = np.concatenate([*ends, np.array([len(text)])])
        starts = np.concatenate([np.array([0]), stops[:-1] + 1])
        filled = stops > starts
        returns = filled.copy()  # lines that end as on Windows
        returns[filled] = text[stops[filled] - 1] == ord("\r")
        stops = stops - returns
        self.starts, self.stops = starts[stops > starts], stops[stops > starts]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, position: int) -> Input:
        line = self.text[self.starts[position] : self.stops[position]].tobytes()
        path = self.folder / os.fsdecode(line)
        if b"\0" in line:
            return Input(path, b"", f"{shown(path)} is no path of a file")
        return Input(path, path)

    def digest(self) -> str:
        digest = hashlib.blake2b(os.fsencode(self.folder), digest_size=8)
        for start in range(0, len(self.text), _CHUNK):
            digest.update(self.text[start : start + _CHUNK].tobytes())
        return digest.hexdigest()


class _ParquetImages(Inputs):
    """The images of a parquet file, or the files that it names.

    The column ``image`` or ``img`` is a struct with the encoded ``bytes`` and their ``path``, as
    the Hugging Face hub stores images, or holds the encoded bytes themselves, or paths; or there is
    a column of paths named ``path``, ``file``, ``filename`` or ``file_name``. Paths start from the
    folder of the file.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows = ParquetRows([file])
        self.column = self.rows.column(
            (*IMAGE_COLUMNS, *_PATH_COLUMNS),
            "images: image or img with encoded bytes, as the Hugging Face hub stores images, or "
            "path with the paths of files",
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Input:
        where = Path(f"{self.file}:{position}")
        try:
            value = self.rows.value(position, self.column)
        except DataError as error:
            return Input(where, b"", str(error))
        data, path = value, None
        if isinstance(value, dict):
            data, path = value.get("bytes"), value.get("path")
        elif isinstance(value, str):
            data, path = None, value
        name = where if path is None else Path(path)
        if data is not None:
            return Input(name, data)
        if path is not None:
            return Input(self.file.parent / path, self.file.parent / path)
        return Input(where, b"", f"{shown(self.file)}: row {position} has no image")

    def digest(self) -> str:
        return f"{self.file.stat().st_size}-{len(self)}-{self.column}"


class _Together(Inputs):
    """Several inputs, one behind the other."""

    def __init__(self, parts: Sequence[Inputs]) -> None:
        self.parts = parts
        self.ends = [*accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, position: int) -> Input:
        number = int(np.searchsorted(self.ends, position, side="right"))
        return self.parts[number][position - (self.ends[number - 1] if number else 0)]

    def digest(self) -> str:
        return " ".join(part.digest() for part in self.parts)


def find_inputs(images: ImageInput | Iterable[ImageInput]) -> tuple[Inputs, Skipped]:
    """The images to predict, with the images in folders, lists and parquet files instead of these.

    Args:
        images: one or several: paths of images, of folders of them, of parquet files
            (``.parquet``), or of lists of paths, one a line (``.txt`` or ``.lst``), which start
            from the folder of the list; or images of any kind.

    Returns:
        The images, and what was skipped in the folders.

    Raises:
        DataError: a folder or a list has no images, or a file cannot be read.
    """
    if isinstance(images, str | Path | bytes | np.ndarray | Image.Image | Tensor):
        images = [images]
    parts: list[Inputs] = []
    few: list[ImageInput] = []
    skipped, count = Skipped(), 0

    def add(part: Inputs) -> None:
        nonlocal few, count
        for each in (_Given(few, count), part):
            if len(each):
                parts.append(each)
                count += len(each)
        few = []

    for image in images:
        path = Path(image) if isinstance(image, str | Path) else None
        if path is None:
            few.append(image)
        elif path.is_dir():
            add(_in_folder(path, skipped))
        elif path.suffix.lower() == ".parquet":
            add(_ParquetImages(path))
        elif path.suffix.lower() in _LISTS:
            add(_read_list(path))
        else:
            few.append(path)
    add(_Given([], count))
    return (parts[0] if len(parts) == 1 else _Together(parts)), skipped


def _in_folder(folder: Path, skipped: Skipped) -> Inputs:
    names = list_folder(folder, skipped)
    if any(b"\n" in name for name in names):
        return _Given([folder / os.fsdecode(name) for name in names], 0)  # no lines of a list
    return _Lines(np.frombuffer(b"\n".join(names), np.uint8), folder)


def _read_list(file: Path) -> Inputs:
    try:
        open_regular(file).close()
        # Pages of the file that are not in use need no memory.
        text = np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)
    except FileNotFoundError:
        raise DataError(f"there is no list of images {shown(file)}") from None
    except OSError as error:
        raise DataError(f"cannot read {shown(file)}: {error.strerror or error}") from error
    lines = _Lines(text, file.parent)
    if not len(lines):
        raise DataError(f"{shown(file)} names no images; write one path a line")
    return lines
