"""CIFAR-10: 60,000 color images of 32 x 32 pixels, 10 classes.

Source: A. Krizhevsky: "Learning Multiple Layers of Features from Tiny Images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import download_url

from pacavit.data.base import DATASETS, DataInfo, DataSource, MemoryImages, Split
from pacavit.data.formats.parquet import count_images, find_shards, read_image_format, read_images
from pacavit.data.formats.pickled_arrays import load_pickled_arrays
from pacavit.data.splits import hold_out_validation
from pacavit.errors import DataError

__all__ = ["Cifar10"]

_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_SIZE = (32, 32)
_INFO = DataInfo(
    name="cifar10",
    version="CIFAR-10",
    class_names=_CLASSES,
    image_size=_SIZE,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
_ARCHIVE = "cifar-10-python.tar.gz"
_BATCHES = "cifar-10-batches-py"
_FILES = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
_OFFICIAL = {"train": 50_000, "test": 10_000}
_PARQUET_NAMES = {"JPEG": "CIFAR-10 (JPEG copy)", "PNG": "CIFAR-10 (PNG parquet)"}
# The official batches have 31 MB each; more is a foreign file or a decompression bomb.
_MAX_BATCH_BYTES = 64 * 2**20
_LAYOUTS = f"train-*.parquet and test-*.parquet, {_BATCHES}/ or {_ARCHIVE}"


class _Copy(NamedTuple):
    """One copy of the data on disk: its name, and how to count and read "train" or "test"."""

    name: str
    count: Callable[[str], int]
    read: Callable[[str], MemoryImages]


@DATASETS.register("cifar10")
class Cifar10(DataSource):
    """CIFAR-10 from any of its public layouts.

    Args:
        root: folder with the parquet files of the Hugging Face hub (also in plain_text/), with the
            folder of the official python batches, or with their archive; or that folder or archive
            itself. None takes pacavit/cifar10 in the user's cache folder, and downloads the
            official archive if it is empty.
        val_size: images of the official training set that are held out for validation.

    Raises:
        DataError: nothing usable is there, a file is broken or unsafe, or ``val_size`` does not
            fit. ``info`` and ``load`` raise it, not the constructor.
    """

    default_val_size: ClassVar[int] = 5000

    def __init__(self, root: Path | None = None, *, val_size: int | None = None) -> None:
        super().__init__(root, val_size=val_size)
        self._found: _Copy | None = None
        self._splits: dict[Split, MemoryImages] = {}

    @property
    def info(self) -> DataInfo:
        """Facts about the data; mean and std are those of the official 50,000 training images.

        Scores on a part of the images must not be mistaken for scores on CIFAR-10, so ``version``
        states a number of images that differs. The official batches are read to count them.
        """
        counts = {split: self._copy.count(split) for split in _OFFICIAL}
        other = [
            f"{counts[split]:,} instead of {official:,} {split} images"
            for split, official in _OFFICIAL.items()
            if counts[split] != official
        ]
        copy = self._copy.name + (f" with {' and '.join(other)}" if other else "")
        return replace(_INFO, version=copy)

    @property
    def expected_info(self) -> DataInfo:
        """Facts about the official images; accesses no files."""
        return _INFO

    def load(self, split: Split) -> MemoryImages:
        """The images of one split, (num, 3, 32, 32) uint8; decoded once and kept."""
        if split == "val" and self.val_size == 0:
            raise DataError(
                "cifar10 has no validation images because data.val_size is 0; hold some out"
            )
        if split not in self._splits:
            if split == "test":
                self._splits["test"] = self._copy.read("test")
            else:
                full = self._copy.read("train")
                parts = hold_out_validation(full, self.val_size)
                self._splits["train"], self._splits["val"] = parts
        return self._splits[split]

    @property
    def _copy(self) -> _Copy:
        if self._found is None:
            if self.root is not None:
                self._found = _find_copy(self.root)
            else:
                folder = _cache_folder()
                if not folder.is_dir() or not any(folder.iterdir()):
                    _download(folder)
                self._found = _find_copy(folder)
        return self._found


def _find_copy(root: Path) -> _Copy:
    """Recognize the layout of a folder or archive."""
    if not root.exists():
        raise DataError(f"there is no data folder {root}; it should hold {_LAYOUTS}")
    if root.is_file():
        if root.name.endswith((".tar.gz", ".tgz")):
            return _archive_copy(root)
        raise DataError(f"{root} is a file; give the folder that holds {_LAYOUTS}")
    for folder in (root, root / "plain_text"):
        shards = {split: find_shards(folder, split) for split in _FILES}
        if all(shards.values()):
            name = _PARQUET_NAMES[read_image_format(shards["test"][0])]
            return _Copy(name, partial(_count_parquet, shards), partial(_read_parquet, shards))
    for folder in (root, root / _BATCHES):
        if (folder / _FILES["test"][0]).is_file():
            return _official_copy(partial(_read_folder, folder))
    if (root / _ARCHIVE).is_file():
        return _archive_copy(root / _ARCHIVE)
    raise DataError(f"{root} holds no CIFAR-10; it should hold {_LAYOUTS}")


def _archive_copy(archive: Path) -> _Copy:
    return _official_copy(partial(_read_archive, archive))


def _official_copy(read: Callable[[str], MemoryImages]) -> _Copy:
    kept = cache(read)
    return _Copy("CIFAR-10", lambda split: len(kept(split)), kept)


def _count_parquet(shards: dict[str, list[Path]], split: str) -> int:
    return count_images(shards[split])


def _read_parquet(shards: dict[str, list[Path]], split: str) -> MemoryImages:
    return read_images(shards[split], _SIZE, len(_CLASSES))


def _read_folder(folder: Path, split: str) -> MemoryImages:
    batches = []
    for name in _FILES[split]:
        path = folder / name
        try:
            _check_size(path.stat().st_size, str(path))
            batches.append((str(path), path.read_bytes()))
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
    return _read_batches(batches)


def _read_archive(archive: Path, split: str) -> MemoryImages:
    """Read the batches of a split from the archive into memory; nothing is extracted to disk."""
    wanted = {f"{_BATCHES}/{name}": f"{archive}: {name}" for name in _FILES[split]}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                _check_member(member, archive)
                if member.name in wanted and (file := tar.extractfile(member)) is not None:
                    found[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{archive} is not a readable tar.gz archive: {error}") from error
    if missing := [name for name in wanted if name not in found]:
        raise DataError(f"{archive} lacks {', '.join(missing)}")
    return _read_batches((label, found[name]) for name, label in wanted.items())


def _check_member(member: tarfile.TarInfo, archive: Path) -> None:
    parts = member.name.split("/")
    if member.name.startswith("/") or "\\" in member.name or ".." in parts:
        raise DataError(f"{archive} is unsafe: {member.name!r} points outside of it")
    if not (member.isfile() or member.isdir()):
        raise DataError(f"{archive} is unsafe: {member.name!r} is a link or a device")
    _check_size(member.size, f"{archive}: {member.name}")


def _check_size(size: int, name: str) -> None:
    if size > _MAX_BATCH_BYTES:
        raise DataError(f"{name} is no batch of CIFAR-10: it has {size:,} bytes instead of 31 MB")


def _read_batches(batches: Iterable[tuple[str, bytes]]) -> MemoryImages:
    """Pairs (name for messages, pickle) of official batches, in order -> images and labels."""
    images, labels = [], []
    for name, data in batches:
        batch = load_pickled_arrays(data, name)
        pixels, numbers = batch.get("data"), batch.get("labels")
        if not (isinstance(pixels, np.ndarray) and isinstance(numbers, list)):
            raise DataError(f"{name} lacks an array 'data' or a list 'labels'")
        if pixels.shape != (len(numbers), 3 * _SIZE[0] * _SIZE[1]):
            raise DataError(f"{name} has pixels of shape {pixels.shape} for {len(numbers)} labels")
        for row, label in enumerate(numbers):
            if not isinstance(label, int) or not 0 <= label < len(_CLASSES):
                raise DataError(f"{name}: row {row} has label {label!r} outside 0..9")
        images.append(pixels.reshape(-1, 3, *_SIZE))
        labels.extend(numbers)
    return MemoryImages(torch.from_numpy(np.concatenate(images)), torch.tensor(labels))


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "pacavit" / "cifar10"


def _download(folder: Path) -> None:
    """Download the official archive into a folder, and check it against torchvision's MD5 sum."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # An interrupted download must not look like an archive the next time.
        with tempfile.TemporaryDirectory(dir=folder.parent) as download:
            download_url(CIFAR10.url, download, _ARCHIVE, CIFAR10.tgz_md5)
            (Path(download) / _ARCHIVE).replace(folder / _ARCHIVE)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"CIFAR-10 is not in {folder} and could not be downloaded ({reason}); put {_LAYOUTS} "
            "there, or name the folder that has them with --data"
        ) from error
