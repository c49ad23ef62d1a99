"""Masks of annotation files: right pixels, and nothing that harms the native decoder."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as oracle

from pacavit.data.formats.rle import encode_masks
from pacavit.data.formats.segments import SegmentError, from_polygons, read_segment, tight_box

SIZE = (4, 5)


def test_run_lengths_both_ways_of_writing_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 40, 2).tolist()
        pixels = (rng.random((height, width)) < rng.random()).astype(np.uint8)
        compressed = oracle.encode(np.asfortranarray(pixels))["counts"].decode()
        size = (height, width)
        found = read_segment({"size": [height, width], "counts": compressed}, size)
        flat = np.concatenate([[0], pixels.T.ravel()])
        ends = np.flatnonzero(np.diff(flat))
        runs = np.diff(np.concatenate([[0], ends, [pixels.size]])).tolist()
        plain = read_segment({"size": [height, width], "counts": runs}, size)
        assert found == plain
        assert np.array_equal(found.decode().numpy(), pixels)


def test_runs_of_no_pixel_are_joined() -> None:
    mask = read_segment({"size": [2, 3], "counts": [1, 0, 0, 2, 2, 0, 1]}, (2, 3))
    assert mask.decode().int().tolist() == [[0, 1, 0], [1, 0, 0]]
    assert mask == encode_masks(mask.decode()[None])[0]
    assert tight_box(mask) == (0.0, 0.0, 2.0, 2.0)


def test_polygons_have_the_pixels_of_the_reference() -> None:
    polygons: list[list[float]] = [[2.5, 1, 20, 3.25, 11, 17], [22, 2, 30, 2, 30, 12, 22, 12]]
    mask = from_polygons(polygons, (24, 32))
    assert mask.counts == oracle.merge(oracle.frPyObjects(polygons, 24, 32))["counts"]
    assert from_polygons(polygons[1], (24, 32)) == from_polygons(polygons[1:], (24, 32))
    # Polygons that are cut are those of the image's own pixels.
    assert from_polygons([[-9, -9, 50, -9, 50, 40, -9, 40]], (24, 32)).area == 24 * 32
    # A line beside an area has no pixels of its own.
    assert from_polygons([[1, 1, 9, 9], *polygons], (24, 32)) == mask


WRONG: list[tuple[Any, str, str]] = [
    (None, "no_mask", "no_mask"),
    ([], "no_mask", "no_mask"),
    ({}, "no_mask", "no_mask"),
    ("mask.png", "mask", "neither"),
    ([[1, 1, 2, 2]], "mask", "fewer than three"),
    ([[1, 1, 2, 2, 3]], "mask", "5 numbers"),
    ([[1, 1, 2, 2, "3", 3]], "mask", "no list of numbers"),
    ([[True, 1, 2, 2, 3, 3]], "mask", "no list of numbers"),
    ([{"x": 1}], "mask", "no list of numbers"),
    ([[1, 1, 2, 2, math.nan, 3]], "mask", "not finite"),
    ([[1, 1, 2, 2, math.inf, 3]], "mask", "not finite"),
    ([[1, 1, 2, 2, 1e9, 3]], "mask", "far outside"),
    ([[0, 0, 9, 0, 0, 7] * 50_000], "mask", "outlines of"),
    ({"counts": [20]}, "mask", "without a size"),
    ({"size": [4.0, 5], "counts": [20]}, "mask", "without a size"),
    ({"size": [10**9, 10**9], "counts": [10**18]}, "mask_size", "1000000000"),
    ({"size": [5, 4], "counts": [20]}, "mask_size", "4 x 5 pixels, the image 5 x 4"),
    ({"size": [4, 5]}, "mask", "without counts"),
    ({"size": [4, 5], "counts": [1.0, 19]}, "mask", "without counts"),
    ({"size": [4, 5], "counts": []}, "mask", "0 pixels, the image has 20"),
    ({"size": [4, 5], "counts": [3, 100]}, "mask", "longer than the image"),
    ({"size": [4, 5], "counts": [30, -10]}, "mask", "longer than the image"),
    ({"size": [4, 5], "counts": [3]}, "mask", "3 pixels, the image has 20"),
    ({"size": [4, 5], "counts": [10**30]}, "mask", "longer than the image"),
    ({"size": [4, 5], "counts": ""}, "mask", "do not decode"),
    ({"size": [4, 5], "counts": "o"}, "mask", "do not decode"),
    ({"size": [4, 5], "counts": "\x00~\ud800"}, "mask", "do not decode"),
    ({"size": [4, 5], "counts": "oooooooo0"}, "mask", "too large"),
    ({"size": [4, 5], "counts": "_a0"}, "mask", "pixels"),
]


@pytest.mark.parametrize(("segment", "kind", "words"), WRONG)
def test_what_cannot_be_used(segment: Any, kind: str, words: str) -> None:
    with pytest.raises(SegmentError, match=words) as caught:
        read_segment(segment, SIZE)
    assert caught.value.kind == kind


def test_any_characters_are_read_or_refused() -> None:
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(3000):
        text = "".join(map(chr, rng.integers(46, 114, rng.integers(0, 4))))
        try:
            mask = read_segment({"size": [1, 3], "counts": text}, (1, 3))
        except SegmentError:
            continue
        read += 1
        assert mask.decode().shape == (1, 3)
    assert read > 0
