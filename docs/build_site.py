"""Build the documentation site into ``site/``, and check that it is whole and needs no network.

::

    make docs

Three steps: the pages of the command line and of the fields of recipes are written from the
commands and from the schema, Zensical builds
all pages (its warnings are errors), and the result is read again: no page may load anything from
another host, every link and picture of a page must exist, and the reference must be complete.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import typer

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
REFERENCE = ROOT / "docs" / "reference"
CLI_PAGE = REFERENCE / "cli.md"
CLI_WIDTH = 88
FIELDS_PAGE = REFERENCE / "fields.md"
EXPECTED = re.compile("Build started|Build finished in .*|No issues found")

# Attributes that make a browser fetch what they name. A link fetches nothing with these relations.
LOADING = {"src", "srcset", "data", "poster"}
NOT_FETCHED = {"alternate", "canonical", "edit", "next", "prev", "search"}
# The theme's script can fetch these, each only for elements of a kind that no page may have.
LAZY_SCRIPTS = {
    "https://api.github.com/": 'data-md-component="source"',
    "https://cdn.jsdelivr.net/pyodide/": "pyodide",
    "https://unpkg.com/ace-builds": "pyodide",
    "https://unpkg.com/glightbox": "glightbox",
    "https://unpkg.com/mermaid": 'class="mermaid"',
    "https://unpkg.com/pyodide": "pyodide",
    "https://unpkg.com/resize-observer-polyfill": "",  # only browsers older than 2020
}
NAMESPACES = "http://www.w3.org/"  # names of XML dialects, never fetched


def main() -> None:
    """Write, build, check; exits with 1 and a line for each fault."""
    write_cli_page(CLI_PAGE)
    write_fields_page(FIELDS_PAGE)
    build()
    faults = [*outside_requests(SITE), *broken_links(SITE), *undocumented(SITE, REFERENCE)]
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201
    if faults:
        sys.exit(1)


def build() -> None:
    """Build every page anew with warnings as errors."""
    zensical = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(zensical, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    report = re.sub("\x1b\\[[0-9;]*m", "", done.stdout + done.stderr)  # without colors
    # Zensical does not count what is logged of docstrings, such as a parameter that is not there.
    unexpected = [line for line in report.splitlines() if line and not EXPECTED.fullmatch(line)]
    if done.returncode or unexpected:
        sys.exit(f"{report}\nthe site could not be built without warnings")


def write_cli_page(path: Path) -> None:
    """A page with the help of every command, as the command prints it."""
    from pacavit_cli.main import app

    group: Any = typer.main.get_command(app)
    parts = [
        "# Command line",
        "Generated from the commands. A command is also a function of the same name in "
        "`pacavit.api` (`list` is `list_names`), with the same arguments; `fields` is "
        "`recipe_fields`, which returns all.",
        _help_block(group, "pacavit", None),
    ]
    parent = group.make_context("pacavit", [], resilient_parsing=True)
    for name, command in group.commands.items():
        if not command.hidden:
            parts += [f"## pacavit {name}", _help_block(command, name, parent)]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_fields_page(path: Path) -> None:
    """A page with a table of the fields of each section of a recipe."""
    from pacavit.api import recipe_fields

    titles = {
        "": "The recipe",
        "task": "task: for every task",
        "data": "data: which images",
        "model": "model: which network",
        "train": "train: how it is trained",
    }
    groups: dict[str, list[str]] = {}
    for each in recipe_fields():
        section = each.name.partition(".")[0] if "." in each.name else ""
        tasks = " or ".join(f'"{task}"' for task in each.tasks)
        title = f"task: with `task.name = {tasks}`" if tasks else titles[section]
        kind, meaning = (
            re.sub(r"([*|\[\]])", r"\\\1", text) for text in (each.type, each.description)
        )
        default = f"`{each.default}`" if each.default else "required"
        row = f"| `{each.name}` | {kind} | {default} | {meaning} |"
        groups.setdefault(title, []).append(row)
    parts = [
        "# Fields of a recipe",
        "Generated from the schema; `pacavit fields [SECTION]` prints the same. Each field can be "
        "set on the command line, `--set FIELD=VALUE`, where `null` unsets it, and in a recipe "
        "file, see [Train on your own images](../guides/train.md).",
    ]
    for title, rows in groups.items():
        head = "| field | type | default | meaning |\n|---|---|---|---|"
        parts += [f"## {title}", "\n".join([head, *rows])]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _help_block(command: Any, name: str, parent: Any) -> str:
    """The help of one command without colors and boxes."""
    command.rich_markup_mode = None
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, max_content_width=CLI_WIDTH
    )
    context.terminal_width = CLI_WIDTH
    return f"```text\n{command.get_help(context).rstrip()}\n```"


@dataclass
class Page(HTMLParser):
    """What one page links and loads.

    Attributes:
        loads: addresses that a browser fetches to show the page.
        links: addresses that a reader may click on.
        anchors: ids that links can lead to.
    """

    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses and ids of one element."""
        values = {name: value for name, value in attrs if value is not None}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        for name in LOADING & values.keys():
            entries = values[name].split(",") if name == "srcset" else [values[name]]
            self.loads += [entry.split()[0] for entry in entries if entry.split()]
        if "href" not in values:
            return
        if tag == "a":
            self.links.append(values["href"])
        elif tag != "base" and values.get("rel", "") not in NOT_FETCHED:
            self.loads.append(values["href"])


