"""Default colors of classes."""

import pytest

from pacavit.data import class_colors


@pytest.mark.parametrize("num", [1, 9, 150, 255])
def test_colors_are_distinct(num: int) -> None:
    colors = class_colors([f"class {number}" for number in range(num)])
    assert len(set(colors)) == num
    assert all(0 <= channel <= 255 for color in colors for channel in color)
    assert class_colors([f"class {number}" for number in range(num)]) == colors


def test_few_classes_differ_clearly() -> None:
    colors = class_colors([str(number) for number in range(12)])
    distances = [
        sum(abs(a - b) for a, b in zip(one, other, strict=True))
        for number, one in enumerate(colors)
        for other in colors[:number]
    ]
    assert min(distances) >= 150


def test_background_is_dark_gray() -> None:
    assert class_colors(["Background", "cat"]) == ((64, 64, 64), *class_colors(["cat"]))
