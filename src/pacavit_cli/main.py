"""The ``pacavit`` command: global options, the verbs, and how errors reach the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.bench import bench
from pacavit_cli.compare import compare
from pacavit_cli.console import echo, expand_home, short_warnings, tolerant_output
from pacavit_cli.convert import convert
from pacavit_cli.demo import demo
from pacavit_cli.evaluate import evaluate
from pacavit_cli.explain import explain
from pacavit_cli.explain_evaluate import explain_bench, explain_evaluate
from pacavit_cli.export import export
from pacavit_cli.fields import fields
from pacavit_cli.list import list_
from pacavit_cli.predict import predict
from pacavit_cli.reproduce import reproduce
from pacavit_cli.serve import serve
from pacavit_cli.train import train

__all__ = ["app", "main"]

USAGE_ERROR = 2
INTERRUPTED = 130

# ``main`` decides which errors are shown with a traceback, so Typer's own tracebacks are off.
app = typer.Typer(name="pacavit", no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(explain)
app.command()(explain_evaluate)
app.command("explain-bench", hidden=True)(explain_bench)
app.command()(demo)
app.command()(serve)
app.command()(compare)
app.command()(bench)
app.command()(reproduce)
app.command()(convert)
app.command()(export)
app.command("list")(list_)
app.command()(fields)


@dataclass
class Session:
    """The values of global options that ``main`` needs."""

    debug: bool = False


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            echo(f"pacavit {version('pacavit')}")
        except PackageNotFoundError:
            echo("pacavit, run from its source tree without being installed")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.py", help="Load a file with your own clusterings; repeatable."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Vision transformers whose attention runs from patches to clusters (PaCa-ViT)."""
    context.ensure_object(Session).debug = debug
    if plugin:
        from pacavit import load_plugin

        for path in plugin:
            load_plugin(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for a user's error, 130 for Ctrl-C.

    Args:
        arguments: the words after ``pacavit``; None takes those of this process.

    Raises:
        Exception: with ``--debug`` any error; otherwise errors that are bugs of this package.
    """
    # Read by GNU OpenMP when torch is loaded. By default its threads spin long at every barrier,
    # which makes training up to ten times slower as soon as another program uses a core.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Operations that torch lacks on Apple's GPU run on the CPU, instead of being an error.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    words = [expand_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    with tolerant_output(), short_warnings():
        return _run(words)


def _run(words: Sequence[str]) -> int:
    session = Session()
    try:
        # Not standalone, so that Typer raises its errors and returns exit codes.
        code = app(words, prog_name="pacavit", standalone_mode=False, obj=session) or 0
    except typer.TyperException as error:
        if message := error.format_message():  # empty where Typer has just printed the help
            _print_error(message + " (help: pacavit --help)")
        return USAGE_ERROR
    except Exception as error:
        # Imported here, so that --help does not load the library.
        from pacavit.errors import Interrupted, PacavitError, ReportedElsewhere

        if isinstance(error, ReportedElsewhere):
            return USAGE_ERROR
        if isinstance(error, Interrupted):
            echo(f"interrupted: {error}", err=True)
            return INTERRUPTED
        # OSErrors are errors of the user too: no permission, full disk.
        if session.debug or not isinstance(error, PacavitError | OSError):
            raise
        _print_error(str(error))
        return USAGE_ERROR
    if code == INTERRUPTED:  # Ctrl-C anywhere else
        echo("interrupted", err=True)
    return code


def _print_error(message: str) -> None:
    echo("error: " + " ".join(message.split()), err=True)
