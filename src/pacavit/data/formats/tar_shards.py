"""Tar files of images and labels, as WebDataset writes them, with the place of each image.

The files of a sample follow each other and have one name up to the first dot: ``n01/17.jpg``,
``n01/17.cls``. A scan of the headers finds them; its result is stored beside the shards.
"""

from __future__ import annotations

import os
import tarfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacavit.data.formats.walk import is_image
from pacavit.data.workers import available_cores, map_in_workers
from pacavit.errors import DataError, ReadError
from pacavit.utils.files import replace_file
from pacavit.utils.parsing import parse_json, read_json
from pacavit.utils.progress import progress
from pacavit.utils.text import one_line, shown

__all__ = ["INDEX", "TarIndex", "TarRows", "check_shard_list", "read_tar_index"]

INDEX = "pacavit-index.npz"
_KIND = "wids-shard-index-v1"
_NO_LABEL = -1
_MAX_LABEL_BYTES = 2**20
_BLOCK = 512  # bytes; the last ones of a tar file are 0
_OPEN_FILES = 64  # of each process


class TarIndex(NamedTuple):
    """Where the images of some shards are, in order.

    Attributes:
        keys: (num,) bytes, name of the sample within its shard.
        shards: (num,) int64, position of the shard.
        offsets: (num,) int64, first byte of the image in the shard.
        sizes: (num,) int64, bytes of the image.
        labels: (num,) int64; -1 for none.
    """

    keys: NDArray[np.bytes_]
    shards: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass
class _Sample:
    """The members of a sample: their places, and the contents of those with labels."""

    key: str
    image: tuple[int, int] | None = None
    label: int | None = None
    seen: list[str] = field(default_factory=list)


class TarRows:
    """The images of tar files by position.

    Args:
        files: the shards.
        index: of them.
    """

    def __init__(self, files: Sequence[Path], index: TarIndex) -> None:
        self.files, self.index = tuple(files), index
        self._opened: OrderedDict[int, _OpenShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": OrderedDict()}

    def encoded(self, row: int) -> bytes:
        """The bytes of an image file.

        Raises:
            ReadError: the system failed to read them.
            DataError: the shard is missing, or shorter than it was.
        """
        number, size = int(self.index.shards[row]), int(self.index.sizes[row])
        try:
            data = self._shard(number).read(int(self.index.offsets[row]), size)
        except FileNotFoundError:
            raise DataError(f"{self.location(row)}: there is no such shard") from None
        except OSError as error:
            raise ReadError(f"cannot read {self.location(row)}: {one_line(error)}") from error
        if len(data) < size:
            raise DataError(f"{self.location(row)}: the shard ends before the image does")
        return data

    def location(self, row: int) -> str:
        """Shard and name of the sample."""
        key = os.fsdecode(bytes(self.index.keys[row]))
        return f"{shown(self.files[int(self.index.shards[row])])}: {shown(key)}"

    def _shard(self, number: int) -> _OpenShard:
        if number not in self._opened:
            self._opened[number] = _OpenShard(self.files[number])
            while len(self._opened) > _OPEN_FILES:
                self._opened.popitem(last=False)
        self._opened.move_to_end(number)
        return self._opened[number]


class _OpenShard:
    """A file that is read at any place, by forked processes too, and closed with its last use."""

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if hasattr(self, "handle"):  # it could be opened
            os.close(self.handle)

    def read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self.handle, size, offset)
        os.lseek(self.handle, offset, os.SEEK_SET)
        return os.read(self.handle, size)


def read_tar_index(files: Sequence[Path]) -> tuple[TarIndex, str | None]:
    """The index of some shards: the stored one, or a new one, which is stored beside them.

    Args:
        files: the shards, in one folder.

    Returns:
        The index, and a line if it cannot be stored.

    Raises:
        DataError: a shard is broken, or a sample has no image or a label that is no number.
    """
    store = files[0].parent / INDEX
    stamps = _stamps(files)
    stored = _load(store, stamps)
    if stored is not None:
        return stored, None
    workers = 0 if len(files) == 1 else available_cores()
    found = map_in_workers(_scan, list(files), num_workers=workers)
    parts = [*progress(found, "finding the images in shards", len(files))]
    index = TarIndex(
        np.array([sample.key.encode("utf-8", "surrogateescape") for p in parts for sample in p]),
        np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        *np.array([_place(sample) for p in parts for sample in p], np.int64).reshape(-1, 3).T,
    )
    if not len(index.keys):
        raise DataError(f"{shown(files[0].parent)} has no images in its tar files")
    stream = BytesIO()
    arrays: dict[str, Any] = {**index._asdict(), "stamps": stamps}
    np.savez(stream, allow_pickle=False, **arrays)
    try:
        replace_file(store, stream.getvalue())
    except OSError as error:
        reason = error.strerror or error
        return index, f"{shown(store)} cannot be written, and is made anew in each run: {reason}"
    return index, None


