"""Self-contained HTML pages, one builder a page elsewhere: text, tables and pictures in sections.

A page needs nothing beside its one file: styles and pictures are inside, and its own content policy
forbids any request, and any script but the one it was made with, if any. Every text that is handed
in is escaped.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from markupsafe import Markup

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
    "render",
    "side_by_side",
    "table",
    "template_text",
]

_TEMPLATES = Templates("pacavit.report")


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading of its own.

    Attributes:
        title: the heading; also the entry in the page's list of sections.
        parts: HTML, as the functions below give it.
    """

    title: str
    parts: Sequence[Markup]

    @property
    def anchor(self) -> str:
        """What links to the section name, without the ``#``."""
        return "-".join(self.title.lower().split())


@dataclass(frozen=True)
class Cell:
    """A cell of a table that may be more than its text.

    Attributes:
        text: of the cell.
        share: 0..1, drawn as a bar behind the text; None for no bar.
    """

    text: str
    share: float | None = None


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
        lead: what the page is about, in a sentence or two below the title.
        sections: in order.
        highlights: the few numbers that readers came for, by their names.
        script: JavaScript, run when the page is complete; without ``</script`` in it.
    """
    values = {
        "title": title,
        "lead": lead,
        "sections": sections,
        "highlights": highlights or {},
        "script": Markup(script),  # noqa: S704 (a file of this package)
        "script_hash": b64encode(sha256(script.encode()).digest()).decode(),
    }
    return str(render("page.html", values))


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    text_columns: int = 1,
) -> Markup:
    """A table whose first cells name their rows.

    Args:
        caption: what the table shows.
        header: one heading a column.
        rows: cells, as many as there are headings.
        text_columns: columns of words, from the left; those after them are numbers.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    values = {"caption": caption, "header": header, "rows": cells, "text_columns": text_columns}
    return render("table.html", values)


def facts(pairs: Mapping[str, str], *, title: str = "", emphasis: Collection[str] = ()) -> Markup:
    """Names and what they are, as a list of two columns.

    Args:
        pairs: by name.
        title: above the list.
        emphasis: names to set in bold.
    """
    return render("facts.html", {"pairs": pairs, "title": title, "emphasis": emphasis})


def command(text: str, what: str) -> Markup:
    """A command to copy, below a line that says what it does."""
    return render("command.html", {"text": text, "what": what})


def paragraph(text: str) -> Markup:
    """A paragraph of plain text."""
    return Markup("<p>{}</p>").format(text)


def folded(summary: str, *parts: Markup) -> Markup:
    """Parts that a reader opens by a click on their summary."""
    return render("folded.html", {"summary": summary, "parts": parts})


def side_by_side(*parts: Markup) -> Markup:
    """Parts in columns; below each other where the screen is narrow."""
    columns = Markup("").join(Markup("<div>{}</div>").format(part) for part in parts)
    return Markup('<div class="columns">{}</div>').format(columns)


def environment(found: Mapping[str, Any]) -> Section:
    """Machine and versions, as ``engine.run.environment`` gives them."""
    machine = {
        name.replace("_", " "): str(value) for name, value in found.items() if name != "versions"
    }
    versions = {name: str(number) for name, number in found.get("versions", {}).items()}
    lists = facts(machine, title="machine"), facts(versions, title="versions")
    return Section("Environment", [side_by_side(*lists)])


def picture(light: str, alt: str, caption: str, *, dark: str | None = None) -> Markup:
    """A picture with its caption.

    Args:
        light: data URI of the picture.
        alt: what it shows, for those who cannot see it.
        caption: below it.
        dark: data URI of a version for dark screens; None shows the same one.
    """
    values = {"light": light, "dark": dark, "alt": alt, "caption": caption}
    return render("picture.html", values)


def data_uri(data: bytes, kind: str) -> str:
    """A file as a URI; ``kind`` is its media type, such as ``image/png``."""
    return f"data:{kind};base64,{b64encode(data).decode()}"


def data_block(name: str, values: Any) -> Markup:
    """Values for a page's script, as JSON in an element with the id ``name``."""
    # "<" could end the element.
    text = json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")
    return Markup('<script type="application/json" id="{}">{}</script>').format(name, Markup(text))  # noqa: S704


def template_text(name: str) -> str:
    """A file of the templates' folder, as it is."""
    return _TEMPLATES.text(name)


def number(value: float, *, digits: int = 4) -> str:
    """A number as pages show it, with grouped thousands."""
    return f"{value:,.{digits}f}"


def percent(value: float) -> str:
    """A share of 0..1 as pages show it."""
    return f"{100 * value:.1f} %"


def render(template: str, values: Mapping[str, Any]) -> Markup:
    """Fill a template of this package; texts are escaped, ``Markup`` is taken as it is."""
    return _TEMPLATES.render(template, values)
