"""An evaluation as files and on the console."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pydantic
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacavit.engine.evaluate import Evaluation
from pacavit.engine.scoring import SplitScore, TopClasses
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import CheckpointError
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.tasks.classification.confusion import confusion_png
from pacavit.report.tasks.classification.examples import Examples, pick_examples
from pacavit.utils import files
from pacavit.utils.text import one_line

__all__ = [
    "FILES",
    "StoredEvaluation",
    "print_evaluation",
    "read_evaluation",
    "weights_digest",
    "write_evaluation",
]

RECORD, EXAMPLES = "evaluation.json", "examples.json"
FILES = (
    RECORD,
    "per_class.csv",
    "confusion.csv",
    "confusion.png",
    "predictions.csv",
    EXAMPLES,
)
_EXAMPLES = pydantic.TypeAdapter(Examples)


@dataclass(frozen=True, eq=False)
class StoredEvaluation:
    """An evaluation as ``write_evaluation`` left it.

    Attributes:
        evaluation: what was measured.
        examples: images right and wrong.
        data: which copy of the data it was measured on.
        date: when.
        broken: a line on each image that was left out because it could not be read.
    """

    evaluation: Evaluation
    examples: Examples
    data: str
    date: datetime
    broken: tuple[str, ...] = ()


def write_evaluation(
    score: SplitScore,
    folder: Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    heatmaps: Heatmaps | None = None,
) -> None:
    """Write an evaluation into a folder, as the ``FILES``; older ones are replaced.

    Args:
        score: what was measured.
        folder: made if it is not there.
        title: of the picture: which data and split.
        facts: what makes the numbers repeatable (command, data copy, split, machine, versions);
            JSON values, stored before the numbers in ``evaluation.json``. Reports need "data",
            "date" and "weights_sha256", and tell of "broken_images".
        heatmaps: of a few of the images, for reports; None leaves them out.

    Raises:
        CheckpointError: a file cannot be written.
    """
    evaluation = score.evaluation
    names = [row.name for row in evaluation.per_class]
    confusion = evaluation.confusion.cpu().numpy()
    title = f"{title}: accuracy {evaluation.accuracy:.4f} of {evaluation.num_images:,} images"
    record = {**facts, **evaluation.to_dict()}
    contents = {
        EXAMPLES: _EXAMPLES.dump_json(pick_examples(score, heatmaps), indent=2) + b"\n",
        "per_class.csv": _csv(
            ("class", "precision", "recall", "f1", "support"),
            (asdict(row).values() for row in evaluation.per_class),
        ),
        "confusion.csv": _csv(
            ("true class / predicted class", *names),
            ((name, *counts) for name, counts in zip(names, confusion.tolist(), strict=True)),
        ),
        "predictions.csv": _csv(
            (
                "image",
                "true_class",
                "true_class_probability",
                "predicted_class",
                "predicted_class_probability",
            ),
            _predictions(score.top, names),
        ),
        "confusion.png": confusion_png(confusion, names, title=title),
        RECORD: json.dumps(record, indent=2).encode() + b"\n",  # last: it stands for all
    }
    for name, content in contents.items():
        with files.writing(folder / name):
            files.replace_file(folder / name, content)


def weights_digest(model: LoadedModel) -> str:
    """The SHA-256 of a model's file: evaluations carry it, so that one knows what they measured."""
    with model.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_evaluation(folder: Path, digest: str) -> StoredEvaluation | None:
    """What ``write_evaluation`` wrote into a folder; None if that was of other weights, or nothing.

    Args:
        folder: with the ``FILES``, maybe.
        digest: of the weights, which the facts of the evaluation must hold as ``weights_sha256``.

    Raises:
        CheckpointError: a file is missing or broken.
    """
    if not (folder / RECORD).is_file():
        return None
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record.get("weights_sha256") != digest:
            return None
        evaluation = Evaluation.from_dict(record)
        examples = _EXAMPLES.validate_json((folder / EXAMPLES).read_bytes())
        return StoredEvaluation(
            evaluation,
            examples,
            str(record["data"]),
            datetime.fromisoformat(record["date"]),
            tuple(map(str, record.get("broken_images", ()))),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the evaluation in {folder} cannot be read ({one_line(error)}); "
            "remove it and evaluate again"
        ) from error


def _csv(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _predictions(top: TopClasses, names: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    """A row an image, in stored order."""
    rows = zip(
        top.indices.tolist(),
        top.labels.tolist(),
        top.true_probabilities.tolist(),
        top.classes[:, 0].tolist(),
        top.probabilities[:, 0].tolist(),
        strict=True,
    )
    for index, label, true, guess, likeliest in rows:
        yield index, names[label], round(true, 6), names[guess], round(likeliest, 6)


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
