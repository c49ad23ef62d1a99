"""Explanations as a folder of pictures with an interactive page and JSON, and on the console."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pacavit.explain import Explanation, FailedImage, MapChoice
from pacavit.report import html
from pacavit.report.explanation import classification, detection, segmentation
from pacavit.report.explanation.base import PAGES, ExplanationPages, WrittenImage
from pacavit.report.explanation.pictures import choice_parts
from pacavit.report.folders import check_folder
from pacavit.utils import files
from pacavit.utils.command import Command
from pacavit.utils.text import shown

__all__ = [
    "NUMBERS",
    "PAGE",
    "ExplainedImage",
    "check_explanation_folder",
    "explanations_json",
    "print_explanations",
    "write_explanations",
]

REGISTERED = (classification, detection, segmentation)
"""The modules whose import registers the kinds of this package."""
PAGE, NUMBERS = "index.html", "explanations.json"
_EXPLORED = 24  # images on the page, of up to a megabyte each
_LONGEST_NAME = 240  # bytes; file systems allow 255, and a number may follow


@dataclass(frozen=True)
class ExplainedImage:
    """The files and the record of one explained image.

    Attributes:
        path: the image file.
        folder: contains its pictures; None if there was an error.
        numbers: its record in ``explanations.json``.
        error: why it could not be explained, in one line; None if it could.
        line: its result in a few words; empty if there was an error.
    """

    path: Path
    folder: Path | None
    numbers: Mapping[str, Any]
    error: str | None = None
    line: str = ""


def check_explanation_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is not empty, or with ``overwrite`` one without explanations.

    Raises:
        PacavitError: the folder is refused, or it is a file.
    """
    check_folder(out, mark=NUMBERS, what="explanations", overwrite=overwrite)


def write_explanations(
    explanations: Iterable[Explanation | FailedImage],
    out: Path,
    *,
    title: str,
    overwrite: bool = False,
) -> list[ExplainedImage]:
    """Write a folder of pictures per image, ``index.html`` and ``explanations.json``.

    Args:
        explanations: all of one kind; an iterator keeps only one of them in memory at a time.
        out: the folder.
        title: of the page.
        overwrite: replace the explanations in the folder.

    Raises:
        PacavitError: the folder holds something else, or cannot be written.
    """
    check_explanation_folder(out, overwrite=overwrite)
    written: list[ExplainedImage] = []
    explored: list[WrittenImage] = []
    pages: ExplanationPages[Any] | None = None
    choice: MapChoice | None = None
    with files.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        files.empty_folder(out, last=NUMBERS)
        # This file marks the folder as explanations, even if writing the pictures fails.
        (out / NUMBERS).write_text(explanations_json([]) + "\n", "utf-8")
    taken = {out / PAGE, out / NUMBERS}
    # Explanations are computed in this loop; an OSError of the iterator is not a failed write.
    for explanation in explanations:
        if isinstance(explanation, FailedImage):
            failed = {"path": shown(explanation.path), "error": explanation.error}
            written.append(ExplainedImage(explanation.path, None, failed, explanation.error))
            continue
        pages = pages or PAGES.get(explanation.kind)()
        with files.writing(out):
            folder = _free_name(out, explanation.path.stem, taken)
            found = pages.write(explanation, folder)
        taken.add(folder)
        numbers = {**_record(explanation, folder), **found.numbers}
        line = pages.line(found.numbers)
        written.append(ExplainedImage(explanation.path, folder, numbers, line=line))
        choice = choice or explanation.choice
        if len(explored) < _EXPLORED:
            explored.append(found)
    page = _page(title, written, explored, pages, choice)
    with files.writing(out):
        (out / PAGE).write_text(page, "utf-8")
        (out / NUMBERS).write_text(explanations_json(written) + "\n", "utf-8")
    return written


def explanations_json(explained: Sequence[ExplainedImage]) -> str:
    """A JSON list with one object per image."""
    return json.dumps([image.numbers for image in explained], indent=2)


def print_explanations(
    explained: Sequence[ExplainedImage], out: Path, *, console: Console | None = None
) -> None:
    """Print one line per image, what was measured about the maps, and the path of the page.

    Images with an error are left out.
    """
    console = console or Console()
    for image in explained:
        if image.error is None:
            where = shown(image.folder) if image.folder is not None else ""
            line = f"{shown(image.path)}: {image.line}, in {where}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    notes = [
        (image.numbers["note"], tuple(image.numbers["measure"]))
        for image in explained
        if image.error is None and image.numbers["note"]
    ]
    for note, words in dict.fromkeys(notes):
        line = f"{note} Measure it: {Command(words)}" if words else note
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"page in {shown(out / PAGE)}", markup=False, highlight=False, soft_wrap=True)


def _free_name(out: Path, stem: str, taken: Collection[Path]) -> Path:
    """A folder named after an image, in UTF-8 and without backslashes, so that it can be zipped."""
    name = stem if shown(stem) == stem else shown(stem).replace("\\", "%")
    name = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    folder, number = out / name, 2
    while folder in taken:
        folder, number = out / f"{name}-{number}", number + 1
    return folder


def _record(explanation: Explanation, folder: Path) -> dict[str, Any]:
    """What the records of all kinds of explanations begin with."""
    choice = explanation.choice
    return {
        "path": shown(explanation.path),
        "error": None,
        "folder": shown(folder),
        "note": choice.note,
        "measure": choice.command.json if choice.command else [],
    }


def _page(
    title: str,
    written: Sequence[ExplainedImage],
    explored: Sequence[WrittenImage],
    pages: ExplanationPages[Any] | None,
    choice: MapChoice | None,
) -> str:
    failed = [image for image in written if image.error is not None]
    sections = []
    script, lead = "", "None of the images could be explained."
    if pages is not None:
        data = [image.data for image in explored]
        script, lead, parts = pages.script(), pages.lead(data[0]), pages.explorer(data)
        done = len(written) - len(failed)
        if len(explored) < done:
            parts.append(
                html.paragraph(
                    f"This page shows the first {len(explored)} of {done} images; the pictures of "
                    "the others are in folders beside it."
                )
            )
        if choice is not None:
            parts = [*choice_parts(choice), *parts]
        sections.append(html.Section("Explore", parts))
        sections.extend(
            html.Section(
                f"{number}. {image.data['name']}",
                [html.paragraph(image.data["label"]), image.pictures],
            )
            for number, image in enumerate(explored, 1)
        )
    if failed:
        parts = [html.paragraph(image.error or "") for image in failed]
        sections.append(html.Section("Images that could not be explained", parts))
    return html.page(title, lead, sections, script=script)
