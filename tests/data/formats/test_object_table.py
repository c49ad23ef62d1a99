"""Tables of objects: grouping by image, selection, joining, and faults."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pacavit.data.formats.faults import ObjectFaults
from pacavit.data.formats.object_table import ObjectTable, TableBuilder, concatenate
from pacavit.data.formats.rle import Rle
from pacavit.data.formats.segments import SegmentError, from_polygons
from pacavit.errors import DataError

SIZE = (20, 30)


def square(side: int, at: int = 1) -> Rle:
    end = at + side
    return from_polygons([[at, at, end, at, end, end, at, end]], SIZE)


def table(*, first_id: int = 10) -> ObjectTable:
    """Three images with 2, 0 and 1 objects, added in another order."""
    builder = TableBuilder(ObjectFaults(), masks=True)
    for number in range(3):
        builder.add_image(f"{first_id + number}.png", first_id + number, SIZE)
    builder.add_object(2, 1, (1, 1, 5, 5), name="c", mask=square(4))
    builder.add_object(0, 0, (1, 1, 4, 4), name="a", mask=square(3))
    builder.add_object(0, 1, (1, 1, 7, 7), name="b", mask=square(6), area=30.0, crowd=True)
    return builder.build()


def test_objects_are_grouped_by_image() -> None:
    first, second, third = (table().objects(index) for index in range(3))
    assert [len(first), len(second), len(third)] == [2, 0, 1]
    assert first.boxes.tolist() == [[1, 1, 4, 4], [1, 1, 7, 7]]
    assert first.labels.tolist() == [0, 1]
    assert first.crowd.tolist() == [False, True]
    assert first.areas.tolist() == [9, 30]
    assert (first.size, first.image_id) == (SIZE, 10)
    assert first.masks == (square(3), square(6))
    assert third.masks == (square(4),)
    assert second.masks == ()


def test_selected_images_keep_their_objects() -> None:
    chosen = table().at(torch.tensor([2, 0]))
    assert chosen.files.tolist() == [b"12.png", b"10.png"]
    assert chosen.objects(0).masks == (square(4),)
    assert chosen.objects(1).masks == (square(3), square(6))
    assert chosen.objects(1).areas.tolist() == [9, 30]
    assert len(table().at(torch.tensor([1])).boxes) == 0


def test_joined_tables_are_numbered_anew_only_if_numbers_overlap() -> None:
    joined = concatenate([table(), table(first_id=20)])
    assert joined.image_ids.tolist() == [10, 11, 12, 20, 21, 22]
    assert joined.objects(5).masks == (square(4),)
    assert concatenate([table(), table()]).image_ids.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("box", "kind", "kept"),
    [
        ((1, 1, 1, 5), "degenerate", None),
        ((5, 1, 2, 5), "degenerate", None),
        ((math.nan, 1, 2, 5), "degenerate", None),
        ((1, 1, math.inf, 5), "degenerate", None),
        ((20.0, 1, 20.0 + 1e-7, 5), "degenerate", None),  # nothing in float32
        ((30, 1, 40, 5), "outside", None),
        ((-9, 1, 0, 5), "outside", None),
        ((-9, 1, 4, 5), "beyond", [0, 1, 4, 5]),
        ((-0.5, 1, 30.4, 5), None, [0, 1, 30, 5]),
        ((0.1, 0.2, 0.5, 0.5), "relative", [0.1, 0.2, 0.5, 0.5]),
    ],
)
def test_boxes_are_cut_or_left_out(
    box: tuple[float, ...], kind: str | None, kept: list[float] | None
) -> None:
    faults = ObjectFaults()
    builder = TableBuilder(faults, masks=False)
    builder.add_image("a.png", 1, SIZE)
    builder.add_object(0, 0, box, name="object 5")
    assert dict(faults.counts) == ({} if kind is None else {kind: 1})
    found = builder.build().boxes
    np.testing.assert_allclose(found, np.array(kept or [], np.float32).reshape(-1, 4))
    if kind is not None:
        assert faults.examples[kind][0].startswith("object 5 of a.png: corners ")


def test_masks_are_needed_for_instances_and_give_missing_boxes() -> None:
    faults = ObjectFaults()
    builder = TableBuilder(faults, masks=True)
    builder.add_image("a.png", 1, SIZE)
    empty = Rle(SIZE, from_polygons([[1, 1, 1, 1, 1, 1]], SIZE).counts)
    for mask in (None, SegmentError("no_mask"), SegmentError("mask", "why"), empty):
        builder.add_object(0, 0, (1, 1, 5, 5), name="object", mask=mask)
    builder.add_object(0, 0, None, name="object", mask=square(4))
    builder.add_object(0, 0, (1, 1, 5, 5), name="object", mask=square(4))  # the same again
    assert dict(faults.counts) == {"no_mask": 2, "mask": 1, "empty_mask": 1, "repeated": 1}
    assert faults.examples["mask"] == ["object of a.png: why"]
    assert builder.build().boxes.tolist() == [[1, 1, 5, 5]]


@pytest.mark.parametrize("area", [None, 0.0, -1.0, math.nan, 1e308, 601.0])
def test_areas_that_cannot_be_are_those_of_masks_or_boxes(area: float | None) -> None:
    builder = TableBuilder(ObjectFaults(), masks=False)
    builder.add_image("a.png", 1, SIZE)
    builder.add_object(0, 0, (1, 1, 9, 9), name="object", area=area)
    builder.add_object(0, 0, (2, 1, 9, 9), name="object", area=area, mask=square(3))
    assert builder.build().areas.tolist() == [64, 9]


def test_faults_are_lines_or_if_there_are_many_an_error() -> None:
    faults = ObjectFaults(total=10)
    for number in range(4):
        faults.add("degenerate", f"object {number}")
    faults.add("beyond", "object 7")
    assert faults.describe("train") == [
        "left out, of 10 train objects: 4 boxes without an area (object 0; object 1; object 2 (and "
        "1 more))",
        "to check, of 10 train objects: 1 box that reaches beyond its image, cut (object 7)",
    ]
    faults.check("file")
    faults.add("outside", "object 8")
    faults.add("category", "object 9")
    with pytest.raises(DataError, match="file: more than half of the 10 objects are wrong"):
        faults.check("file")


def test_numbers_that_are_not_unique_are_no_reason_to_refuse() -> None:
    faults = ObjectFaults(total=2)
    faults.add("same_id", "object 1")
    faults.add("same_id", "object 1")
    faults.check("file")
