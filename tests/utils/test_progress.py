import io
import re

from rich.console import Console

from pacavit.utils.progress import announce, progress, show_progress


def test_a_file_gets_a_line_after_a_second_and_then_every_few_seconds() -> None:
    out = io.StringIO()
    seconds = iter(range(1000))
    with show_progress(Console(file=out)):
        items = list(progress(range(2000, 2012), "reading images", 1200, lambda: next(seconds)))
    assert items == list(range(2000, 2012))
    lines = out.getvalue().splitlines()
    assert lines[0] == "reading images 0/1,200"
    assert 2 <= len(lines) <= 4


def test_quick_work_prints_nothing() -> None:
    out = io.StringIO()
    with show_progress(Console(file=out)):
        list(progress(range(100), "reading images", 100, lambda: 0.0))
    assert out.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    with show_progress(Console(file=out, force_terminal=True, width=100)):
        list(progress(range(10), "reading images", 10))
    assert "reading images" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())


def test_nothing_is_shown_unless_a_caller_wants_it() -> None:
    out = io.StringIO()
    with show_progress(Console(file=out, quiet=True)):
        announce("hello")
        list(progress(range(10), "reading images", 10, lambda: 1e9))
    announce("nobody listens")
    assert list(progress(range(3), "reading images", 3)) == [0, 1, 2]
    assert out.getvalue() == ""
