"""Commands: from words to shell text and back."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pacavit.utils.command import Command, pacavit_command


def test_options_become_words() -> None:
    command = pacavit_command(
        "explain-evaluate",
        Path("runs/a"),
        out="DIR",
        data=None,
        limit=20,
        overwrite=True,
        no_cache=True,
        resume=False,
        set=("a=1", "b=[1, 2]"),
    )
    assert command.argv == (
        *("pacavit", "explain-evaluate", "runs/a", "--out", "DIR", "--limit", "20"),
        *("--overwrite", "--no-cache", "--set", "a=1", "--set", "b=[1, 2]"),
    )
    assert str(command) == (
        "pacavit explain-evaluate runs/a --out DIR --limit 20 --overwrite --no-cache --set a=1 "
        "--set 'b=[1, 2]'"
    )


def test_files_hold_the_words_as_a_list() -> None:
    command = pacavit_command("evaluate", "my run", split="val")
    assert json.loads(json.dumps(command.json)) == [
        "pacavit",
        "evaluate",
        "my run",
        *("--split", "val"),
    ]


@pytest.mark.parametrize(
    "word", ["", "a b", "it's", 'say "x"', "$HOME", "*", "~/x", "\\n", "grün", "IMAGE...", "a;b"]
)
def test_a_posix_shell_reads_the_same_words(word: str) -> None:
    command = Command(("pacavit", word))
    assert shlex.split(str(command)) == ["pacavit", word]


@pytest.mark.parametrize("name", [b"old \xfc zip", b"two\nlines", b"it's \\ \x7f \t", b"\x1b[31m"])
def test_names_that_cannot_be_shown_are_escaped_and_still_work(name: bytes) -> None:
    word = os.fsdecode(name)
    text = str(
        Command((sys.executable, "-c", "import os, sys; print(os.fsencode(sys.argv[1]))", word))
    )
    assert "\n" not in text
    text.encode()  # can be written and shown
    shown = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == repr(name)


def test_plugins_stand_before_the_verb() -> None:
    command = pacavit_command("train", "digits", out="DIR")
    assert command.with_plugins([]) == command
    found = command.with_plugins(["my own.py", Path("b.py")])
    assert str(found) == "pacavit --plugin 'my own.py' --plugin b.py train digits --out DIR"
