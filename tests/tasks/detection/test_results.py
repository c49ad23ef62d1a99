"""COCO's result format: what is written is read again; malformed files are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pacavit.data import DataInfo, MemoryObjects, Objects
from pacavit.data.formats.rle import encode_masks
from pacavit.errors import DataError
from pacavit.tasks.detection import Detections
from pacavit.tasks.detection.results import (
    ResultFile,
    file_names,
    result_records,
    results_json,
)

SIZE = (32, 48)


class Images(MemoryObjects):
    """Images in files of these names."""

    names: tuple[str, ...] = ()

    def file(self, index: int) -> Path | None:
        return Path(self.names[index]) if self.names else None


def images(*names: str, num: int = 3) -> Images:
    number = len(names) or num
    none = [replace(Objects.none(SIZE, masks=True), image_id=10 * k) for k in range(number)]
    made = Images(torch.zeros(number, 3, *SIZE, dtype=torch.uint8), none, 2)
    object.__setattr__(made, "names", names)
    return made


def random_detections(seed: int, num: int = 7) -> Detections:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num, 2, 2, generator=generator) * torch.tensor([48.0, 32.0])
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    scores = torch.rand(num, generator=generator).sort(descending=True).values
    labels = torch.randint(0, 2, (num,), generator=generator)
    masks = torch.rand(num, *SIZE, generator=generator) > 0.7
    return Detections(boxes, labels, scores, SIZE, encode_masks(masks))


def read(
    tmp_path: Path,
    content: Any,
    info: DataInfo,
    where: Images | None = None,
    *,
    masks: bool = False,
) -> list[Detections]:
    path = tmp_path / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return ResultFile.read(path).detections(where or images(), info, masks=masks)


def test_what_is_written_is_read_again_bit_for_bit(tmp_path: Path, info: DataInfo) -> None:
    found = [random_detections(seed, num) for seed, num in enumerate((7, 0, 30))]
    records = [
        record
        for k, each in enumerate(found)
        for record in result_records(each, info, 10 * k, None)
    ]
    assert {record["category_id"] for record in records} == {3, 7}
    again = read(tmp_path, results_json(records), info, masks=True)
    for one, other in zip(found, again, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)
        assert one.masks == other.masks
        assert one.size == other.size


def record(**changes: Any) -> dict[str, Any]:
    made = {"image_id": 10, "category_id": 7, "bbox": [1, 2, 10, 20], "score": 0.5, **changes}
    return {name: value for name, value in made.items() if value is not None}


def test_records_are_sorted_by_score_and_belong_to_their_images(
    tmp_path: Path, info: DataInfo
) -> None:
    content = [record(score=0.2), record(score=0.9, category_id=3), record(image_id=20.0)]
    none, two, one = read(tmp_path, content, info)
    assert len(none) == 0
    assert two.scores.tolist() == pytest.approx([0.9, 0.2])
    assert two.labels.tolist() == [0, 1]
    assert one.boxes.tolist() == [[1, 2, 11, 22]]
    assert one.masks is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1.jpg", 0),
        ("val/2.jpg", 1),
        ("/home/me/data/val/2.jpg", 1),
        ("C:\\data\\val\\2.jpg", 1),
        ("a/3.jpg", 2),
    ],
)
def test_file_names_are_found_with_more_folders_or_fewer(
    name: str, expected: int, tmp_path: Path, info: DataInfo
) -> None:
    where = images("val/1.jpg", "val/2.jpg", "val/a/3.jpg", "val/b/3.jpg")
    content = [record(file_name=name, image_id=12345)]
    found = read(tmp_path, content, info, where)
    assert [len(each) for each in found] == [int(k == expected) for k in range(4)]


def test_numbers_are_used_unless_all_records_have_names(tmp_path: Path, info: DataInfo) -> None:
    where = images("1.jpg", "2.jpg")
    content = [record(file_name="1.jpg"), record()]
    assert [len(each) for each in read(tmp_path, content, info, where)] == [0, 2]


def test_masks_alone_give_boxes_and_may_be_runs_or_polygons(tmp_path: Path, info: DataInfo) -> None:
    mask = torch.zeros(1, *SIZE, dtype=torch.bool)
    mask[0, 4:10, 6:20] = True
    [compressed] = encode_masks(mask)
    runs = [6 * 32 + 4, *[6, 26] * 13, 6]
    runs.append(32 * 48 - sum(runs))
    content = [
        record(bbox=None, segmentation=compressed.to_json()),
        record(bbox=None, segmentation={"size": list(SIZE), "counts": runs}),
    ]
    polygon = [[6, 4, 20, 4, 20, 10, 6, 10]]
    content.append(record(bbox=None, segmentation=polygon))
    found = read(tmp_path, content, info, masks=True)[1]
    assert found.boxes.tolist() == [[6, 4, 20, 10]] * 3
    assert found.masks is not None
    assert all(torch.equal(each.decode(), mask[0]) for each in found.masks)


def test_an_empty_list_finds_nothing(tmp_path: Path, info: DataInfo) -> None:
    assert [len(each) for each in read(tmp_path, [], info)] == [0, 0, 0]
    assert not ResultFile.read(tmp_path / "file.json").has_masks


SHORT = {"size": [32, 48], "counts": "0"}

BAD: dict[str, tuple[Any, str]] = {
    "not JSON": (b"[{", "file.json is no JSON file"),
    "not text": (b"\xff\xfe\x00", "file.json is no JSON file"),
    "a number": (3, "does not hold predictions; give a list"),
    "annotations": ({"images": [], "annotations": []}, "holds annotations"),
    "a list of numbers": ([1, 2], "does not hold predictions"),
    "no image": ([record(image_id=None)], "record 1 of .*file.json has no image_id"),
    "unknown image": ([record(), record(image_id=11)], "record 2 .* image_id 11, which none of"),
    "image as text": ([record(image_id="10")], "the image_id '10'"),
    "image as list": ([record(image_id=[10])], r"the image_id \[10\]"),
    "no class": ([record(category_id=None)], "category_id None"),
    "unknown class": ([record(category_id=1)], "category_id 1, which is no class .* 3; 7"),
    "class as text": ([record(category_id="disc")], "category_id 'disc'"),
    "no score": ([record(score=None)], "the score None"),
    "score above 1": ([record(score=87)], r"the score 87; scores are numbers in 0\.\.1"),
    "score not finite": (b'[{"image_id":10,"category_id":7,"bbox":[1,1,1,1],"score":NaN}]', "nan"),
    "no box": ([record(bbox=None)], "the bbox None; give four numbers"),
    "three numbers": ([record(bbox=[1, 2, 3])], r"the bbox \[1, 2, 3\]"),
    "texts": ([record(bbox=["1", "2", "3", "4"])], "give four numbers"),
    "corners": ([record(bbox=[20, 20, -5, 3])], "negative size; it is x, y, width, height"),
    "infinite box": (
        b'[{"image_id":10,"category_id":7,"bbox":[1,1,Infinity,1],"score":0.5}]',
        "give four numbers",
    ),
}
BAD_MASKS: dict[str, tuple[Any, str]] = {
    "no mask": ([record()], "no segmentation, which"),
    "a line": ([record(segmentation=[[1, 1, 5, 5]])], "fewer than three corners"),
    "other size": (
        [record(segmentation={"size": [48, 32], "counts": "0"})],
        "a mask of 32 x 48 pixels, the image 48 x 32",
    ),
    "too short": ([record(segmentation=SHORT)], "mask that does not decode"),
    "too long": ([record(segmentation={**SHORT, "counts": [5000]})], "does not decode"),
    "negative runs": ([record(segmentation={**SHORT, "counts": [-1, 3]})], "does not decode"),
    "not ASCII": ([record(segmentation={**SHORT, "counts": "é"})], "does not decode"),
    "a number": ([record(segmentation={**SHORT, "counts": 3.5})], "does not decode"),
}


@pytest.mark.parametrize(
    ("content", "message", "masks"),
    [
        pytest.param(*row, masks, id=name)
        for rows, masks in ((BAD, False), (BAD_MASKS, True))
        for name, row in rows.items()
    ],
)
def test_malformed_files_are_refused(
    content: Any, message: str, masks: bool, tmp_path: Path, info: DataInfo
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content, info, masks=masks)


def test_missing_and_ambiguous_files_are_refused(tmp_path: Path, info: DataInfo) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            ResultFile.read(path)
    where = images("a/1.jpg", "b/1.jpg")
    with pytest.raises(DataError, match=r"'1\.jpg', which 2 images of the split have"):
        read(tmp_path, [record(file_name="1.jpg")], info, where)
    with pytest.raises(DataError, match=r"'c/1\.jpg', which none of the 2 images"):
        read(tmp_path, [record(file_name="c/1.jpg")], info, where)
    with pytest.raises(DataError, match="file_name 3, which none"):
        read(tmp_path, [record(file_name=3)], info, where)


def test_names_of_files_have_folders_only_where_needed() -> None:
    assert file_names([Path("a/1.jpg"), Path("b/2.jpg")]) == ["1.jpg", "2.jpg"]
    assert file_names([Path("a/1.jpg"), Path("b/1.jpg")]) == ["a/1.jpg", "b/1.jpg"]
