"""Building blocks of self-contained HTML pages: sections of text, tables and pictures.

A page is a single file with its styles and pictures inside. Its content security policy forbids all
requests, and all scripts but the page's own. All text arguments are escaped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from pacavit.utils.command import Command
from pacavit.utils.pictures import base64_text, data_uri
from pacavit.utils.templates import Templates

__all__ = [
    "Cell",
    "Section",
    "command",
    "data_block",
    "data_uri",
    "environment",
    "facts",
    "folded",
    "number",
    "page",
    "paragraph",
    "percent",
    "picture",
    "relative_link",
    "render",
    "side_by_side",
    "table",
    "template_text",
]

_TEMPLATES = Templates("pacavit.report")


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: the heading, also shown in the page's navigation.
        parts: HTML, as the functions below return it.
    """

    title: str
    parts: Sequence[Markup]

    @property
    def anchor(self) -> str:
        """The id of the section for links, without the ``#``."""
        return "-".join(self.title.lower().split())


@dataclass(frozen=True)
class Cell:
    """A cell of a table, optionally with a bar.

    Attributes:
        text: of the cell.
        bar: length of a bar behind the text, 0..1; None for no bar.
        link: URL that the text leads to; None for no link.
    """

    text: str
    bar: float | None = None
    link: str | None = None


def page(
    title: str,
    lead: str,
    sections: Sequence[Section],
    *,
    highlights: Mapping[str, str] | None = None,
    script: str = "",
) -> str:
    """A complete HTML document, for light and dark screens of any width.

    Args:
        title: of the document.
        lead: a summary of one or two sentences below the title.
        sections: in order.
        highlights: the most important numbers by name, shown at the top.
        script: JavaScript that runs when the page is loaded; it must not contain ``</script``.
    """
    values = {
        "title": title,
        "lead": lead,
        "sections": sections,
        "highlights": highlights or {},
        "script": Markup(script),  # noqa: S704 (a file of this package)
        "script_hash": base64_text(sha256(script.encode()).digest()),
    }
    return str(render("page.html", values))


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    text_columns: int = 1,
) -> Markup:
    """A table whose first column holds the names of the rows.

    Args:
        caption: what the table shows.
        header: one heading per column.
        rows: cells, as many as there are headings.
        text_columns: number of columns of text, from the left; the others hold numbers.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    values = {"caption": caption, "header": header, "rows": cells, "text_columns": text_columns}
    return render("table.html", values)


def facts(pairs: Mapping[str, str], *, title: str = "", emphasis: Collection[str] = ()) -> Markup:
    """Names and values as a list in two columns.

    Args:
        pairs: values by name.
        title: above the list.
        emphasis: names to set in bold.
    """
    return render("facts.html", {"pairs": pairs, "title": title, "emphasis": emphasis})


def command(command: Command, what: str) -> Markup:
    """A command to copy, below a line of text on what it does."""
    return render("command.html", {"text": str(command), "what": what})


def paragraph(text: str) -> Markup:
    """A paragraph of plain text."""
    return Markup("<p>{}</p>").format(text)


def folded(summary: str, *parts: Markup) -> Markup:
    """Parts that are hidden until a reader clicks their summary."""
    return render("folded.html", {"summary": summary, "parts": parts})


def side_by_side(*parts: Markup) -> Markup:
    """Parts in columns; below each other on narrow screens."""
    columns = Markup("").join(Markup("<div>{}</div>").format(part) for part in parts)
    return Markup('<div class="columns">{}</div>').format(columns)


def environment(found: Mapping[str, Any]) -> Section:
    """A section with machine and versions, as ``engine.run.environment`` returns them."""
    machine = {
        name.replace("_", " "): str(value)
        for name, value in found.items()
        if name not in ("versions", "plugins")
    }
    versions = {name: str(number) for name, number in found.get("versions", {}).items()}
    plugins = {name: f"SHA-256 {digest}" for name, digest in found.get("plugins", {}).items()}
    lists = [facts(machine, title="machine"), facts(versions, title="versions")]
    shown = [side_by_side(*lists)]
    if plugins:
        shown.append(facts(plugins, title="plug-ins"))
    return Section("Environment", shown)


def picture(light: str, alt: str, caption: str, *, dark: str | None = None) -> Markup:
    """A picture with its caption.

    Args:
        light: data URL of the picture.
        alt: alternative text for readers who cannot see it.
        caption: below it.
        dark: data URL of a version for dark screens; None uses the same one.
    """
    values = {"light": light, "dark": dark, "alt": alt, "caption": caption}
    return render("picture.html", values)


def relative_link(*names: str, anchor: str = "") -> str:
    """The URL of a file below the folder of a page.

    Args:
        *names: of folders and, last, the file.
        anchor: of a section in it.
    """
    path = "/".join(quote(os.fsencode(name)) for name in names)
    return f"{path}#{quote(anchor)}" if anchor else path


def data_block(name: str, values: Any) -> Markup:
    """JSON values for a page's script, in an element with the id ``name``."""
    # An unescaped "<" could end the element.
    text = json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")
    return Markup('<script type="application/json" id="{}">{}</script>').format(name, Markup(text))  # noqa: S704


def template_text(name: str) -> str:
    """The text of a file in the folder of templates, not filled in."""
    return _TEMPLATES.text(name)


def number(value: float, *, digits: int = 4) -> str:
    """A number with grouped thousands."""
    return f"{value:,.{digits}f}"


def percent(value: float) -> str:
    """A fraction 0..1 in percent."""
    return f"{100 * value:.1f} %"


def render(template: str, values: Mapping[str, Any]) -> Markup:
    """Fill a template of this package; text is escaped, ``Markup`` is inserted unchanged."""
    return _TEMPLATES.render(template, values)
