"""An evaluation as files and on the console."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacavit.engine.evaluate import Evaluation
from pacavit.report.confusion import save_confusion

__all__ = ["FILES", "print_evaluation", "write_evaluation"]

FILES = ("evaluation.json", "per_class.csv", "confusion.csv", "confusion.png")


def write_evaluation(
    evaluation: Evaluation, folder: Path, *, title: str, facts: Mapping[str, Any]
) -> None:
    """Write an evaluation into a folder, as the four ``FILES``; older ones are replaced.

    Args:
        evaluation: what was measured.
        folder: made if it is not there.
        title: of the picture: which data and split.
        facts: what makes the numbers repeatable (command, data copy, split, machine, versions);
            JSON values, stored before the numbers in ``evaluation.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [row.name for row in evaluation.per_class]
    record = {**facts, **evaluation.to_dict()}
    (folder / "evaluation.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    with (folder / "per_class.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("class", "precision", "recall", "f1", "support"))
        for row in evaluation.per_class:
            writer.writerow((row.name, row.precision, row.recall, row.f1, row.support))
    confusion = evaluation.confusion.cpu().numpy()
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("true class / predicted class", *names))
        writer.writerows(
            (name, *counts) for name, counts in zip(names, confusion.tolist(), strict=True)
        )
    title = f"{title}: accuracy {evaluation.accuracy:.4f} of {evaluation.num_images:,} images"
    save_confusion(folder / "confusion.png", confusion, names, title=title)


def print_evaluation(
    evaluation: Evaluation,
    *,
    title: str,
    folder: Path | None = None,
    console: Console | None = None,
) -> None:
    """Print the summary, the table of classes, the speed and the names of the files written.

    Args:
        evaluation: what was measured.
        title: which model, data and split.
        folder: where ``write_evaluation`` put the files; None when there are none.
        console: where to print; None takes standard output.
    """
    console = console or Console()
    summary = Table(title=escape(title), title_justify="left")
    summary.add_column("average")
    for name in ("accuracy", "precision", "recall", "F1"):
        summary.add_column(name, justify="right")
    for average in ("macro", "weighted"):
        scores = [
            getattr(evaluation, f"{name}_{average}") for name in ("precision", "recall", "f1")
        ]
        summary.add_row(average, *(f"{score:.4f}" for score in (evaluation.accuracy, *scores)))
    console.print(summary)
    others = {"log loss": evaluation.loss, **evaluation.other_scores}
    further = Table()
    for name in others:
        further.add_column(escape(name.replace("_", " ")), justify="right")
    further.add_row(*(f"{score:.4f}" for score in others.values()))
    console.print(further)
    classes = Table("class")
    for name in ("precision", "recall", "F1", "images"):
        classes.add_column(name, justify="right")
    for row in evaluation.per_class:
        scores = [f"{score:.4f}" for score in (row.precision, row.recall, row.f1)]
        classes.add_row(escape(row.name), *scores, str(row.support))
    console.print(classes)
    speed = f"{evaluation.images_per_second:,.0f} images/s"
    console.print(f"{evaluation.num_images:,} images, {speed}", highlight=False)
    if folder is not None:
        for name in FILES:
            console.print(f"wrote {folder / name}", markup=False, highlight=False, soft_wrap=True)
