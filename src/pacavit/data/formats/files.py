"""Images that stay in files until they are needed, and folders with one sub-folder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data.base import MemoryImages, Sample
from pacavit.data.formats.image import MAX_PIXELS, fit_image, read_image, read_size
from pacavit.data.formats.stored import StoredImages
from pacavit.data.formats.walk import Skipped, is_image, is_system, sub_folders, walk_folders
from pacavit.data.splits import FileList
from pacavit.data.workers import available_cores, map_in_workers
from pacavit.errors import DataError, ReadError
from pacavit.utils.progress import progress
from pacavit.utils.text import first_few, shown

__all__ = [
    "FileImages",
    "Listing",
    "class_folders",
    "class_names",
    "describe_broken",
    "fingerprint",
    "list_images",
]

_MEMORY_LIMIT = 4 * 2**30
_FEW = 256  # up to this many images are read faster without worker processes


@dataclass(frozen=True, eq=False)
class Listing:
    """Image files with their labels.

    Attributes:
        files: (num,) bytes, paths relative to the root of the data. An array, because a list of a
            million strings would be copied into each worker when it is read.
        labels: (num,) int64.
    """

    files: NDArray[np.bytes_]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, positions: Tensor) -> Listing:
        """The entries at (num,) int64 positions."""
        return Listing(self.files[positions.numpy()], self.labels[positions])


class FileImages(StoredImages):
    """One split of image files.

    Args:
        root: folder that the paths are relative to.
        listing: files and labels.
        size: (height, width) of the images of ``batch``, which fits them with ``fit_image``.
        max_pixels: largest image that is decoded.
        device: of labels and batches.
    """

    def __init__(
        self,
        root: Path,
        listing: Listing,
        size: tuple[int, int],
        *,
        max_pixels: int = MAX_PIXELS,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(listing.labels, size, max_pixels=max_pixels, device=device)
        self.root: Path = root
        self.files = listing.files

    def file(self, index: int) -> Path:
        """The path of the image at a position, relative to ``root``."""
        return Path(os.fsdecode(self.files[index]))

    def path(self, index: int) -> Path:
        """The file of the image at a position."""
        return self.root / self.file(index)

    def __getitem__(self, index: int) -> Sample:
        """The image at a position as it is stored: (3, H, W) uint8 of any size, on the CPU.

        Raises:
            ReadError: the system failed to read the file.
            DataError: the file is broken or too large; one line with its path.
        """
        image = read_image(self.path(index), max_pixels=self.max_pixels)
        return Sample(image, self.labels[index], index)

    def into_memory(self) -> MemoryImages:
        """All images decoded, each fitted to ``size``; broken ones are left out and reported.

        Raises:
            ReadError: the system failed to read a file.
            DataError: no image is left, or the images would take more than 4 GiB.
        """
        needed = len(self) * 3 * self.size[0] * self.size[1]
        if needed > _MEMORY_LIMIT:
            raise DataError(
                f"{len(self):,} images of {self.size[1]} x {self.size[0]} pixels take "
                f"{needed / 2**30:.0f} GiB of memory; lower data.options.image_size, or set "
                "data.options.in_memory=false"
            )
        num = len(self)
        images = torch.empty(num, 3, *self.size, dtype=torch.uint8)
        num_workers = 0 if num <= _FEW else available_cores()
        usable, broken = torch.ones(num, dtype=torch.bool), dict[str, str]()
        results = map_in_workers(self._fitted, range(num), num_workers=num_workers)
        for index, result in enumerate(progress(results, "reading images", num)):
            if isinstance(result, str):
                usable[index] = False
                broken[str(self.path(index))] = result
            else:
                images[index] = result
        if len(broken) == num:
            raise DataError(f"no usable image in {shown(self.root)}: {describe_broken(broken)}")
        labels, files = self.labels.cpu(), self.files
        if broken:
            images, labels, files = images[usable], labels[usable], files[usable.numpy()]
        return MemoryImages(images, labels, broken, self.root, files).to(self.device)

    def sample_sizes(self, at_most: int) -> list[tuple[int, int]]:
        """(height, width) of evenly spread images as they are stored, without the broken ones."""
        step = max(1, -(-len(self) // at_most))
        sizes = (read_size(self.path(index)) for index in range(0, len(self), step))
        return [size for size in sizes if size is not None]

    def _fitted(self, index: int) -> Tensor | str:
        """The image, or the error message if it is broken."""
        try:
            return fit_image(self[index].image, self.size)
        except ReadError:
            raise
        except DataError as error:
            return str(error)


def class_folders(
    folder: Path, skipped: Skipped | None = None, root: Path | None = None
) -> dict[str, str]:
    """The sub-folder of each class, sorted by class name.

    Hidden and system folders are not classes. If the name of a folder is not UTF-8, the class has
    the escaped name (``utils.text.shown``), because weights store class names as UTF-8.

    Args:
        folder: holds the class folders.
        skipped: receives all other entries, as paths relative to ``root``.
        root: contains ``folder``; None is ``folder`` itself.

    Raises:
        DataError: the folder is missing, is a file or cannot be read, or two folders would have
            the same class name.
    """
    folders, files = sub_folders(folder)
    if skipped is not None:
        above = Path(os.path.relpath(folder, folder if root is None else root))
        for name in (*folders, *files):
            if is_system(name):
                skipped.add("hidden", above / name)
            elif name in files:
                skipped.add("loose" if is_image(name) else "other", above / name)
    classes: dict[str, str] = {}
    for name in folders:
        if is_system(name):
            continue
        other = classes.setdefault(shown(name), name)
        if other != name:
            raise DataError(
                f"{shown(folder)} has two class folders that are shown as {shown(name)!r}; rename "
                "one of them"
            )
    return dict(sorted(classes.items()))


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the class folders in a folder, sorted; raises as ``class_folders`` does."""
    return tuple(class_folders(folder))


