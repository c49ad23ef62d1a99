"""Home folders in the words of a command line, and output that every terminal can show."""

import io
import sys
import warnings
from pathlib import Path

import pytest

from pacavit import api
from pacavit_cli.console import echo, expand_home, short_warnings, tolerant_output
from pacavit_cli.main import main


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("~", "/home/me"),
        ("~/x", "/home/me/x"),
        ("--data=~/x", "--data=/home/me/x"),
        ("--out=~", "--out=/home/me"),
        ("data.root=~/x", "data.root=/home/me/x"),
        ("--set=data.root=~/x y", "--set=data.root=/home/me/x y"),
        ("~nobody_of_that_name/x", "~nobody_of_that_name/x"),
        ("a~/x", "a~/x"),
        ("--data", "--data"),
        ("x=y~", "x=y~"),
    ],
)
def test_home_is_expanded_where_shells_leave_it(
    word: str, expanded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home(word) == expanded


def test_home_is_expanded_in_every_path_of_a_verb(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    calls: list[tuple[object, ...]] = []

    def record(*arguments: object, **options: object) -> list[object]:
        calls.append((*arguments, options.get("data"), options.get("set")))
        return []

    monkeypatch.setattr(api, "train", record)
    monkeypatch.setattr(api, "predict", record)
    words = ["train", "~/recipe.toml", "--out=~/run", "--data=~/x", "--set", "model.init=~/w"]
    assert main(words) == 0
    assert main(["predict", "~/run", "~/a.png"]) == 0
    home = tmp_path
    assert calls == [
        (f"{home}/recipe.toml", home / "run", home / "x", [f"model.init={home}/w"]),
        (f"{home}/run", [home / "a.png"], None, None),
    ]


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("ascii", rb"caf\xe9 ## +- ^ ... \u65e5 * \xff"),
        ("cp1252", b"caf\xe9 ## \xb1 ^ \x85 \\u65e5 * \\xff"),
        ("latin-1", b"caf\xe9 ## \xb1 ^ ... \\u65e5 * \\xff"),
        ("utf-8", "café ██ ± ↑ … 日 ⠋ ".encode() + rb"\xff"),
    ],
)
def test_output_is_replaced_where_the_encoding_lacks_it(
    encoding: str, printed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, errors="strict", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # as in some IDEs: it has no encoding
    with tolerant_output():
        echo("café ██ ± ↑ … 日 ⠋ \udcff")
    assert raw.getvalue() == printed + b"\n"
    assert stream.errors == "strict"
    with tolerant_output():
        stream.close()


def test_warnings_of_this_package_are_one_line() -> None:
    own, other = str(Path(api.__file__)), "/elsewhere/torch/serialization.py"
    with short_warnings():
        assert warnings.formatwarning("old name", FutureWarning, own, 3) == "warning: old name\n"
        text = warnings.formatwarning("old name", FutureWarning, other, 3)
    assert text == f"{other}:3: FutureWarning: old name\n"
    assert warnings.formatwarning("old", FutureWarning, own, 3).startswith(own)