def read_page(path: Path) -> Page:
    """Parse one HTML file."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def outside_requests(site: Path) -> Iterator[str]:
    """A line for everything in a built site that a browser would fetch from another host."""
    pages = sorted(site.rglob("*.html"))
    sources = {path: path.read_text(encoding="utf-8") for path in pages}
    for path in pages:
        for address in read_page(path).loads:
            if _is_outside(address):
                yield f"{path}: loads {address}"
    for path in sorted(site.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        for address in re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")\s;]+)", text):
            if _is_outside(address):
                yield f"{path}: loads {address}"
    for path in sorted(site.rglob("*.js")):
        if path.name == "search.js":  # the text of the pages
            continue
        for address in re.findall(r"https?://[\w./@-]+", path.read_text(encoding="utf-8")):
            if address.startswith(NAMESPACES):
                continue
            marker = next((m for url, m in LAZY_SCRIPTS.items() if address.startswith(url)), None)
            if marker is None:
                yield f"{path}: may load {address}, which is not known; see LAZY_SCRIPTS"
            elif marker:
                users = [str(page) for page, text in sources.items() if marker in text]
                if users:
                    yield f"{path}: loads {address} for {', '.join(users)}"


def broken_links(site: Path) -> Iterator[str]:
    """A line for every address within a built site that leads nowhere."""
    pages = {path.resolve(): read_page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        if path.name == "404.html":  # its addresses are relative to whatever was asked for
            continue
        for address in (*page.loads, *page.links):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or not address:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{path}: {address} does not exist"
            elif target in pages and parts.fragment and parts.fragment not in pages[target].anchors:
                yield f"{path}: {address} has no such anchor"


def undocumented(site: Path, reference: Path) -> Iterator[str]:
    """A line for every public class and function of the referenced packages that no page describes.

    mkdocstrings leaves out in silence what has no docstring or cannot be found in the sources.
    """
    pages = site.rglob("*.html")
    described = {anchor.rpartition(".")[2] for path in pages for anchor in read_page(path).anchors}
    for page in sorted(reference.glob("*.md")):
        for name in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            try:
                module = importlib.import_module(name)
            except ModuleNotFoundError:  # a class or function
                continue
            for public in getattr(module, "__all__", ()):
                value = getattr(module, public)
                if hasattr(value, "__deprecated__"):
                    continue
                if (inspect.isclass(value) or inspect.isroutine(value)) and public not in described:
                    yield f"{page}: {name}.{public} is not described; has it a docstring?"


def _is_outside(address: str) -> bool:
    return address.startswith(("http:", "https:", "//"))


if __name__ == "__main__":
    main()
