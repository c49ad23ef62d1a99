"""The page of an evaluation outside of a run's own: on other data, of an ensemble, of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pacavit.engine.evaluate import Evaluation
from pacavit.engine.weights.load import LoadedModel
from pacavit.report import html
from pacavit.report.corruptions import corruption_sections
from pacavit.report.evaluation import RESULTS
from pacavit.report.publishing.card import with_clusterings
from pacavit.report.stored import split_title
from pacavit.report.tasks import StoredEvaluation, report_of
from pacavit.utils import files
from pacavit.utils.command import Command
from pacavit.utils.text import shown

__all__ = ["write_ensemble_page", "write_predictions_page", "write_results_page"]


def write_results_page(folder: Path, model: LoadedModel, stored: StoredEvaluation) -> Path:
    """Write the results of an evaluation on other data as a page beside its files.

    Args:
        folder: with the files of the evaluation.
        model: that was evaluated.
        stored: the evaluation.

    Raises:
        CheckpointError: the page cannot be written.
    """
    title = f"{model.recipe.name} on {shown(folder.name)}"
    lead = (
        f"{model.recipe.model.name}{with_clusterings(model.task.model)}, trained on "
        f"{model.info.version}, measured on {stored.data}."
    )
    return _write(folder, title, lead, stored)


def write_predictions_page(
    folder: Path, file: Path, stored: StoredEvaluation, command: Command
) -> Path:
    """Write the results of a file of predictions as a page beside its own files.

    Args:
        folder: with the files of the evaluation.
        file: with the predictions.
        stored: the evaluation.
        command: that evaluates the file again.

    Raises:
        CheckpointError: the page cannot be written.
    """
    lead = f"The predictions in a file, measured on {stored.data}, {split_title(stored)} images."
    repeat = html.Section("How to repeat", [html.command(command, "Evaluate the file:")])
    return _write(folder, shown(file.name), lead, stored, [repeat])


def write_ensemble_page(
    folder: Path,
    names: Sequence[str],
    members: Sequence[Evaluation],
    stored: StoredEvaluation,
    command: Command,
) -> Path:
    """Write the results of an ensemble, beside those of its members, as a page beside its files.

    Args:
        folder: with the files of the evaluation.
        names: of the models.
        members: the evaluation of each model alone, in the same order.
        stored: the evaluation of the ensemble.
        command: that evaluates the ensemble again.

    Raises:
        CheckpointError: the page cannot be written.
    """
    lead = (
        f"The probabilities of {len(members)} models are averaged; measured on {stored.data}, "
        f"{split_title(stored)} images."
    )
    more = [_members(names, members, stored.evaluation)]
    more.append(html.Section("How to repeat", [html.command(command, "Evaluate the ensemble:")]))
    return _write(folder, f"Ensemble of {len(members)} models", lead, stored, more)


def _members(
    names: Sequence[str], members: Sequence[Evaluation], ensemble: Evaluation
) -> html.Section:
    columns = report_of(ensemble.task).comparison_columns(ensemble)
    rows = [
        [name, *(html.number(each.scores[score]) for score in columns.values())]
        for name, each in zip(["ensemble", *names], [ensemble, *members], strict=True)
    ]
    table = html.table(
        "Scores of the ensemble, and of each model alone on the same images",
        ["model", *columns],
        rows,
    )
    return html.Section("Members", [table])


def _write(
    folder: Path,
    title: str,
    lead: str,
    stored: StoredEvaluation,
    more: Sequence[html.Section] = (),
) -> Path:
    page = folder / RESULTS
    report = report_of(stored.evaluation.task)
    text = html.page(
        title,
        lead,
        [
            *report.sections({split_title(stored): stored}),
            *corruption_sections({split_title(stored): stored}),
            *more,
        ],
        highlights=report.highlights(stored.evaluation),
    )
    with files.writing(page):
        files.replace_file(page, text.encode())
    return page
