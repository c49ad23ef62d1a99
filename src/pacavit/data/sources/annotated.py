"""Base class of data sets whose images have objects in annotation files."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pacavit.data.base import SPLITS, DataInfo, DataSource, ObjectInfo, Split, TargetKind
from pacavit.data.formats.faults import ObjectFaults
from pacavit.data.formats.object_files import ObjectFiles
from pacavit.data.formats.object_table import ObjectTable, concatenate
from pacavit.data.palette import class_colors
from pacavit.data.splits import hold_out_missing
from pacavit.errors import DataError, UnknownNameError
from pacavit.utils.text import first_few, shown

__all__ = ["AnnotatedSource", "Found", "check_ignored", "match_classes", "needed_splits"]

_ANY_SIZE = (480, 640)  # where no image has a known size


class Found(NamedTuple):
    """What a source found in its files.

    Attributes:
        tables: images and objects by split, or under the key "" without splits.
        faults: of their objects, by the same keys.
        class_names: in label order.
        category_ids: the data set's own number of each class.
        version: of the data, see ``DataInfo``.
        notes: lines for the user.
    """

    tables: Mapping[str, ObjectTable]
    faults: Mapping[str, ObjectFaults]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    version: str
    notes: Sequence[str] = ()


class AnnotatedSource(DataSource):
    """Images and objects of each split; images are read when they are needed.

    The files of all images of a split are checked when it is loaded: they must exist and have the
    sizes that the annotations state. Images are normalized with ImageNet's mean and standard
    deviation.

    Args:
        root: as given by the user.
        name: registered name.
        found: in the files.
        val_size: as given by the user.
        test_size: likewise.
        evaluated: the only split that is needed, or None.
        max_pixels: images with more pixels are left out.
        skip_mismatched: leave out images that are missing or have other sizes.

    Raises:
        DataError: sizes of splits do not fit.
    """

    targets: ClassVar[tuple[TargetKind, ...]] = ("boxes",)

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        found: Found,
        val_size: int | None,
        test_size: int | None,
        evaluated: Split | None,
        max_pixels: int,
        skip_mismatched: bool,
    ) -> None:
        self._tables = hold_out_missing(root, found.tables, val_size, test_size, evaluated)
        super().__init__(root, val_size=len(self._tables.get("val", ())))
        self.folder = root
        self._max_pixels, self._skip = max_pixels, skip_mismatched
        self._notes = [*found.notes]
        for split, faults in found.faults.items():
            self._notes += faults.describe(split)
        self._loaded: dict[Split, ObjectFiles] = {}
        self._info = DataInfo(
            name,
            found.version,
            found.class_names,
            self._usual_size(),
            IMAGENET_DEFAULT_MEAN,
            IMAGENET_DEFAULT_STD,
            objects=ObjectInfo(found.category_ids, class_colors(found.class_names)),
        )

    @property
    def info(self) -> DataInfo:
        """Facts about the data; ``image_size`` is the most frequent size of the images."""
        return self._info

    @property
    def note(self) -> str | None:
        """Lines on objects and images that are left out, of splits that are loaded."""
        return "\n".join(self._notes) or None

    def load(self, split: Split) -> ObjectFiles:
        """One split, whose files have been checked; checked once and kept.

        Raises:
            DataError: there are no such images, files are missing or have other sizes, or no image
                has an object.
        """
        if split not in self._loaded:
            files = self.files(split)
            if files is None:
                raise DataError(
                    f"{shown(self.folder)} has no {split} images with annotations"
                    f"{self._remedy(split)}"
                )
            files = self._checked(files, f"{split} images")
            if split == "train":
                objects = files.statistics.objects.tolist()
                without = [
                    name
                    for name, number in zip(self._info.class_names, objects, strict=True)
                    if not number
                ]
                if without:
                    who = "class has" if len(without) == 1 else "classes have"
                    self._notes.append(
                        f"{len(without):,} {who} no object to train on: {first_few(without)}"
                    )
            self._loaded[split] = files
        return self._loaded[split]

    def load_all(self) -> ObjectFiles:
        """The images of all splits together, those of "train" first.

        Images are numbered anew if the numbers of splits overlap.
        """
        tables = [self._tables[split] for split in SPLITS if split in self._tables]
        return self._checked(self._files(concatenate(tables)), "images")

    def files(self, split: Split) -> ObjectFiles | None:
        """The files of a split, without reading any; None if it has no images."""
        table = self._tables.get(split)
        return None if table is None or len(table) == 0 else self._files(table)

    def _checked(self, files: ObjectFiles, what: str) -> ObjectFiles:
        files, notes = files.checked(what, skip=self._skip)
        self._notes += notes
        if not int(files.statistics.objects.sum()):
            crowds = files.statistics.crowds
            reason = f", only {crowds:,} crowd regions" if crowds else ""
            raise DataError(
                f"{shown(self.folder)}: none of the {len(files):,} {what} has an object"
                f"{reason}; check the annotations, and data.options.ignore"
            )
        return files

    def _files(self, table: ObjectTable) -> ObjectFiles:
        return ObjectFiles(
            self.folder, table, len(self._info.class_names), max_pixels=self._max_pixels
        )

    def _usual_size(self) -> tuple[int, int]:
        """The most frequent (height, width) among the images."""
        largest = max(self._tables.values(), key=len, default=None)
        if largest is None or len(largest) == 0:
            return _ANY_SIZE
        sizes = Counter((height, width) for height, width in largest.sizes.tolist())
        return sizes.most_common(1)[0][0]

    @abstractmethod
    def _remedy(self, split: Split) -> str:
        """The end of the message for a split without images: why, and what to do."""


def needed_splits(keys: Iterable[str], evaluated: Split | None) -> list[str]:
    """The keys of the files to read, for an evaluation of one split or (None) for a training."""
    listed: list[str] = [*keys]
    if evaluated is None:
        return listed
    if evaluated in listed:
        return [str(evaluated)]
    return [key for key in listed if key in ("", "train")] or listed


def check_ignored(root: Path, ignore: Sequence[str], names: Iterable[str]) -> None:
    """Raise UnknownNameError unless the option ``ignore`` names classes of the data."""
    names = list(names)
    for name in ignore:
        if name not in names:
            raise UnknownNameError(
                "class", name, names, f"in data.options.ignore, of {shown(root)}"
            )


def match_classes(
    where: str, used: Iterable[str], ignore: Sequence[str], classes: Sequence[str]
) -> None:
    """Raise DataError unless all classes that objects have are known.

    Args:
        where: the data, for the message.
        used: names of the classes that objects have.
        ignore: names of those that are left out.
        classes: names of those that the model knows, or that a user listed.
    """
    if len(set(classes)) < len(classes):
        raise DataError("data.options.classes names a class twice; remove one")
    unknown = [name for name in used if name not in {*classes, *ignore}]
    if unknown:
        raise DataError(
            f"{where} has objects of classes that the model does not know: {first_few(unknown)}; "
            f"known: {first_few(classes)}; data.options.ignore leaves classes out"
        )
