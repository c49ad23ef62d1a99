"""What pages show of an evaluation: scores, confusions, and images right and wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from pacavit.engine.evaluate import ClassScores, Evaluation
from pacavit.report import html
from pacavit.report.evaluation import StoredEvaluation
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.tasks.classification.confusion import MAX_CLASSES_WITH_COUNTS, confusion_png
from pacavit.report.tasks.classification.examples import Examples
from pacavit.utils.command import pacavit_command

__all__ = [
    "confusion_section",
    "examples_section",
    "heatmaps_section",
    "left_out",
    "results_section",
]

_FEW = 10  # rows of a table that shows extremes only
_NARROW = 10  # classes of a matrix that fits into half the width of a page


class _Count(NamedTuple):
    """A cell of a confusion matrix: kind is right, wrong or none; strength 0..1 is its colour."""

    text: str
    kind: str
    strength: float


def results_section(stored: Mapping[str, StoredEvaluation]) -> html.Section:
    """Scores of one model on one or more splits; per class on the first.

    Args:
        stored: evaluations by the names of their splits, at least one.
    """
    columns = [_scores(each.evaluation) for each in stored.values()]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, "") for column in columns)] for name in names]
    caption = "Precision, recall and F1 are means over classes"
    summary = html.table(caption, ["score", *stored], rows)
    sources = [
        html.paragraph(
            f"{split.capitalize()} images: {each.data}, measured {each.date:%Y-%m-%d %H:%M %Z}."
        )
        for split, each in stored.items()
    ]
    sources += [
        html.paragraph(f"{left_out(split, len(each.broken))}, named in its evaluation.json.")
        for split, each in stored.items()
        if each.broken
    ]
    split, first = next(iter(stored.items()))
    per_class = _per_class(first.evaluation.per_class, split)
    left = Markup("").join([summary, *sources])
    return html.Section("Results", [html.side_by_side(left, Markup("").join(per_class))])


def confusion_section(evaluation: Evaluation, split: str) -> html.Section:
    """Which classes are taken for which: the matrix, and its largest counts off the diagonal.

    Args:
        evaluation: of a classifier.
        split: name of the split, for captions.
    """
    names = [row.name for row in evaluation.per_class]
    if len(names) <= MAX_CLASSES_WITH_COUNTS:
        matrix = _matrix(evaluation, names, split)
    else:
        matrix = html.picture(
            html.data_uri(confusion_png(evaluation.confusion.numpy(), names), "image/png"),
            f"Confusion matrix of {len(names)} classes; its largest entries are in the next table",
            f"{split.capitalize()} images: true classes as rows, predicted ones as columns.",
        )
    parts = [matrix, _most_confused(evaluation, names, split)]
    narrow = len(names) <= _NARROW
    return html.Section("Confusion matrix", [html.side_by_side(*parts)] if narrow else parts)


def examples_section(examples: Examples, split: str) -> html.Section:
    """Images with what the classifier says of them.

    Args:
        examples: of both kinds.
        split: name of the split, for explanations.
    """
    kinds = (
        (
            "Wrong",
            f"The {split} images that are named wrongly with the highest probability, surest "
            "first. Below each: its true class, and the likeliest ones.",
            "None: every image is named rightly.",
            examples.wrong,
        ),
        (
            "Right",
            f"A sample, evenly spread, of the {split} images that are named rightly.",
            "None: every image is named wrongly.",
            examples.right,
        ),
    )
    parts = []
    for title, explanation, none, found in kinds:
        values = {
            "title": title,
            "explanation": explanation if found else none,
            "examples": found,
        }
        parts.append(html.render("examples.html", values))
    return html.Section("Examples", parts)


def heatmaps_section(heatmaps: Heatmaps, split: str) -> html.Section:
    """Where the classifier finds its answer in a few images, or why that cannot be shown.

    Args:
        heatmaps: of the images.
        split: name of the split, for explanations.
    """
    if heatmaps.error is not None:
        parts = [html.paragraph(f"The images could not be explained: {heatmaps.error}")]
        return html.Section("Heatmaps", parts)
    method = heatmaps.method.replace("_", " ")
    explanation = (
        f"{split.capitalize()} images. Beside each: its map by {method}, bright where the "
        "evidence for the predicted class lies"
    )
    if heatmaps.stage is None:
        explanation += "."
    else:
        explanation += (
            "; and its partition, in which each colour is a cluster of patches of stage "
            f"{heatmaps.stage}, the last that has some."
        )
    values = {
        "explanation": explanation,
        "images": heatmaps.images,
        "method": method,
        "stage": heatmaps.stage,
    }
    explore = html.command(
        pacavit_command("explain", "DIR", "IMAGE...", out="FOLDER"),
        "Look into images of your own, patch by patch:",
    )
    return html.Section("Heatmaps", [html.render("heatmaps.html", values), explore])


def left_out(split: str, number: int) -> str:
    """How many images of a split could not be read; no files, whose folders others need not see."""
    images = "image was" if number == 1 else "images were"
    return f"{number:,} {split} {images} left out because they could not be read"


def _scores(evaluation: Evaluation) -> dict[str, str]:
    """Every single number of an evaluation by its name, as text."""
    kinds = {"precision": "precision", "recall": "recall", "f1": "F1"}
    return {
        "accuracy": html.number(evaluation.accuracy),
        "log loss": html.number(evaluation.loss),
        **{
            f"{kind}, {average}": html.number(getattr(evaluation, f"{field}_{average}"))
            for average in ("macro", "weighted")
            for field, kind in kinds.items()
        },
        **{
            name.replace("_", " "): html.number(value)
            for name, value in evaluation.other_scores.items()
        },
        "images": f"{evaluation.num_images:,}",
        "images/s": html.number(evaluation.images_per_second, digits=0),
    }


def _per_class(classes: Sequence[ClassScores], split: str) -> list[Markup]:
    """A table of all classes; of many the worst ones first, and all of them folded."""
    caption = f"Scores of each class, {split} images"
    if len(classes) <= MAX_CLASSES_WITH_COUNTS:
        return [_class_table(caption, classes)]
    worst = sorted(classes, key=lambda row: row.f1)[:_FEW]
    return [
        _class_table(f"The {_FEW} classes with the lowest F1, {split} images", worst),
        html.folded(f"All {len(classes):,} classes", _class_table(caption, classes)),
    ]


def _class_table(caption: str, classes: Sequence[ClassScores]) -> Markup:
    rows: list[list[str | html.Cell]] = [
        [
            row.name,
            html.number(row.precision),
            html.number(row.recall),
            html.Cell(html.number(row.f1), share=row.f1),
            f"{row.support:,}",
        ]
        for row in classes
    ]
    return html.table(caption, ["class", "precision", "recall", "F1", "images"], rows)


def _matrix(evaluation: Evaluation, names: Sequence[str], split: str) -> Markup:
    counts = evaluation.confusion
    # The square root lifts the small shares, which are the confusions one looks for.
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


def _most_confused(evaluation: Evaluation, names: Sequence[str], split: str) -> Markup:
    errors = evaluation.confusion.clone().fill_diagonal_(0)
    values, places = errors.flatten().sort(descending=True, stable=True)
    rows: list[list[str | html.Cell]] = []
    for count, place in zip(values[:_FEW].tolist(), places.tolist(), strict=False):
        if count == 0:
            break
        true, predicted = divmod(place, len(names))
        share = count / evaluation.per_class[true].support
        rows.append(
            [names[true], names[predicted], f"{count:,}", html.Cell(html.percent(share), share)]
        )
    if not rows:
        return html.paragraph("No image was named wrongly.")
    header = ["true class", "predicted class", "images", "share of class"]
    return html.table(f"The most frequent confusions, {split} images", header, rows, text_columns=2)