def check_shard_list(folder: Path, files: Sequence[Path], index: TarIndex) -> None:
    """Compare shards with the lists of ``widsindex`` in their folder, ``*.json``, if there are any.

    Raises:
        DataError: a listed shard is missing, or has another number of samples.
    """
    counts = dict(zip((file.name for file in files), np.bincount(index.shards), strict=False))
    for file in sorted(folder.glob("*.json")):
        try:
            content = read_json(file)
        except (OSError, ValueError):
            continue  # not a list of shards
        if not isinstance(content, Mapping) or content.get("__kind__") != _KIND:
            continue
        for entry in content.get("shardlist", []):
            name, number = str(entry.get("url")).rpartition("/")[2], entry.get("nsamples")
            if name not in counts:
                raise DataError(f"{shown(file)} lists {name}, which is missing; add it")
            if number != counts[name]:
                raise DataError(
                    f"{shown(folder / name)} has {counts[name]:,} samples, and {shown(file)} lists "
                    f"{number}; fetch the shard again"
                )


def _place(sample: _Sample) -> tuple[int, int, int]:
    assert sample.image is not None
    return (*sample.image, _NO_LABEL if sample.label is None else sample.label)


def _stamps(files: Sequence[Path]) -> NDArray[np.str_]:
    """Name, size and time of each shard: an index of other ones is not used."""
    found = ((file.name, file.stat()) for file in files)
    return np.array([f"{shown(name)} {stat.st_size} {stat.st_mtime_ns}" for name, stat in found])


def _load(store: Path, stamps: NDArray[np.str_]) -> TarIndex | None:
    """A stored index; None if there is none, or it is of other shards."""
    try:
        with np.load(store, allow_pickle=False) as stored:
            if not np.array_equal(stored["stamps"], stamps):
                return None
            return TarIndex(*(stored[name] for name in TarIndex._fields))
    except (OSError, ValueError, KeyError, EOFError, tarfile.TarError):
        return None


def _scan(file: Path) -> list[_Sample]:
    """The samples of a shard, in its order."""
    samples: list[_Sample] = []
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                stem, _, kind = base.partition(".")
                if not member.isfile() or not stem:
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if not samples or samples[-1].key != key:
                    samples.append(_Sample(key))
                _add(samples[-1], tar, member, kind.lower(), file)
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - _BLOCK))
            if stream.read().strip(b"\0"):
                raise DataError(f"{shown(file)} has no end, so it was cut off; fetch it again")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{shown(file)} is not a readable tar file, which must not be compressed: "
            f"{one_line(error)}"
        ) from error
    labeled = [sample for sample in samples if sample.label is not None]
    for sample in labeled:
        if sample.image is None:
            raise DataError(f"{shown(file)}: {shown(sample.key)} has a label and no image")
    images = [sample for sample in samples if sample.image is not None]
    unlabeled = next((sample for sample in images if sample.label is None), None)
    if labeled and unlabeled is not None:
        raise DataError(
            f"{shown(file)}: {shown(unlabeled.key)} has no label, a file .cls with a number or "
            '.json with "label"'
        )
    return images


def _add(
    sample: _Sample, tar: tarfile.TarFile, member: tarfile.TarInfo, kind: str, file: Path
) -> None:
    where = f"{shown(file)}: {shown(member.name)}"
    if kind in sample.seen:
        raise DataError(f"{where} is there twice; keep one")
    sample.seen.append(kind)
    if is_image(f"x.{kind}"):
        sample.image = member.offset_data, member.size
        return
    if kind not in ("cls", "json"):
        return
    stream = tar.extractfile(member)
    assert stream is not None
    text = stream.read(_MAX_LABEL_BYTES)
    if kind == "cls":
        sample.label = _label(text.decode("ascii", "replace").strip(), where)
        return
    try:
        content = parse_json(text)
    except ValueError:
        raise DataError(f"{where} is not JSON") from None
    if sample.label is None and isinstance(content, Mapping) and "label" in content:
        sample.label = _label(str(content["label"]), where)


def _label(text: str, where: str) -> int:
    if not text.lstrip("-").isdecimal() or len(text) > 9:
        raise DataError(f"{where} holds {text[:40]!r}, not the number of a class")
    return int(text)
