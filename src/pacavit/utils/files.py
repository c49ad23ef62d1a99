"""Files that are complete or absent: synced writes, atomic replacement, safetensors."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pacavit.errors import CheckpointError
from pacavit.utils.text import one_line

__all__ = [
    "LOCK",
    "empty_folder",
    "is_leftover",
    "is_safe",
    "looks_pickled",
    "open_regular",
    "read_bounded",
    "read_header",
    "read_tensors",
    "reading",
    "remove_leftovers",
    "replace_file",
    "replacing",
    "sync_folder",
    "tensor_bytes",
    "write_file",
    "writing",
]

LOCK = ".training.lock"
"""Locked while a process trains in a folder. A killed process leaves the file, unlocked."""

_MAX_PART, _MAX_PATH = 255, 3000  # bytes of a name, characters of a path


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading; never waits for another process.

    Raises:
        OSError: the file is missing, a folder, a pipe or a device, or cannot be opened.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: as ``open_regular``, or the file is larger.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes", str(path))
    return data


def is_safe(name: str) -> bool:
    """Whether the path of a file, from an untrusted list, stays inside of a folder."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    try:
        sizes = [len(os.fsencode(part)) for part in posix.parts]
    except UnicodeEncodeError:
        return False
    if not sizes or max(sizes) > _MAX_PART or len(name) > _MAX_PATH or "\0" in name:
        return False
    return not (posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts)


@contextmanager
def writing(what: str | Path) -> Iterator[None]:
    """Turn a failing write (disk full, no permission) into a CheckpointError of one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(
            f"cannot write {what}: {reason}; what was written before is intact"
        ) from error


@contextmanager
def reading(what: str | Path) -> Iterator[None]:
    """Turn a failing read into a CheckpointError of one line."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot read {what}: {error.strerror or error}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until a folder's entries are on the disk."""
    if os.name == "nt":  # Windows cannot open folders and needs no such call
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file atomically: readers see the old or the whole new one. Parents are created."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; the file there is synced and replaces ``path`` at the end, atomically.

    Parents are created. After an error ``path`` is what it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def is_leftover(path: Path) -> bool:
    """Whether a file carries no results: half-written by a killed process, or a lock."""
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".tmp"))


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed ``replace_file`` calls; nobody may be writing there."""
    for path in folder.glob(".*.tmp"):
        path.unlink()


def empty_folder(folder: Path, *, last: str) -> None:
    """Remove the content of a folder except its lock; the file ``last``, its marker, goes last."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (last, LOCK):
            path.unlink()
    (folder / last).unlink(missing_ok=True)


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors and texts as the bytes of a safetensors file."""
    # safetensors wants plain layout and no shared storage; channels-last filters have neither.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    return safetensors.torch.save(plain, None if metadata is None else dict(metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated or of another kind.
    """
    with _safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes of the tensors and texts of a safetensors file; reads no tensor.

    Raises:
        CheckpointError: the file is missing, truncated or of another kind.
    """
    with _safetensors(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return shapes, file.metadata() or {}


@contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    """An open safetensors file; errors while it is open become CheckpointError."""
    try:
        open_regular(path).close()
    except FileNotFoundError:
        raise CheckpointError(f"no weights at {path}; fetch the file again") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with _utf8_path(path) as readable, safe_open(readable, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, RuntimeError) as error:
        if looks_pickled(path):
            raise CheckpointError(
                f"{path} is a pickled checkpoint, which could run code and is not opened; give "
                "safetensors weights"
            ) from error
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({one_line(error)}); write or fetch it "
            "again"
        ) from error


@contextmanager
def _utf8_path(path: Path) -> Iterator[Path]:
    """A UTF-8 path to a file, for libraries that accept no other: a temporary link if needed."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with TemporaryDirectory() as folder:
            link = Path(folder) / "link"
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path


def looks_pickled(path: Path) -> bool:
    """Whether a file begins like those of ``torch.save``: a zip archive, or a bare pickle."""
    with open_regular(path) as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80"))
