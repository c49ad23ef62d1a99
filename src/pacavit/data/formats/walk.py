"""Find the image files in folders, for training, prediction and explanation alike."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pacavit.data.formats.image import IMAGE_SUFFIXES
from pacavit.errors import DataError
from pacavit.utils.text import shown

__all__ = [
    "Skipped",
    "expand_folders",
    "is_image",
    "is_system",
    "list_folder",
    "sub_folders",
    "walk_folders",
]

_FEW = 3  # examples of each kind of skipped entries
_KINDS = {
    "loose": ("image outside of the class folders", "images outside of the class folders"),
    "beside": ("folder beside the splits", "folders beside the splits"),
    "empty": ("class folder without images", "class folders without images"),
    "repeated": ("link to a folder that is read already", "links to folders that are read already"),
    "other": ("file of another kind", "files of other kinds"),
    "hidden": ("hidden or system entry", "hidden or system entries"),
}

_SYSTEM_NAMES = frozenset(
    {
        "$recycle.bin",  # Windows
        "desktop.ini",
        "ehthumbs.db",
        "recycler",
        "system volume information",
        "thumbs.db",
        "__macosx",  # macOS, and its archives
        "icon\r",
        "network trash folder",
        "temporary items",
        "lost+found",  # ext4
        "#recycle",  # Synology, QNAP, NetApp
        "#snapshot",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "~snapshot",
        "__pycache__",
    }
)
_SYSTEM_PATTERN = re.compile(r"found\.\d{3}|.*@syno(eastream|resource)")


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden, or was put there by an operating system or a tool.

    Hidden names begin with a dot, such as ``.ipynb_checkpoints`` and macOS's ``._x.jpg``.
    """
    lower = name.lower()
    return (
        name.startswith(".")
        or lower in _SYSTEM_NAMES
        or _SYSTEM_PATTERN.fullmatch(lower) is not None
    )


