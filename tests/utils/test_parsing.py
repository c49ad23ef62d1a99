from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacavit.utils.parsing import MAX_BYTES, LimitError, parse_json, parse_toml, read_json


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_valid_texts_are_parsed(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, {"b": [["x"]]}], "c": 2**63 - 1}
    file = tmp_path / "value.json"
    file.write_text(json.dumps(value))
    assert read_json(file) == value
    assert parse_json(file.read_bytes()) == value
    assert parse_toml('a.b.c = 1\n[t]\n"x.y" = "1.2.3"') == {
        "a": {"b": {"c": 1}},
        "t": {"x.y": "1.2.3"},
    }


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (nested(33), "nested"),
        (nested(100_000), "nested"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested"),
        ("9" * 5000, "64 bits"),
        ("9" * 20, "64 bits"),
        (f"[{2**63}]", "64 bits"),
        (" " * (MAX_BYTES + 1), "characters"),
    ],
)
def test_json_beyond_the_bounds_is_refused(text: str, reason: str) -> None:
    with pytest.raises(LimitError, match=reason):
        parse_json(text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"a = {nested(33)}", "nested"),
        (f"a = {nested(50_000)}", "nested"),
        ("a = " + "{a=" * 10_000 + "1" + "}" * 10_000, "nested"),
        (".".join("a" * 200_000) + " = 1", "key"),
        ("[" + ".".join("a" * 200_000) + "]", "key"),
        ("x = {" + " . ".join(['"a"', "'b'", "c"] * 50_000) + " = 1}", "key"),
        ("a" * 1_000_000 + ".b" * 40, "key"),
        ("a = " + "9" * 5000, "64 bits"),
        ("a = 0x" + "f" * 5000, "64 bits"),
        ("a = 0b1" + "0" * 64, "64 bits"),
    ],
)
def test_toml_beyond_the_bounds_is_refused(text: str, reason: str) -> None:
    with pytest.raises(LimitError, match=reason):
        parse_toml(text)


@pytest.mark.parametrize("text", ["a = ", "a = 1\na = 2", "a = 2024-13-41", "\0"])
def test_what_is_no_toml_is_no_limit_error(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_toml(text)
    assert not isinstance(caught.value, LimitError)


def test_larger_texts_by_request() -> None:
    text = " " * MAX_BYTES + "[1]"
    assert parse_json(text, len(text)) == [1]
    with pytest.raises(LimitError, match="more than 2 characters"):
        parse_json("[1]", 2)
