"""Evaluations of any task as files and on the console."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pacavit.engine.evaluate import Evaluation
from pacavit.engine.run.environment import environment
from pacavit.engine.scoring import SplitScore
from pacavit.errors import CheckpointError
from pacavit.report.corruptions import print_corruptions
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.explanation.mistakes import MISTAKES, PICTURES, MistakeFiles
from pacavit.report.tasks import StoredEvaluation, report_of
from pacavit.utils import files
from pacavit.utils.command import Command
from pacavit.utils.registry import Plugin
from pacavit.utils.text import one_line

__all__ = [
    "RECORD",
    "evaluation_facts",
    "print_evaluation",
    "read_evaluation",
    "write_evaluation",
]

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
    """Write the files of an evaluation into a folder; older ones are replaced.

    Args:
        score: the evaluation, with images and facts about the data.
        folder: created if needed.
        title: of pictures: data and split.
        facts: needed to repeat the evaluation (command, data, split, machine, versions); JSON
            values, stored before the scores in ``evaluation.json``. Reports need "data", "date"
            and, of a single model, "weights_sha256"; they use "broken_images" and "split".
        observed: the task report's observer after all batches.
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


def evaluation_facts(
    score: SplitScore,
    split: str,
    command: Command,
    device: torch.device,
    plugins: Sequence[Plugin],
) -> dict[str, Any]:
    """The facts that every evaluation stores, see ``write_evaluation``.

    Args:
        score: the evaluation, with images and facts about the data.
        split: which images.
        command: repeats it.
        device: where it was computed.
        plugins: that the models and the data come from.
    """
    return {
        "command": command.json,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": score.info.name,
        "data": score.info.version,
        "split": split,
        "broken_images": list(score.images.broken.values()),
        "environment": environment(device, plugins),
    }


def read_evaluation(folder: Path, digest: str | None) -> StoredEvaluation | None:
    """Read the evaluation in a folder; None if there is none, or it is of other weights.

    Args:
        folder: of the evaluation.
        digest: of the weights, compared with ``weights_sha256`` in the facts of the evaluation;
            None for an ensemble, whose facts name those of its models instead.

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
    """Print the summary, the table of classes, the speed and the names of the files.

    Args:
        evaluation: scores and rows; the files in its folder are listed, if it has one.
        title: model, data and split.
        console: where to print; None takes standard output.
    """
    console = console or Console()
    report = report_of(evaluation.task)
    report.print(evaluation, console, title=title)
    print_corruptions(evaluation, console)
    speed = evaluation.images_per_second
    suffix = "" if isnan(speed) else f", {speed:,.0f} images/s"
    console.print(f"{evaluation.num_images:,} images{suffix}", highlight=False)
    folder = evaluation.folder
    if folder is not None:
        pages = [name for name in (MISTAKES, RESULTS) if (folder / name).is_file()]
        for name in (RECORD, *report.files, *pages):
            console.print(f"wrote {folder / name}", markup=False, highlight=False, soft_wrap=True)
