"""Input and output of the command line for all shells and terminals."""

from __future__ import annotations

import codecs
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

__all__ = ["echo", "expand_home", "short_warnings", "tolerant_output"]

_ERRORS = "pacavit.plain"  # the name of an error handler of codecs
_PLAIN = {"█": "#", "±": "+-", "↑": "^", "↓": "v", "…": "..."}
_PACKAGES = tuple(
    str(Path(__file__).parents[1] / name) + os.sep for name in ("pacavit", "pacavit_cli")
)
_HOME = re.compile(r"([^=]*=){0,2}(?P<path>~.*)", re.DOTALL)


def echo(text: str, *, err: bool = False) -> None:
    """Print a line to stdout or stderr, in the encoding of the stream.

    ``typer.echo`` writes UTF-8 to streams that are ASCII.
    """
    print(text, file=sys.stderr if err else sys.stdout, flush=True)


def expand_home(word: str) -> str:
    """Replace ``~`` by the home folder where a word of a command line names a path with it.

    Shells do so at the beginning of a word, but most do not in ``--data=~/x`` or
    ``--set data.root=~/x``.
    """
    found = _HOME.fullmatch(word)
    if found is None:
        return word
    start = found.start("path")
    return word[:start] + os.path.expanduser(word[start:])  # noqa: PTH111 ("~" alone stays text)


@contextmanager
def short_warnings() -> Iterator[None]:
    """Print warnings of this package as one line, without a place in its source."""
    before = warnings.formatwarning

    def format_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if filename.startswith(_PACKAGES):
            return f"warning: {message}\n"
        return before(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def tolerant_output() -> Iterator[None]:
    r"""Let stdout and stderr replace characters that their encoding lacks, instead of failing.

    Bars, arrows and ± become ASCII characters. All others are escaped, also bytes of file names
    that are not UTF-8: ``caf\xe9.png``.
    """
    with ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # the streams of some IDEs do not have it
                stack.enter_context(_replacing(stream))
        yield


@contextmanager
def _replacing(stream: TextIO) -> Iterator[None]:
    reconfigure = stream.reconfigure  # type: ignore[attr-defined]  # of TextIOWrapper
    before = stream.errors
    reconfigure(errors=_ERRORS)
    try:
        yield
    finally:
        with suppress(ValueError, OSError):  # closed meanwhile
            reconfigure(errors=before)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The ASCII text for characters that cannot be encoded, and the position after them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain_character, error.object[error.start : error.end])), error.end


def _plain_character(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    number = ord(character)
    if 0x2800 <= number < 0x2900:  # Braille patterns, which spinners are made of
        return "*"
    if 0xDC80 <= number < 0xDD00:  # a byte of a name that is not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode()


codecs.register_error(_ERRORS, _plain)
