"""Images that are in two splits of a data set: exact copies and near-duplicates.

Near-duplicates (resized, recompressed, brighter or darker) are found by a perceptual hash, the
difference hash: one bit for each of 8 x 8 steps of brightness (N. Krawetz, "Kind of like that",
2013). The correlation of thumbnails confirms them, because images with little content have similar
hashes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data.base import SPLITS, ImageSet, LabeledImages, Split
from pacavit.data.formats.shards import ShardImages
from pacavit.data.workers import available_cores, map_in_workers
from pacavit.errors import DataError
from pacavit.utils.progress import progress
from pacavit.utils.text import first_few, shown

__all__ = ["Duplicate", "describe_duplicates", "duplicates_csv", "find_duplicates"]

_MAX_BITS = 10  # of 64 in which the hashes of near-duplicates differ
# 1 - correlation of near-duplicates, as a fraction of its mean over random pairs: where all images
# look alike, as digits do, they have to be more similar. On CIFAR-10 it finds 98 % of copies saved
# as JPEG of quality 40 or scaled to 20 x 20 and back, and reports hardly any wrong pair.
_MAX_DISTANCE = 0.02
_RANDOM_PAIRS = 4096
_THUMBNAIL = 8
_CANDIDATES = 4  # images with the nearest hashes whose thumbnails are compared
_TAIL = 4096  # bytes at the end of a file, where more files differ than at the beginning
_BATCH = 1024
_ROWS = 128

Place: TypeAlias = tuple[Split, int]
"""A split and a position in it."""


class Duplicate(NamedTuple):
    """An image that is also in an earlier split.

    Attributes:
        split: of the image, "val" or "test".
        image: its path, or its position in the split.
        other_split: "train" or "val".
        other_image: path or position of the other image.
        exact: the files are equal, or the pixels of images without files.
    """

    split: Split
    image: str
    other_split: Split
    other_image: str
    exact: bool


@dataclass(frozen=True)
class _Looks:
    """What the images of a split look like.

    Attributes:
        positions: (num,) of the images that can be decoded.
        hashes: (num,) uint64.
        thumbnails: (num, 3 * 8 * 8) float32, of mean 0 and length 1: products are correlations.
    """

    positions: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.float32]


def find_duplicates(
    splits: Mapping[Split, ImageSet], files: Mapping[Split, ImageSet]
) -> list[Duplicate]:
    """The images of each split that are in an earlier split too, exact copies first.

    Each image is listed once, with one of its copies. Images in memory are not read again; of
    images in files, those that differ in size or at their end are not read as a whole to find exact
    copies, but all are decoded to find near-duplicates.

    Args:
        splits: images by split.
        files: the same images as files, also those of splits that are not in ``splits``; empty for
            a data set without files.
    """
    names = [split for split in SPLITS if split in (files or splits)]

    def duplicate(place: Place, other: Place, *, exact: bool) -> Duplicate:
        texts = [shown((files or splits)[split].location(at)) for split, at in (place, other)]
        return Duplicate(place[0], texts[0], other[0], texts[1], exact)

    pairs = list(_exact_pairs(names, splits, files))
    exact = [duplicate(place, other, exact=True) for place, other in pairs]
    done = {place for place, _ in pairs}
    looks = {split: _looks(split, splits, files) for split in names}
    near = []
    for number, split in enumerate(names):
        for other in names[:number]:
            for position, match in _near_pairs(looks[split], looks[other]):
                if (split, position) not in done:
                    done.add((split, position))
                    near.append(duplicate((split, position), (other, match), exact=False))
    return exact + near


def describe_duplicates(duplicates: Sequence[Duplicate], root: Path | None) -> str:
    """The first few duplicates, and the number of the others, on one line; paths within a root."""
    prefix = "" if root is None else f"{shown(root)}{os.sep}"
    return first_few(
        [
            f"{found.image.removeprefix(prefix)} ({found.split}) "
            f"{'equals' if found.exact else 'resembles'} "
            f"{found.other_image.removeprefix(prefix)} ({found.other_split})"
            for found in duplicates
        ]
    )


def duplicates_csv(duplicates: Sequence[Duplicate]) -> str:
    """All duplicates as the text of a CSV file with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Duplicate._fields)
    writer.writerows(duplicates)
    return text.getvalue()


def _exact_pairs(
    names: Sequence[Split], splits: Mapping[Split, ImageSet], files: Mapping[Split, ImageSet]
) -> Iterator[tuple[Place, Place]]:
    """Each image that is in an earlier split, and the first of its copies there."""
    if files:
        places = [(split, at) for split in names for at in range(len(files[split]))]
        groups = [places]
        packed = all(isinstance(images, ShardImages) for images in files.values())
        for key in (_packed_digest,) if packed else (_size, _tail_digest, _digest):
            groups = _divided(groups, key, files)
    else:
        digests: dict[bytes, list[Place]] = defaultdict(list)
        for split in names:
            for position, pixels in _pixels(split, splits[split]):
                digests[hashlib.blake2b(pixels, digest_size=16).digest()].append((split, position))
        groups = [group for group in digests.values() if _in_several(group)]
    for group in groups:
        for place in group:
            if place[0] != group[0][0]:
                yield place, group[0]


def _divided(
    groups: Sequence[Sequence[Place]],
    key: Callable[[ImageSet, int], object],
    files: Mapping[Split, ImageSet],
) -> list[list[Place]]:
    """Divide groups of files by a key; those with files in several splits."""
    divided: dict[object, list[Place]] = defaultdict(list)
    places = [(number, place) for number, group in enumerate(groups) for place in group]
    for number, (split, position) in progress(places, "looking for equal files", len(places)):
        try:
            found = key(files[split], position)
        except (OSError, DataError):
            continue  # missing or unreadable files are reported when they are decoded
        divided[number, found].append((split, position))
    return [group for group in divided.values() if _in_several(group)]


