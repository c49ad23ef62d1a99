"""An evaluation as files and on the console, whatever its task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from pacavit.engine.evaluate import Evaluation
from pacavit.engine.scoring import SplitScore
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import CheckpointError
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.explanation.mistakes import MISTAKES, PICTURES, MistakeFiles
from pacavit.report.tasks import StoredEvaluation, report_of
from pacavit.utils import files
from pacavit.utils.text import one_line

__all__ = ["RECORD", "print_evaluation", "read_evaluation", "weights_digest", "write_evaluation"]

RECORD, RESULTS = "evaluation.json", "results.html"


def write_evaluation(
    score: SplitScore,
    folder: Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    observed: Any = None,
    heatmaps: Heatmaps | None = None,
    mistakes: MistakeFiles | None = None,
) -> None:
    """Write an evaluation into a folder: the files of its task's report; older ones are replaced.

    Args:
        score: what was measured.
        folder: made if it is not there.
        title: of pictures: which data and split.
        facts: what makes the numbers repeatable (command, data, split, machine, versions);
            JSON values, stored before the numbers in ``evaluation.json``. Reports need "data",
            "date" and "weights_sha256", and use "broken_images" and "split".
        observed: the report's observer of the predictions.
        heatmaps: of a few of the images, for reports; None leaves them out.
        mistakes: files that lead to some of the mistakes.

    Raises:
        CheckpointError: a file cannot be written.
    """
    evaluation = score.evaluation
    report = report_of(evaluation.task)
    mistakes = mistakes or MistakeFiles({}, {})
    contents = {
        **mistakes.contents,
        **report.contents(score, observed, title=title, heatmaps=heatmaps, links=mistakes.links),
    }
    record = {**facts, **evaluation.to_dict()}
    contents[RECORD] = json.dumps(record, indent=2).encode() + b"\n"  # last: it stands for all
    for old in (folder / MISTAKES, *folder.glob(PICTURES)):
        if old.name not in contents:
            with files.writing(old):
                old.unlink(missing_ok=True)
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
        folder: with the files of an evaluation, maybe.
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
        return StoredEvaluation(
            evaluation,
            report_of(evaluation.task).read_details(folder),
            str(record["data"]),
            datetime.fromisoformat(record["date"]),
            tuple(map(str, record.get("broken_images", ()))),
            str(record.get("split", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the evaluation in {folder} cannot be read ({one_line(error)}); "
            "remove it and evaluate again"
        ) from error


def print_evaluation(
    evaluation: Evaluation,
    *,
    title: str,
    console: Console | None = None,
) -> None:
    """Print the summary, the table of classes, the speed and the names of the files written.

    Args:
        evaluation: what was measured; the files in its folder are named, if it has one.
        title: which model, data and split.
        console: where to print; None takes standard output.
    """
    console = console or Console()
    report = report_of(evaluation.task)
    report.print(evaluation, console, title=title)
    speed = f"{evaluation.images_per_second:,.0f} images/s"
    console.print(f"{evaluation.num_images:,} images, {speed}", highlight=False)
    folder = evaluation.folder
    if folder is not None:
        pages = [name for name in (MISTAKES, RESULTS) if (folder / name).is_file()]
        for name in (RECORD, *report.files, *pages):
            console.print(f"wrote {folder / name}", markup=False, highlight=False, soft_wrap=True)
