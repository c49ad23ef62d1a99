import os

import pytest

from pacavit.utils.text import first_few, one_line, shown


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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain name.png", "plain name.png"),
        ("caf\xe9 \u65e5\u672c \U0001f426.png".encode(), "caf\xe9 \u65e5\u672c \U0001f426.png"),
        (b"caf\xe9.png", r"caf\xe9.png"),
        ("caf\xe9".encode() + b"\xff", "caf\xe9\\xff"),
        (b"new\nline\ttab\x1b[31m", r"new\nline\ttab\x1b[31m"),
        ("line\u2028separator".encode(), r"line\u2028separator"),
        (b"back\\slash", r"back\slash"),
    ],
)
def test_names_are_shown_as_one_line_of_utf8(name: bytes, text: str) -> None:
    assert shown(os.fsdecode(name)) == text
    assert shown(text) == text
    text.encode()


def test_surrogates_of_windows_are_shown_too() -> None:
    assert shown("a\ud800b") == r"a\ud800b"
