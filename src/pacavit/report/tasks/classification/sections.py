"""Sections of pages for a classifier: confusions, and correct and incorrect images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from pacavit.engine.evaluate import Evaluation
from pacavit.report import html
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.explanation.pictures import choice_parts
from pacavit.report.tasks.classification.examples import NUM_CONFUSIONS, Examples
from pacavit.report.tasks.confusion import MAX_CLASSES_WITH_COUNTS, confusion_png
from pacavit.utils.command import pacavit_command

__all__ = [
    "confusion_section",
    "examples_section",
    "heatmaps_section",
]

_NARROW = 10  # classes of a matrix that fits beside a table without names of images


class _Count(NamedTuple):
    """A cell of a confusion matrix: kind is right, wrong or none; strength 0..1 is its color."""

    text: str
    kind: str
    strength: float


def confusion_section(
    evaluation: Evaluation, split: str, examples: Examples | None = None, base: str = ""
) -> html.Section:
    """The confusion matrix, and its largest counts off the diagonal.

    Args:
        evaluation: of a classifier.
        split: name of the split, for captions.
        examples: name an image of each of the most frequent confusions.
        base: what links to the files of the evaluation begin with.
    """
    names, counts = [row.name for row in evaluation.per_class], evaluation.arrays["confusion"]
    if len(names) <= MAX_CLASSES_WITH_COUNTS:
        matrix = _matrix(evaluation, names, split)
    else:
        matrix = html.picture(
            html.data_uri(confusion_png(counts.numpy(), names), "image/png"),
            f"Confusion matrix of {len(names)} classes; its largest entries are in the next table",
            f"{split.capitalize()} images: true classes as rows, predicted ones as columns.",
        )
    parts = [matrix, _most_confused(evaluation, names, split, examples, base)]
    narrow = len(names) <= _NARROW and (examples is None or not examples.confusions)
    return html.Section("Confusion matrix", [html.side_by_side(*parts)] if narrow else parts)


def examples_section(examples: Examples, split: str, base: str = "") -> html.Section:
    """Images with the probabilities that the classifier gives them.

    Args:
        examples: of both kinds.
        split: name of the split, for explanations.
        base: what links to the files of the evaluation begin with.
    """
    kinds = (
        (
            "Incorrect",
            f"{split.capitalize()} images: those with the highest probability of a wrong class.",
            "None: all images are correct.",
            examples.wrong,
        ),
        (
            "Correct",
            f"{split.capitalize()} images: an evenly spread sample of the correct ones.",
            "None: all images are incorrect.",
            examples.right,
        ),
    )
    parts = []
    for title, explanation, none, found in kinds:
        values = {
            "title": title,
            "explanation": explanation if found else none,
            "examples": found,
            "links": examples.links,
            "base": base,
        }
        parts.append(html.render("examples.html", values))
    return html.Section("Examples", parts)


def heatmaps_section(heatmaps: Heatmaps, split: str) -> html.Section:
    """Heatmaps of a few images, or why they cannot be shown.

    Args:
        heatmaps: of the images.
        split: name of the split, for explanations.
    """
    if heatmaps.error is not None:
        parts = [html.paragraph(f"The images could not be explained: {heatmaps.error}")]
        return html.Section("Heatmaps", parts)
    method = heatmaps.method.replace("_", " ")
    beside = [name.replace("_", " ") for name in heatmaps.beside]
    explanation = (
        f"{split.capitalize()} images. Beside each: its map by {method}, bright where the "
        "evidence for the predicted class lies"
    ) + "".join(f"; that by {name}" for name in beside)
    if heatmaps.stage is None:
        explanation += "."
    else:
        explanation += (
            "; and its partition, in which each color is a cluster of patches of stage "
            f"{heatmaps.stage}, the last stage with clusters."
        )
    values = {
        "explanation": explanation,
        "images": heatmaps.images,
        "methods": [method, *beside],
        "stage": heatmaps.stage,
    }
    explore = html.command(
        pacavit_command("explain", "DIR", "IMAGE...", out="FOLDER"),
        "Explain your own images:",
    )
    choice = choice_parts(heatmaps.choice)
    return html.Section("Heatmaps", [html.render("heatmaps.html", values), *choice, explore])


def _matrix(evaluation: Evaluation, names: Sequence[str], split: str) -> Markup:
    counts = evaluation.arrays["confusion"]
    # The square root makes small fractions, the confusions of interest, more visible.
    strengths = (counts / counts.sum(1, keepdim=True).clamp_min(1)).sqrt()
    rows = []
    for index, name in enumerate(names):
        cells = []
        for column, count in enumerate(counts[index].tolist()):
            kind = "none" if count == 0 else "right" if column == index else "wrong"
            cells.append(_Count(f"{count:,}", kind, float(strengths[index, column])))
        rows.append((name, cells))
    caption = f"{split.capitalize()} images: true classes as rows, predicted ones as columns"
    return html.render("confusion.html", {"caption": caption, "rows": rows})


def _most_confused(
    evaluation: Evaluation,
    names: Sequence[str],
    split: str,
    examples: Examples | None,
    base: str,
) -> Markup:
    errors = evaluation.arrays["confusion"].clone().fill_diagonal_(0)
    values, places = errors.flatten().sort(descending=True, stable=True)
    rows = []
    for count, place in zip(values[:NUM_CONFUSIONS].tolist(), places.tolist(), strict=False):
        if count == 0:
            break
        true, predicted = divmod(place, len(names))
        fraction = count / evaluation.per_class[true].support
        row: list[str | html.Cell]
        row = [
            names[true],
            names[predicted],
            f"{count:,}",
            html.Cell(html.percent(fraction), fraction),
        ]
        if examples is not None and examples.confusions:
            row.insert(2, _surest(examples, names[true], names[predicted], base))
        rows.append(row)
    if not rows:
        return html.paragraph("All images are correct.")
    header = ["true class", "predicted class", "images", "fraction of class"]
    caption = f"The most frequent confusions, {split} images"
    if len(rows[0]) > len(header):
        header.insert(2, "most confident mistake")
        caption += "; of each the image for which the wrong class has the highest probability"
    return html.table(caption, header, rows, text_columns=len(header) - 2)


def _surest(examples: Examples, true: str, predicted: str, base: str) -> html.Cell:
    """The image of the most probable mistake that takes one class for another, with a link."""
    for each in examples.confusions:
        if (each.label, each.predicted) == (true, predicted):
            links = examples.links.get(each.index)
            link = None if links is None else f"{base}{links.explanation or links.image}"
            return html.Cell(each.name, link=link)
    return html.Cell("")  # two equal probabilities, of which the matrix counts the other
