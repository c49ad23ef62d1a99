"""Explanations as a folder of pictures with an interactive page and JSON, and on the console."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from rich.console import Console
from torch import Tensor

from pacavit.explain.choice import MapChoice
from pacavit.explain.images import FailedImage, ImageExplanation, StageClusters
from pacavit.explain.methods.base import METHODS, method_title
from pacavit.explain.render import (
    COLORMAP,
    cluster_colors,
    display_size,
    fitted_size,
    thumbnail,
)
from pacavit.report import html
from pacavit.report.explanation.pictures import BORDER, choice_parts, write_pictures
from pacavit.report.folders import check_folder
from pacavit.utils import files
from pacavit.utils.command import Command
from pacavit.utils.pictures import base64_text, png_uri
from pacavit.utils.text import shown

__all__ = [
    "NUMBERS",
    "PAGE",
    "ExplainedImage",
    "check_explanation_folder",
    "explanations_json",
    "explorer_page",
    "print_explanations",
    "write_explanations",
]

PAGE, NUMBERS = "index.html", "explanations.json"
_CONTRIBUTIONS = (
    "Each patch of an image attends to clusters of patches. The map shows which areas contribute "
    "to the score of the class, by the clusters and by the attention to them; bright areas "
    "contribute most."
)
_LEADS = {
    "cluster_contributions": _CONTRIBUTIONS,
    "cluster_gradient": _CONTRIBUTIONS,
    "class_map": (
        "Each patch of an image attends to clusters of patches. The map shows the clusters that "
        "increase the score of the class; bright clusters do so most."
    ),
    "attention_map": (
        "Each patch of an image attends to clusters of patches. The map shows the clusters that "
        "receive attention, bright ones most; it does not depend on the class."
    ),
}
_EXPLORED = 24  # images on the page, of up to a megabyte each
_THUMBNAIL = 96  # pixels of the longer side
_LONGEST_NAME = 240  # bytes; file systems allow 255, and a number may follow


@dataclass(frozen=True)
class ExplainedImage:
    """The files and the record of one explained image.

    Attributes:
        path: the image file.
        folder: contains its pictures; None if there was an error.
        numbers: its record in ``explanations.json``.
        error: why it could not be explained, in one line; None if it could.
    """

    path: Path
    folder: Path | None
    numbers: Mapping[str, Any]
    error: str | None = None


def check_explanation_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is not empty, or with ``overwrite`` one without explanations.

    Raises:
        PacavitError: the folder is refused, or it is a file.
    """
    check_folder(out, mark=NUMBERS, what="explanations", overwrite=overwrite)


def write_explanations(
    explanations: Iterable[ImageExplanation | FailedImage],
    out: Path,
    *,
    title: str,
    overwrite: bool = False,
) -> list[ExplainedImage]:
    """Write a folder of pictures per image, ``index.html`` and ``explanations.json``.

    Args:
        explanations: an iterator keeps only one of them in memory at a time.
        out: the folder.
        title: of the page.
        overwrite: replace the explanations in the folder.

    Raises:
        PacavitError: the folder holds something else, or cannot be written.
    """
    check_explanation_folder(out, overwrite=overwrite)
    written: list[ExplainedImage] = []
    explored: list[tuple[dict[str, Any], Markup]] = []
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
        with files.writing(out):
            folder = _free_name(out, explanation.path.stem, taken)
            areas, pictures = write_pictures(explanation, folder)
        taken.add(folder)
        numbers = _numbers(explanation, folder, areas)
        written.append(ExplainedImage(explanation.path, folder, numbers))
        choice = choice or explanation.choice
        if len(explored) < _EXPLORED:
            explored.append((_explorer_data(explanation), pictures))
    page = _page(title, written, explored, choice)
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
            found = image.numbers["explained"]
            where = shown(image.folder) if image.folder is not None else ""
            line = f"{shown(image.path)}: {found['class']} {found['probability']:.1%}, in {where}"
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


def _numbers(
    explanation: ImageExplanation, folder: Path, areas: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """The JSON record of an image; areas of masks are by method and threshold."""
    return {
        "path": shown(explanation.path),
        "error": None,
        "folder": shown(folder),
        "top": [
            {"class": guess.name, "probability": round(guess.probability, 6)}
            for guess in explanation.top
        ],
        "explained": {
            "class": explanation.explained.name,
            "probability": round(explanation.explained.probability, 6),
        },
        "seen": explanation.placement.region._asdict(),
        "method": next(iter(explanation.maps)),
        "note": explanation.choice.note,
        "measure": explanation.choice.command.json if explanation.choice.command else [],
        "maps": [
            {"method": method, "stages": list(explanation.map_stages[method])}
            for method in explanation.maps
        ],
        "mask_area": {
            method: {threshold: round(area, 4) for threshold, area in by_threshold.items()}
            for method, by_threshold in areas.items()
        },
        "stages": [
            {
                "stage": clusters.stage,
                "block": clusters.block,
                "grid": list(clusters.grid),
                "clusters": len(clusters.weights),
                "valid": int(clusters.valid.sum()),
                "importance": _rounded(clusters.relative_importance()),
                "received": _rounded(clusters.received),
                "patches": clusters.partition.clamp(min=-1)
                .add(1)
                .bincount(minlength=len(clusters.weights) + 1)[1:]
                .tolist(),
            }
            for clusters in explanation.stages
        ],
    }


def _page(
    title: str,
    written: Sequence[ExplainedImage],
    explored: Sequence[tuple[dict[str, Any], Markup]],
    choice: MapChoice | None,
) -> str:
    failed = [image for image in written if image.error is not None]
    sections = []
    if explored:
        parts = _explorer([one for one, _ in explored])
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
            html.Section(f"{number}. {one['name']}", [html.paragraph(one["label"]), pictures])
            for number, (one, pictures) in enumerate(explored, 1)
        )
    if failed:
        parts = [html.paragraph(image.error or "") for image in failed]
        sections.append(html.Section("Images that could not be explained", parts))
    script = html.template_text("explorer.js") if explored else ""
    lead = _lead(explored[0][0]) if explored else "None of the images could be explained."
    return html.page(title, lead, sections, script=script)


