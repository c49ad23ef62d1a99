"""Serve the web demo."""

from __future__ import annotations

from collections.abc import Sequence

from pacavit.api._console import print_line
from pacavit.demo import HOST, PORT, serve
from pacavit.report.explanation.page import write_explanations

__all__ = ["demo"]


def demo(
    models: Sequence[str] = (), *, host: str = HOST, port: int = PORT, browser: bool = False
) -> None:
    """Serve a page that explains uploaded images, until Ctrl-C.

    Args:
        models: run folders, weights files or packaged names to choose from, in addition to the
            packaged weights, which come last.
        host: address to listen on; the default accepts connections from this machine only.
        port: port to listen on; 0 chooses a free one.
        browser: open the page in a browser.

    Raises:
        PacavitError: the extra ``demo`` is missing, a model cannot be loaded, or the port is in
            use.
    """
    serve(models, host=host, port=port, browser=browser, write=write_explanations, log=print_line)