def is_image(name: str) -> bool:
    """Whether a file name has a suffix of an image format that can be read."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


@dataclass
class Skipped:
    """Entries of folders that are not used as images: how many of each kind, and the first ones.

    Attributes:
        counts: entries by kind. A hidden folder counts as one entry, whatever it holds.
        examples: up to three paths of each kind, escaped for display.
        suffixes: number of files of other kinds by suffix.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    suffixes: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, path: str | Path) -> None:
        """Count one entry; kinds are loose, beside, empty, repeated, other and hidden."""
        self.counts[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _FEW:
            examples.append(shown(path))
        if kind == "other":
            self.suffixes[shown(Path(path).suffix.lower()) or "no suffix"] += 1

    def update(self, other: Skipped) -> None:
        """Add the entries that another walk skipped."""
        self.counts.update(other.counts)
        self.suffixes.update(other.suffixes)
        for kind, examples in other.examples.items():
            own = self.examples.setdefault(kind, [])
            own.extend(examples[: _FEW - len(own)])

    def describe(self, root: Path | None = None) -> str | None:
        """One line with counts and examples by kind; None if nothing was skipped.

        Args:
            root: named in the line, where the paths are relative to one folder.
        """
        if not self.counts:
            return None
        where = "" if root is None else f" in {shown(root)}"
        return f"skipped{where}: " + "; ".join(
            self._describe_kind(kind) for kind in _KINDS if self.counts[kind]
        )

    def _describe_kind(self, kind: str) -> str:
        count, examples = self.counts[kind], ", ".join(self.examples[kind])
        more = ", ..." if count > _FEW else ""
        by_suffix = ""
        if kind == "other" and count > 1:
            common = self.suffixes.most_common(_FEW)
            rest = ", ..." if len(self.suffixes) > _FEW else ""
            by_suffix = f" [{', '.join(f'{number:,} {name}' for name, number in common)}{rest}]"
        return f"{count:,} {_KINDS[kind][count > 1]}{by_suffix} ({examples}{more})"


def sub_folders(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the other entries directly in a folder, each sorted by bytes.

    Links are followed. Hidden and system entries are included.

    Raises:
        DataError: the folder is missing, is a file or cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            kinds = [(entry.name, _is_folder(entry)) for entry in entries]
    except FileNotFoundError:
        raise DataError(
            f"there is no data folder {shown(folder)}; name one with --data ROOT"
        ) from None
    except NotADirectoryError:
        raise DataError(
            f"{shown(folder)} is a file; give the folder that holds the images"
        ) from None
    except OSError as error:
        raise _unreadable(folder, error) from error
    kinds.sort(key=lambda kind: os.fsencode(kind[0]))
    return [name for name, inside in kinds if inside], [
        name for name, inside in kinds if not inside
    ]


def walk_folders(
    root: Path, folders: Sequence[Path], skipped: Skipped
) -> Iterator[tuple[int, str]]:
    """Image files in folders and below, as (position of the folder, path relative to ``root``).

    - Hidden and system files and folders (``is_system``) are skipped at every depth, except those
      that are given as ``folders``.
    - Links to files and folders are followed. No folder is read twice in a walk: real folders
      come first, then those of ``folders`` that are links, then links inside, each in the order of
      their paths. A link to a folder that is read already, or that contains one of ``folders``, is
      skipped. So links neither repeat images nor change the paths of others.
    - Every file whose name has an image suffix is listed, even if it cannot be opened, such as a
      dangling link: the error is reported when it is read.

    Args:
        root: folder that the paths are relative to; it is, or contains, each of ``folders``.
        folders: where to look. If several are the same folder, only the first is read.
        skipped: receives all other entries; paths relative to ``root``.

    Yields:
        In no particular order.

    Raises:
        DataError: a folder cannot be read.
    """
    visited = _containing(folders)
    starts = [(position, _relative(folder, root)) for position, folder in enumerate(folders)]
    linked = [start for start in starts if folders[start[0]].is_symlink()]
    pending = [start for start in starts if not folders[start[0]].is_symlink()]
    nested: list[tuple[int, str]] = []
    while pending or linked or nested:
        if not pending:
            links = linked or nested
            next_one = min(links, key=lambda link: os.fsencode(link[1]))
            links.remove(next_one)
            pending.append(next_one)
        position, inside = pending.pop()
        identity = _identity(root / inside)
        if identity in visited:
            skipped.add("repeated", inside)
            continue
        visited.add(identity)
        for entry in _sorted_entries(root / inside):
            path = f"{inside}{os.sep}{entry.name}" if inside else entry.name
            if is_system(entry.name):
                skipped.add("hidden", path)
            elif _is_folder(entry):
                (nested if entry.is_symlink() else pending).append((position, path))
            elif is_image(entry.name):
                yield position, path
            else:
                skipped.add("other", path)


def expand_folders(paths: Iterable[str | Path]) -> tuple[list[Path], Skipped]:
    """Replace each folder by the image files in it and below, sorted by the bytes of their paths.

    Paths of files are kept as they are, whatever their names.

    Returns:
        The files, and what was skipped in the folders.

    Raises:
        DataError: a folder has no images, or cannot be read.
    """
    found: list[Path] = []
    skipped = Skipped()
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        found += [path / os.fsdecode(name) for name in list_folder(path, skipped)]
    return found, skipped


def list_folder(folder: Path, skipped: Skipped) -> list[bytes]:
    """The image files in a folder and below: sorted paths relative to it, as bytes.

    Args:
        folder: where to look.
        skipped: receives all other entries.

    Raises:
        DataError: there are none, or a folder cannot be read.
    """
    inside = Skipped()
    names = sorted(os.fsencode(file) for _, file in walk_folders(folder, [folder], inside))
    if not names:
        what = inside.describe()
        raise DataError(
            f"no images in folder {shown(folder)}, whose names end in .png, .jpg and so on"
            + (f"; {what}" if what else "")
        )
    skipped.update(inside)
    return names


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: OSError) -> DataError:
    return DataError(f"cannot read the folder {shown(folder)}: {error.strerror or error}")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder without permission
        return False


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode numbers, which are equal for two paths to the same folder."""
    try:
        status = folder.stat()
    except OSError as error:
        raise _unreadable(folder, error) from error
    return status.st_dev, status.st_ino


def _containing(folders: Iterable[Path]) -> set[tuple[int, int]]:
    """The identities of all folders that contain one of the given ones."""
    parents = {parent for folder in folders for parent in folder.resolve().parents}
    return {_identity(parent) for parent in parents}


def _relative(folder: Path, root: Path) -> str:
    """The path of a folder below a root, empty for the root itself."""
    relative = os.path.relpath(folder, root)
    return "" if relative == os.curdir else relative