def list_images(
    root: Path, folder: Path, classes: Sequence[str], skipped: Skipped | None = None
) -> Listing:
    """The images of each class, in ``folder/CLASS`` and below; sorted by class and path.

    Args:
        root: what the listed paths are relative to.
        folder: ``root`` or a folder in it.
        classes: names in label order. A class may have no folder, or no images.
        skipped: receives what is not listed (``walk_folders``).

    Raises:
        DataError: ``folder`` has no class folders, one that is not in ``classes``, or no images.
    """
    own = Skipped()
    found = class_folders(folder, own, root)
    if not found:
        if own.counts["loose"]:
            raise DataError(
                f"{shown(folder)} holds images but no class folders; put the images of each class "
                "into a folder of its own, named like the class"
            )
        raise DataError(
            f"{shown(folder)} holds no class folders; it needs one folder of images per class"
        )
    labels = {name: label for label, name in enumerate(classes)}
    unknown = [repr(name) for name in found if name not in labels]
    if unknown:
        noun = "a class folder" if len(unknown) == 1 else "class folders"
        raise DataError(
            f"{shown(folder)} has {noun} {first_few(unknown)} that the training images do not "
            "have; remove or rename them"
        )
    names = list(found)
    pairs = sorted(
        # Sorted by bytes: equal for every locale and file system.
        (labels[names[position]], os.fsencode(path))
        for position, path in walk_folders(root, [folder / name for name in found.values()], own)
    )
    if not pairs:
        raise DataError(
            f"no images in the class folders of {shown(folder)}, whose names end in .png, .jpg "
            "and so on"
        )
    listed = {label for label, _ in pairs}
    for name in names:
        if labels[name] not in listed:
            own.add("empty", os.path.relpath(folder / found[name], root))
    if skipped is not None:
        skipped.update(own)
    files = np.array([path for _, path in pairs])
    return Listing(files, torch.tensor([label for label, _ in pairs]))


def fingerprint(listings: Mapping[str, FileList], *, beside: Iterable[str] = ()) -> str:
    """Eight hexadecimal digits that change when a file is added, renamed or removed.

    Args:
        listings: by the names of their folders.
        beside: texts that count as well, such as labels that are not in the names.
    """
    digest = hashlib.blake2b(digest_size=4)
    for text in beside:
        digest.update(text.encode() + b"\n")
    for name, listing in listings.items():
        digest.update(b"\n".join([name.encode(), *listing.files.tolist(), b""]))
    return digest.hexdigest()


def describe_broken(broken: Mapping[str, str]) -> str:
    """One line about images that could not be read: their number, and the first few errors."""
    noun = "image is" if len(broken) == 1 else "images are"
    return f"{len(broken)} {noun} left out: {first_few(list(broken.values()))}"
