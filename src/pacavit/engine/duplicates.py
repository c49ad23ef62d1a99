"""What a run does about images that are in two splits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pacavit.data import SPLITS, DataSource, ImageSet, Split
from pacavit.data.duplicates import (
    Duplicate,
    describe_duplicates,
    duplicates_csv,
    find_duplicates,
)
from pacavit.errors import DataError
from pacavit.recipes.schema import DataConfig
from pacavit.utils import files
from pacavit.utils.text import shown

__all__ = ["DUPLICATES", "FoundDuplicates", "check_duplicates"]

DUPLICATES = "duplicates.csv"
_MOST_IMAGES = 50_000
_LONG = 1.0  # seconds


@dataclass(frozen=True)
class FoundDuplicates:
    """Images of a run that are in two splits.

    Attributes:
        all: of them.
        warnings: lines to log.
        lines: about the search, to log first.
    """

    all: list[Duplicate] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def save(self, out: Path) -> None:
        """Write ``duplicates.csv`` into a run folder, if there are any duplicates."""
        if self.all:
            with files.writing(out / DUPLICATES):
                files.replace_file(out / DUPLICATES, duplicates_csv(self.all).encode())


def check_duplicates(
    config: DataConfig, source: DataSource, splits: Mapping[Split, ImageSet]
) -> FoundDuplicates:
    """Look for images that are in two splits, as ``data.duplicates`` says.

    Args:
        config: of the data.
        source: of the images; names the files of splits that are not loaded.
        splits: the loaded splits.

    Raises:
        DataError: exact copies are refused, and there are some.
    """
    listed = {split: source.files(split) for split in SPLITS}
    as_files = {split: images for split, images in listed.items() if images is not None}
    policy, num = config.duplicates, sum(map(len, (as_files or splits).values()))
    if policy == "ignore":
        return FoundDuplicates()
    if policy is None and num > _MOST_IMAGES:
        note = (
            f"no search for duplicates across splits among more than {_MOST_IMAGES:,} images; "
            "data.duplicates=warn searches"
        )
        return FoundDuplicates(lines=[note])
    start = time.monotonic()
    found = find_duplicates(splits, as_files)
    seconds = time.monotonic() - start
    exact, near = ([each for each in found if each.exact == kind] for kind in (True, False))
    if exact and (policy == "refuse" or (policy is None and source.refuses_duplicates)):
        place = "the data" if source.root is None else shown(source.root)
        raise DataError(
            f"{place}: {_describe(exact, source, 'in two splits')}; remove one of each, or train "
            f"with data.duplicates=warn, which lists all in {DUPLICATES}"
        )
    warnings = [
        f"{_describe(some, source, where)}; scores may be too high; all are in {DUPLICATES}"
        for some, where in ((exact, "in two splits"), (near, "nearly the same in two splits"))
        if some
    ]
    lines = []
    if seconds > _LONG:
        lines.append(
            f"searched {num:,} images for duplicates across splits in {seconds:.0f} s; "
            "data.duplicates=ignore skips this"
        )
    return FoundDuplicates(found, warnings, lines)


def _describe(duplicates: Sequence[Duplicate], source: DataSource, where: str) -> str:
    number = "1 image is" if len(duplicates) == 1 else f"{len(duplicates):,} images are"
    return f"{number} {where}: {describe_duplicates(duplicates, source.root)}"
