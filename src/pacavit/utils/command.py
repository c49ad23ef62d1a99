"""Command lines as values: built from words, printed and shown as shell text, stored as a list."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacavit.utils.text import shown

__all__ = ["Command", "pacavit_command"]


@dataclass(frozen=True)
class Command:
    """The words of a command line, unquoted.

    ``str(command)`` is text for a POSIX shell, with quotes where they are needed; ``list(argv)`` is
    what goes into JSON files, so that no reader has to parse a shell line.

    Attributes:
        argv: program and arguments.
    """

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(map(_quoted, self.argv))

    def with_plugins(self, plugins: Iterable[str | Path]) -> Command:
        """The command with ``--plugin`` for each of these files."""
        words = (word for plugin in plugins for word in ("--plugin", shown(plugin)))
        return Command((self.argv[0], *words, *self.argv[1:]))

    @property
    def json(self) -> list[str]:
        """The words, as JSON files store them."""
        return list(self.argv)


def pacavit_command(verb: str, *arguments: str | Path, **options: object) -> Command:
    """A call of this package's command line.

    Args:
        verb: such as "train".
        *arguments: positional ones.
        **options: by name, with underscores for hyphens. None and False omit the option, True makes
            it a flag, a list or tuple repeats it; any other value is converted to text.

    Example:
        >>> print(pacavit_command("train", "digits", out="my runs/a", set=["train.epochs=1"]))
        pacavit train digits --out 'my runs/a' --set train.epochs=1
    """
    return Command(("pacavit", verb, *map(shown, arguments), *_words(options)))


def _words(options: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is None or value is False:
            continue
        if value is True:
            words.append(option)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            words += [word for each in value for word in (option, shown(str(each)))]
        else:
            words += [option, shown(str(value))]
    return words


def _quoted(word: str) -> str:
    """A word quoted for a shell, in one line of valid Unicode.

    Line breaks and bytes that are not UTF-8, which file names may hold, are written as in bash and
    zsh: ``$'...'``.
    """
    if not any(ord(letter) < 32 or letter == "\x7f" or _is_byte(letter) for letter in word):
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if ord(letter) < 32 or letter == "\x7f":
        return f"\\x{ord(letter):02x}"
    return f"\\x{os.fsencode(letter)[0]:02x}" if _is_byte(letter) else letter


def _is_byte(letter: str) -> bool:
    """Whether a letter stands for a byte that is not UTF-8 (``os.fsdecode``)."""
    return "\udc80" <= letter <= "\udcff"