def explorer_page(
    title: str, explanations: Iterable[tuple[ImageExplanation, str]], note: str
) -> str:
    """A page to explore a few images, without further files.

    A link that ends in ``#image-N`` opens it at the image N, counted from 1.

    Args:
        title: of the page.
        explanations: each with the true class of its image; an iterator keeps only one of them in
            memory at a time.
        note: what the images are, in a sentence.
    """
    images = []
    for explanation, label in explanations:
        data = _explorer_data(explanation)
        text = f"predicted {data['label']}, true class {label}"
        images.append(data | {"name": shown(explanation.path), "label": text})
    section = html.Section("Explore", [html.paragraph(note), *_explorer(images)])
    return html.page(title, _lead(images[0]), [section], script=html.template_text("explorer.js"))


def _explorer(images: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """The part of a page that its script turns into an explorer, and the data for it."""
    palette = (mpl.colormaps[COLORMAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    values = {"images": images, "clusters": bool(images[0]["stages"]), "border": BORDER}
    data = {"images": images, "colors": base64_text(palette.tobytes())}
    return [html.render("explorer.html", values), html.data_block("explorer-data", data)]


def _lead(image: Mapping[str, Any]) -> str:
    """Sentences on the first map of the page, and on what is beside it."""
    method = image["maps"][0]["name"]
    if method in _LEADS:
        return _LEADS[method]
    about = (inspect.getdoc(METHODS.get(method)) or "").partition("\n")[0]
    beside = " Beside it are the clusters of patches." * bool(image["stages"])
    return f"The first map is by {method_title(method)}. {about}{beside}"


def _explorer_data(explanation: ImageExplanation) -> dict[str, Any]:
    """The data of an image for the page's script; boxes are (top, left, height, width) in 0..1."""
    placement = explanation.placement
    size = display_size(placement.image_size)
    unit = placement.resized((1, 1))
    small = thumbnail(explanation.image, fitted_size(size, _THUMBNAIL))
    name, probability = explanation.explained
    label = f"{name} {probability:.1%}"
    if name != explanation.top[0].name:
        label += f", top-1 {explanation.top[0].name} {explanation.top[0].probability:.1%}"
    return {
        "name": shown(explanation.path.name),
        "label": label,
        "thumbnail": png_uri(small),
        "picture": png_uri(thumbnail(explanation.image, size)),
        "seen": _rounded(unit.region),
        "border": placement.has_border,
        "maps": [
            {
                "name": method,
                "title": explanation.title(method),
                "size": list(_bounded(found).shape),
                "bytes": _relative_bytes(_bounded(found).flatten()[None]),
            }
            for method, found in explanation.maps.items()
        ],
        "stages": [_stage_data(explanation, clusters) for clusters in explanation.stages],
    }


def _stage_data(explanation: ImageExplanation, clusters: StageClusters) -> dict[str, Any]:
    box = explanation.placement.resized((1, 1)).grid_region(clusters.grid, *clusters.sampling)
    return {
        "stage": clusters.stage,
        "grid": list(clusters.grid),
        "box": _rounded(box),
        "clusters": len(clusters.weights),
        "weightBytes": _relative_bytes(clusters.weights),
        "attentionBytes": _relative_bytes(clusters.attention),
        "importance": _rounded(clusters.relative_importance()),
        "partition": clusters.partition.tolist(),
        "colors": [[round(255 * part) for part in one] for one in cluster_colors(clusters)],
    }


def _bounded(found: Tensor) -> Tensor:
    """A map of the network's input, subsampled to the size that the page needs."""
    step = max(1, max(found.shape) // 112)
    return found[step // 2 :: step, step // 2 :: step]


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 5) for value in values]


def _relative_bytes(rows: Tensor) -> str:
    """(rows, n) >= 0 -> base64 of n bytes per row, in which 255 is the largest value of the row."""
    largest = rows.amax(1, keepdim=True).clamp(min=1e-30)
    return base64_text((rows / largest * 255).round().numpy().astype(np.uint8).tobytes())
