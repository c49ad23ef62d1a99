"""Evaluations with test-time augmentation, apart from the plain ones of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pacavit.data import Split
from pacavit.engine.weights.load import LoadedModel, weights_digest
from pacavit.report import html
from pacavit.report.evaluation import read_evaluation
from pacavit.report.stored import SPLIT_TITLES, evaluation_folder
from pacavit.report.tasks import StoredEvaluation, report_of
from pacavit.tasks.classification import TEST_TIME_VIEWS

__all__ = ["test_time_name", "test_time_section"]


def test_time_name(split: str, augmentation: str | None) -> str:
    """The name of a split in folders and records, such as "test-tta-flip"; None: the split's own.

    Args:
        split: which images.
        augmentation: name of a test-time augmentation.
    """
    return split if augmentation is None else f"{split}-tta-{augmentation}"


def test_time_section(
    run: Path, model: LoadedModel, plain: Mapping[Split, StoredEvaluation]
) -> html.Section | None:
    """The main scores with test-time augmentation, beside those without; None if there are none.

    Args:
        run: the run's folder.
        model: loaded from it.
        plain: evaluations of the run without augmentation.

    Raises:
        CheckpointError: a file of an evaluation is broken.
    """
    digest, report = weights_digest(model), report_of(model.recipe.task.name)
    rows: list[list[str]] = []
    header: list[str] = []
    for split, title in SPLIT_TITLES.items():
        found = {
            name: read_evaluation(evaluation_folder(run, test_time_name(split, name)), digest)
            for name in TEST_TIME_VIEWS
        }
        shown = {name: stored for name, stored in found.items() if stored is not None}
        if shown and split in plain:
            shown = {"none": plain[split], **shown}
        for name, stored in shown.items():
            scores = report.highlights(stored.evaluation)
            header = ["images", "test-time augmentation", *scores]
            rows.append([title, name, *scores.values()])
    if not rows:
        return None
    caption = "Scores of the mean probabilities over views of each image, and without augmentation"
    note = html.paragraph(
        "All other scores and pictures of this run's own data are without test-time augmentation."
    )
    table = html.table(caption, header, rows, text_columns=2)
    return html.Section("Test-time augmentation", [table, note])
