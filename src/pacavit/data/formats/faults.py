"""What is wrong with objects of annotation files, counted, with examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from pacavit.errors import DataError
from pacavit.utils.text import first_few

__all__ = ["FAULTS", "ObjectFaults"]

_FEW = 3


class _Kind(NamedTuple):
    """How a kind of fault is reported.

    Attributes:
        one: of one object.
        many: of several.
        remedy: what may be the reason, or what to do.
        used: the object is used in spite of it.
        refused: data with such a fault in more than half of the objects are refused.
    """

    one: str
    many: str
    remedy: str
    used: bool = False
    refused: bool = True


FAULTS = {
    "image": _Kind(
        "object of an image that is not listed",
        "objects of images that are not listed",
        "annotations and images may be of different versions",
    ),
    "category": _Kind(
        "object of a class that is not listed",
        "objects of classes that are not listed",
        "add the missing classes to the list",
    ),
    "malformed": _Kind(
        "object without the needed numbers",
        "objects without the needed numbers",
        "the file may be of another tool",
    ),
    "degenerate": _Kind(
        "box without an area",
        "boxes without an area",
        "the numbers of a box may stand in another order",
    ),
    "outside": _Kind(
        "box outside of its image",
        "boxes outside of their images",
        "boxes may be in other units, or of images before resizing",
    ),
    "relative": _Kind(
        "box within the first pixel",
        "boxes within the first pixel",
        "boxes may be fractions of the image, and have to be in pixels",
        used=True,
    ),
    "repeated": _Kind(
        "copy of another object", "copies of other objects", "files may have been merged twice"
    ),
    "no_mask": _Kind(
        "object without a mask", "objects without a mask", "data with boxes only are for detection"
    ),
    "mask": _Kind(
        "mask that cannot be read",
        "masks that cannot be read",
        "masks are polygons or run lengths as in COCO",
    ),
    "mask_size": _Kind(
        "mask of another size than its image",
        "masks of another size than their images",
        "masks may be of images before resizing",
    ),
    "empty_mask": _Kind(
        "mask without a pixel",
        "masks without a pixel",
        "masks may be of images before resizing",
    ),
    "beyond": _Kind(
        "box that reaches beyond its image, cut",
        "boxes that reach beyond their images, cut",
        "the numbers of a box may stand in another order, or be of images before resizing",
        used=True,
    ),
    "same_id": _Kind(
        "object with the number of another one",
        "objects with the numbers of others",
        "files may have been merged",
        used=True,
        refused=False,
    ),
}


@dataclass
class ObjectFaults:
    """Faults of the objects of a split: how many of each kind, and the first ones.

    Attributes:
        counts: objects by kind.
        examples: up to three of each kind.
        total: number of objects in the files, with and without faults.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    total: int = 0

    def add(self, kind: str, example: str) -> None:
        """Count a fault of a kind that is a key of ``FAULTS``."""
        self.counts[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _FEW:
            examples.append(example)

    def describe(self, split: str) -> list[str]:
        """Lines on objects that are left out, and on those that are used in spite of a fault."""
        lines = []
        for used, what in ((False, "left out"), (True, "to check")):
            texts = [self._text(kind) for kind in self._found() if FAULTS[kind].used == used]
            if texts:
                lines.append(f"{what}, of {self.total:,} {split} objects: {'; '.join(texts)}")
        return lines

    def check(self, where: str) -> None:
        """Raise DataError if more than half of the objects are left out, or have the same fault.

        Args:
            where: the file or folder, for the message.
        """
        kinds = [kind for kind in self._found() if FAULTS[kind].refused]
        left_out = sum(self.counts[kind] for kind in kinds if not FAULTS[kind].used)
        wrong = max([left_out, *(self.counts[kind] for kind in kinds)])
        if 2 * wrong > self.total:
            worst = max(kinds, key=lambda kind: self.counts[kind])
            raise DataError(
                f"{where}: more than half of the {self.total:,} objects are wrong: "
                f"{'; '.join(map(self._text, kinds))}; {FAULTS[worst].remedy}"
            )

    def _found(self) -> list[str]:
        return [kind for kind in FAULTS if self.counts[kind]]

    def _text(self, kind: str) -> str:
        number, fault = self.counts[kind], FAULTS[kind]
        noun = fault.one if number == 1 else fault.many
        examples = [*self.examples[kind], *[""] * (number - len(self.examples[kind]))]
        return f"{number:,} {noun} ({first_few(examples)})"