def _in_several(group: Sequence[Place]) -> bool:
    return len({split for split, _ in group}) > 1


def _size(images: ImageSet, position: int) -> int:
    return Path(images.location(position)).stat().st_size


def _tail_digest(images: ImageSet, position: int) -> bytes:
    with Path(images.location(position)).open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        return hashlib.blake2b(file.read(), digest_size=16).digest()


def _digest(images: ImageSet, position: int) -> bytes:
    with Path(images.location(position)).open("rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).digest()


def _packed_digest(images: ImageSet, position: int) -> bytes:
    assert isinstance(images, ShardImages)
    return hashlib.blake2b(images.encoded(position), digest_size=16).digest()


def _pixels(split: Split, images: ImageSet) -> Iterator[tuple[int, bytes]]:
    """Position and raw pixels of every image; images of a set may differ in size."""
    for batch in _batches(split, images):
        for position, image in zip(batch.positions, batch.images, strict=True):
            yield position, np.array(image.shape).tobytes() + image.cpu().numpy().tobytes()


def _image(images: ImageSet, position: int) -> Tensor:
    """One image (1, 3, height, width), as sets with labels fit it to one size."""
    if isinstance(images, LabeledImages):
        return images.batch(torch.tensor([position]))[0]
    return images.image(position)[None]


class _Images(NamedTuple):
    """Some images: (B, 3, height, width) uint8, and their positions."""

    positions: list[int]
    images: Tensor


def _batches(split: Split, images: ImageSet) -> Iterator[_Images]:
    if isinstance(images, LabeledImages):
        for indices in torch.arange(len(images), device=images.device).split(_BATCH):
            yield _Images(indices.tolist(), images.batch(indices)[0])
        return
    for position in progress(range(len(images)), _what(split), len(images)):
        yield _Images([position], images.image(position)[None])


def _what(split: Split) -> str:
    return f"looking for duplicates: {split} images"


def _looks(
    split: Split, splits: Mapping[Split, ImageSet], files: Mapping[Split, ImageSet]
) -> _Looks:
    """The hashes and thumbnails of a split."""
    images = splits.get(split)
    if images is None or images.in_files:
        return _looks_of_files(split, files[split])
    found = [_Look(*_look(batch.images)) for batch in _batches(split, images)]
    hashes = np.concatenate([look.hashes for look in found])
    positions = np.arange(len(hashes))
    if split in files and images.broken:
        # The images in memory are the files without the broken ones.
        listed = files[split]
        usable = [at for at in range(len(listed)) if listed.location(at) not in images.broken]
        positions = np.array(usable)
    return _Looks(positions, hashes, np.concatenate([look.thumbnails for look in found]))


def _looks_of_files(split: Split, files: ImageSet) -> _Looks:
    num = len(files)
    read = map_in_workers(_FileLook(files), range(num), num_workers=available_cores())
    positions, hashes, thumbnails = [], [], []
    for position, look in enumerate(progress(read, _what(split), num)):
        if look is not None:
            positions.append(position)
            hashes.append(look.hashes)
            thumbnails.append(look.thumbnails)
    if not positions:  # left to who reads the images
        return _Looks(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty((0, 1), np.float32))
    return _Looks(np.array(positions), np.concatenate(hashes), np.concatenate(thumbnails))


class _Look(NamedTuple):
    """Hashes (B,) and thumbnails (B, 3 * 8 * 8)."""

    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.float32]


class _FileLook:
    """The look of a file, None if it is broken; runs inside workers."""

    def __init__(self, files: ImageSet) -> None:
        self.files = files

    def __call__(self, position: int) -> _Look | None:
        try:
            return _look(_image(self.files, position))
        except DataError:
            return None


def _look(images: Tensor) -> _Look:
    """(B, 3, height, width) uint8 -> hashes and thumbnails."""
    pixels = images.float()
    gray = (pixels * pixels.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    small = F.adaptive_avg_pool2d(gray, (8, 9))[:, 0].cpu().numpy()
    bits = np.packbits(small[:, :, 1:] > small[:, :, :-1], axis=2)
    thumbnails = F.adaptive_avg_pool2d(pixels, _THUMBNAIL).flatten(1)
    thumbnails = F.normalize(thumbnails - thumbnails.mean(1, keepdim=True), eps=1.0)
    hashes = bits.reshape(len(images), 8).view(np.uint64)[:, 0]
    return _Look(hashes, thumbnails.cpu().numpy())


def _near_pairs(looks: _Looks, others: _Looks) -> Iterator[tuple[int, int]]:
    """The position of each image that resembles one of the others, and that of the other."""
    # The order is that of classes, so that most of these pairs are of different ones.
    half = len(others.thumbnails) // 2
    pairs = (others.thumbnails[:half] * others.thumbnails[half : 2 * half])[:_RANDOM_PAIRS]
    if not half:
        return
    least = 1 - _MAX_DISTANCE * (1 - float(pairs.sum(1).mean()))
    starts = range(0, len(looks.hashes), _ROWS)
    for start in progress(starts, "looking for near-duplicates: parts", len(starts)):
        bits = np.bitwise_count(looks.hashes[start : start + _ROWS, None] ^ others.hashes)
        for row in np.flatnonzero(bits.min(1) <= _MAX_BITS).tolist():
            near = np.flatnonzero(bits[row] <= _MAX_BITS)
            near = near[bits[row, near].argsort(kind="stable")[:_CANDIDATES]]
            correlations = others.thumbnails[near] @ looks.thumbnails[start + row]
            best = correlations.argmax()
            if correlations[best] >= least:
                yield int(looks.positions[start + row]), int(others.positions[near[best]])
