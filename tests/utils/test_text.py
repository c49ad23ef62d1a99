import pytest

from pacavit.utils.text import first_few, one_line


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("two\n  lines"), False, "two lines"),
        (ValueError("two\n  lines"), True, "ValueError: two lines"),
        (ValueError(), False, "ValueError"),
        (ValueError(), True, "ValueError"),
    ],
)
def test_one_line(error: Exception, kind: bool, text: str) -> None:
    assert one_line(error, kind=kind) == text


def test_first_few() -> None:
    assert first_few(["a", "b", "c"]) == "a; b; c"
    assert first_few(["a", "b", "c", "d", "e"]) == "a; b; c (and 2 more)"
