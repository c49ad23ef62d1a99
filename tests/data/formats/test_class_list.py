"""Lists of classes in all their forms, and what is wrong in them."""

from pathlib import Path

import pytest

from pacavit.data.formats.class_list import ListedClass, read_class_list
from pacavit.errors import DataError

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "sky\n\nroad sign\n", [("sky", None, None), ("road sign", None, None)]),
        ("a.txt", "7 sky\n9\troad\n", [("sky", 7, None), ("road", 9, None)]),
        ("a.txt", "sky 255 0 0\nroad, 0, 0, 255\n", [("sky", None, RED), ("road", None, BLUE)]),
        ("a.txt", "255 0 0 sky\n0 0 255 road\n", [("sky", None, RED), ("road", None, BLUE)]),
        ("a.txt", "#ff0000 sky\nroad #0000FF\n", [("sky", None, RED), ("road", None, BLUE)]),
        ("a.txt", "1 sky 255 0 0\n2 road 0 0 255\n", [("sky", 1, RED), ("road", 2, BLUE)]),
        ("a.txt", "1 255 0 0 sky\n2 0 0 255 road\n", [("sky", 1, RED), ("road", 2, BLUE)]),
        ("a.txt", "300 a, b\n65535 3d\n", [("a, b", 300, None), ("3d", 65535, None)]),
        # CVAT's label map, ADE20K's table, a table of colors
        ("a.txt", "# label:color\nsky:255,0,0::\n", [("sky", None, RED)]),
        ("a.txt", "Idx\tRatio\tName\n1\t0.2\tsky, air\n", [("sky, air", 1, None)]),
        ("a.csv", "name,r,g,b\nsky,255,0,0\n", [("sky", None, RED)]),
        ("a.csv", "id;label;color\n4;sky;#ff0000\n", [("sky", 4, RED)]),
        ("a.csv", 'id,label\n4,"sky, air"\n', [("sky, air", 4, None)]),
        ("a.json", '["sky", "road"]', [("sky", None, None), ("road", None, None)]),
        (
            "a.json",
            '{"sky": [255, 0, 0], "road": "#0000ff"}',
            [("sky", None, RED), ("road", None, BLUE)],
        ),
        ("a.json", '{"sky": 4, "road": 2}', [("sky", 4, None), ("road", 2, None)]),
        ("a.json", '{"4": "sky", "2": "road"}', [("sky", 4, None), ("road", 2, None)]),
        ("a.json", '[{"name": "sky", "id": 1, "color": "(255, 0, 0)"}]', [("sky", 1, RED)]),
    ],
)
def test_forms(tmp_path: Path, name: str, text: str, expected: list[tuple[object, ...]]) -> None:
    (tmp_path / name).write_text(text)
    found = read_class_list(tmp_path / name)
    assert [(entry.name, entry.value, entry.color) for entry in found] == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "", "has no classes"),
        ("a.txt", "sky\nroad\nsky\n", "has the name 'sky' more than once"),
        ("a.txt", "1 sky\n1 road\n", r"has the value 1 more than once \(sky; road\)"),
        ("a.txt", "sky 255 0 0\nroad 255 0 0\n", r"color #ff0000 more than once \(sky; road\)"),
        ("a.txt", "1 sky\nroad\n", "some classes have a value, and others have none: road"),
        ("a.txt", "sky 1 2 3\nroad\n", "some classes have a color, and others have none: road"),
        ("a.txt", "sky\n7\n", "line 2: '7' is not understood"),
        ("a.txt", "1 2 sky\n", "line 1: '1 2 sky' is not understood"),
        ("a.txt", "70000 sky\n", "value '70000' is not a number of 0 to 65535"),
        ("a.txt", "sky 300 0 0\n", "'300 0 0' is no color"),
        ("a.txt", "\n".join(f"class {number}" for number in range(256)), "256 classes.*255"),
        ("a.csv", "name,r,g,b\nsky,255\n", "line 2: 2 cells instead of 4"),
        ("a.csv", "id,name\n1,sky\n2,\n", "has a class without a name"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "3", "holds no list of classes, but int"),
        ("a.json", "[3]", "class 1 is neither a name nor"),
        ("a.json", '[{"id": 3}]', "class 1 has no name"),
        ("a.json", '{"sky": true}', "True is no color"),
    ],
)
def test_faults(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        read_class_list(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="not a text in UTF-8"):
        read_class_list(tmp_path / "a.txt")
    with pytest.raises(DataError, match="cannot read"):
        read_class_list(tmp_path)


def test_a_byte_order_mark_is_no_letter(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffsky\n".encode())
    assert read_class_list(tmp_path / "a.txt") == (ListedClass("sky"),)
