"""Accuracy on corrupted images, on pages and on the console."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

from pacavit.engine.evaluate import Evaluation
from pacavit.report import html
from pacavit.report.curves import svg_picture
from pacavit.report.tasks import StoredEvaluation
from pacavit.utils.pictures import data_uri

__all__ = ["corruption_sections", "print_corruptions"]

_MARKERS = "os^Dv"


def corruption_sections(stored: Mapping[str, StoredEvaluation]) -> list[html.Section]:
    """A section with a table and a picture for each evaluation with corruptions.

    Args:
        stored: evaluations by the title of their split.
    """
    found = []
    for title, each in stored.items():
        if not each.evaluation.corruptions:
            continue
        header, *rows = _rows(each.evaluation)
        caption = f"Accuracy on corrupted images ({title.lower()}), by severity"
        draw = partial(_draw, evaluation=each.evaluation)
        light, dark = (
            data_uri(svg_picture(draw, (5, 3), dark=dark), "image/svg+xml")
            for dark in (False, True)
        )
        alt = f"Lines of accuracy over severity, one per corruption ({title.lower()})"
        picture = html.picture(light, alt, caption, dark=dark)
        note = html.paragraph(
            "Severity 0 is the images as they are. Corruptions as in Hendrycks and Dietterich "
            "(2019); the mean is over all kinds and severities 1 to 5."
        )
        found.append(
            html.Section(
                f"Corrupted {title.lower()} images",
                [html.table(caption, header, rows), picture, note],
            )
        )
    return found


def print_corruptions(evaluation: Evaluation, console: Console) -> None:
    """Print accuracy by kind and severity, if it was measured."""
    if not evaluation.corruptions:
        return
    header, *rows = _rows(evaluation)
    table = Table(title="accuracy on corrupted images, by severity")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _rows(evaluation: Evaluation) -> list[list[str]]:
    """A header and a row per corruption, with its mean; the last row has the mean of all."""
    severities = range(1, 1 + len(next(iter(evaluation.corruptions.values()))))
    rows = [["corruption", *map(str, severities), "mean"]]
    for name, values in evaluation.corruptions.items():
        mean = sum(values) / len(values)
        rows.append([name.replace("_", " "), *map(html.number, values), html.number(mean)])
    columns = zip(*evaluation.corruptions.values(), strict=True)
    means = [html.number(sum(column) / len(column)) for column in columns]
    return [*rows, ["mean", *means, html.number(evaluation.corruption_accuracy)]]


def _draw(axes: Axes, evaluation: Evaluation) -> None:
    for number, (name, values) in enumerate(evaluation.corruptions.items()):
        line = [evaluation.scores["accuracy"], *values]
        axes.plot(
            line,
            color=f"C{number % 2}",
            linestyle=("-", "--", ":")[number // 2 % 3],
            marker=_MARKERS[number % len(_MARKERS)],
            label=name.replace("_", " "),
        )
    axes.set(xlabel="severity", ylabel="accuracy", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
