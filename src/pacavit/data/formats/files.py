"""Images that stay in files until they are needed, and folders that sort them into classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.datasets.folder import make_dataset

from pacavit.data.base import LabelledImages, MemoryImages, Sample
from pacavit.data.formats.image import IMAGE_SUFFIXES, MAX_PIXELS, fit_image, read_image
from pacavit.data.workers import available_cores, map_in_workers
from pacavit.errors import DataError, ReadError
from pacavit.utils.text import first_few

__all__ = [
    "FileImages",
    "Listing",
    "class_names",
    "describe_broken",
    "fingerprint",
    "list_images",
]

_FEW = 256  # so many images are read sooner than processes are started


@dataclass(frozen=True, eq=False)
class Listing:
    """Image files with their labels.

    Attributes:
        files: (num,) bytes, paths below the root of the data. An array, because a list of a
            million strings would be copied into every worker that looks at it.
        labels: (num,) int64.
    """

    files: NDArray[np.bytes_]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, positions: Tensor) -> Listing:
        """The entries at (num,) int64 positions."""
        return Listing(self.files[positions.numpy()], self.labels[positions])


class FileImages(LabelledImages):
    """One split whose images are decoded when they are asked for.

    Args:
        root: folder that the paths start from.
        listing: files and labels.
        size: (height, width) that ``batch`` brings images to, as ``fit_image`` does.
        max_pixels: largest image that is decoded.
        device: where labels and batches lie.
    """

    in_files = True

    def __init__(
        self,
        root: Path,
        listing: Listing,
        size: tuple[int, int],
        *,
        max_pixels: int = MAX_PIXELS,
        device: torch.device | str = "cpu",
    ) -> None:
        self.root, self.files, self.size, self.max_pixels = root, listing.files, size, max_pixels
        self.labels = listing.labels.to(device)
        self.broken: dict[str, str] = {}
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:
        """Of labels and batches."""
        return self._device

    def path(self, index: int) -> Path:
        """The file of the image at a position."""
        return self.root / os.fsdecode(self.files[index])

    def location(self, index: int) -> str:
        """The path of the image at a position."""
        return str(self.path(index))

    def add_broken(self, broken: Mapping[str, str]) -> None:
        """Record images that could not be read, by path."""
        self.broken.update(broken)

    def __getitem__(self, index: int) -> Sample:
        """The image at a position as it is stored: (3, H, W) uint8 of any size, on the CPU.

        Raises:
            ReadError: the system failed to read the file.
            DataError: the file is broken or too large; one line with its path.
        """
        image = read_image(self.path(index), max_pixels=self.max_pixels)
        return Sample(image, self.labels[index], index)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) positions -> (B, 3, height, width) uint8 and (B,) labels.

        Raises:
            DataError: one of the files is broken or too large; a Loader goes on without it.
        """
        images = [fit_image(self[index].image, self.size) for index in indices.tolist()]
        return torch.stack(images).to(self.device), self.labels[indices]

    def to(self, device: torch.device) -> FileImages:
        """The same files, with labels and batches on another device; ``broken`` is shared."""
        moved = FileImages(
            self.root,
            Listing(self.files, self.labels),
            self.size,
            max_pixels=self.max_pixels,
            device=device,
        )
        moved.broken = self.broken
        return moved

    def into_memory(self) -> MemoryImages:
        """All images decoded, each fitted to ``size``; broken ones are left out and reported.

        Raises:
            ReadError: the system failed to read a file.
            DataError: no image is left.
        """
        num = len(self)
        images = torch.empty(num, 3, *self.size, dtype=torch.uint8)
        num_workers = 0 if num <= _FEW else available_cores()
        usable, broken = torch.ones(num, dtype=torch.bool), dict[str, str]()
        for index, result in enumerate(
            map_in_workers(self._fitted, range(num), num_workers=num_workers)
        ):
            if isinstance(result, str):
                usable[index] = False
                broken[str(self.path(index))] = result
            else:
                images[index] = result
        if len(broken) == num:
            raise DataError(f"no usable image in {self.root}: {describe_broken(broken)}")
        labels = self.labels.cpu()
        if broken:
            images, labels = images[usable], labels[usable]
        return MemoryImages(images, labels, broken).to(self.device)

    def _fitted(self, index: int) -> Tensor | str:
        """The image, or why there is none."""
        try:
            return fit_image(self[index].image, self.size)
        except ReadError:
            raise
        except DataError as error:
            return str(error)


def class_names(folder: Path) -> tuple[str, ...]:
    """The sub-folders of a folder, sorted; hidden ones do not count.

    Raises:
        DataError: the folder is missing, is a file or cannot be read, or a name is not UTF-8.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        raise DataError(f"there is no data folder {folder}; name one with --data ROOT") from None
    except NotADirectoryError:
        raise DataError(f"{folder} is a file; give the folder that holds the images") from None
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    names = sorted(name for name in names if not name.startswith((".", "__")))
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            # Weights store the names of their classes as UTF-8.
            raise DataError(
                f"{folder} has a class folder {name!r} whose name is not UTF-8; rename it"
            ) from None
    return tuple(names)


def list_images(root: Path, folder: Path, classes: Sequence[str]) -> Listing:
    """The images of each class, in ``folder/CLASS`` and below; sorted by class and path.

    Args:
        root: what the listed paths are relative to.
        folder: ``root`` or a folder in it.
        classes: names in label order. A class may have no images.

    Raises:
        DataError: ``folder`` has no class folders, one that is not in ``classes``, or no images.
    """
    found = class_names(folder)
    if not found:
        if any(_is_image(path.name) for path in folder.iterdir()):
            raise DataError(
                f"{folder} holds images but no class folders; put the images of each class into "
                "a folder of its own, named like the class"
            )
        raise DataError(f"{folder} holds no class folders; it needs one folder of images a class")
    for name in found:
        if name not in classes:
            raise DataError(
                f"{folder} has a class folder {name!r} that the training images do not have; "
                "remove or rename it"
            )
    labels = {name: label for label, name in enumerate(classes)}
    pairs = make_dataset(
        folder, labels, is_valid_file=lambda path: _is_image(Path(path).name), allow_empty=True
    )
    if not pairs:
        raise DataError(
            f"no images in the class folders of {folder}, whose names end in .png, .jpg and so on"
        )
    # Sorted by bytes: equal for every locale and file system.
    pairs = sorted((label, os.fsencode(os.path.relpath(path, root))) for path, label in pairs)
    files = np.array([path for _, path in pairs])
    return Listing(files, torch.tensor([label for label, _ in pairs]))


def fingerprint(listings: Mapping[str, Listing]) -> str:
    """Eight letters that change when a file of a data set is added, renamed or removed."""
    digest = hashlib.blake2b(digest_size=4)
    for name, listing in listings.items():
        digest.update(b"\n".join([name.encode(), *listing.files.tolist(), b""]))
    return digest.hexdigest()


def describe_broken(broken: Mapping[str, str]) -> str:
    """One line on images that could not be read: how many, and which were the first."""
    noun = "image is" if len(broken) == 1 else "images are"
    return f"{len(broken)} {noun} left out: {first_few(list(broken.values()))}"


def _is_image(name: str) -> bool:
    """By the end of the name; hidden files, which some systems add to every image, are none."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
