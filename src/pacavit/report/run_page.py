"""The report of a run: one HTML file in its folder with settings and results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pacavit import recipes
from pacavit.data import Split
from pacavit.engine import build
from pacavit.engine.run.environment import ENVIRONMENT, read_environment
from pacavit.engine.run.log import read_metrics
from pacavit.engine.selection import describe_outcome, is_finished
from pacavit.engine.trainer import BROKEN_IMAGES
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import RecipeError
from pacavit.recipes.schema import Recipe
from pacavit.report import html
from pacavit.report.calibration import calibration_section
from pacavit.report.corruptions import corruption_sections
from pacavit.report.curves import curves_svg, loss_curves, score_curves
from pacavit.report.evaluation import RESULTS
from pacavit.report.publishing.card import with_clusterings
from pacavit.report.publishing.command import (
    TEACHER,
    WEIGHTS,
    changed_fields,
    needs_teacher,
    needs_weights,
    training_command,
    without_paths,
)
from pacavit.report.stored import (
    OTHER_DATA,
    SPLIT_TITLES,
    OtherEvaluation,
    evaluations,
    other_evaluations,
    split_title,
)
from pacavit.report.tasks import StoredEvaluation, report_of
from pacavit.report.tasks.base import left_out
from pacavit.report.test_time import test_time_section
from pacavit.utils import files
from pacavit.utils.command import pacavit_command
from pacavit.utils.text import shown

__all__ = ["REPORT", "run_page", "write_run_page"]

REPORT = "report.html"
_DATA_ROOT = ("data", "root")
_LOSS = "train_loss_"  # followed by the name of a part of the loss


def write_run_page(run: Path, model: LoadedModel) -> Path:
    """Write the report of a run into its folder; an older one is replaced.

    Args:
        run: the run's folder.
        model: loaded from it.

    Returns:
        The file.

    Raises:
        CheckpointError: a file of the run is broken, or the page cannot be written.
    """
    page = run / REPORT
    text = run_page(run, model)
    with files.writing(page):
        files.replace_file(page, text.encode())
    return page


def run_page(run: Path, model: LoadedModel) -> str:
    """The report as an HTML document, from the files in the run's folder.

    Args:
        run: the run's folder.
        model: loaded from it.

    Raises:
        CheckpointError: a file of the run is broken.
    """
    stored = evaluations(run, model)
    rows = read_metrics(run)
    sections = [_curves(run, rows, model, stored.get("val"))] if rows else []
    if stored:
        report = report_of(model.recipe.task.name)
        sections += report.sections({SPLIT_TITLES[split]: each for split, each in stored.items()})
    if (augmented := test_time_section(run, model, stored)) is not None:
        sections.append(augmented)
    sections += corruption_sections({SPLIT_TITLES[split]: each for split, each in stored.items()})
    if model.calibration is not None:
        sections.append(calibration_section(model.calibration))
    if others := other_evaluations(run, model):
        sections.append(_other_data(others))
    plugins = [plugin.path.name for plugin in build.plugins(model.task, model.recipe)]
    sections += [_settings(model.recipe), _repeat(model.recipe, plugins)]
    if (run / ENVIRONMENT).is_file():
        sections.append(html.environment(read_environment(run)))
    return html.page(
        model.recipe.name,
        _lead(model, rows),
        sections,
        highlights=_highlights(model, stored, rows),
    )


def _other_data(others: Sequence[OtherEvaluation]) -> html.Section:
    """Scores on data other than the splits of the run; they are not in its headline."""
    report = report_of(others[0].stored.evaluation.task)
    names = list(report.highlights(others[0].stored.evaluation))
    rows: list[list[str | html.Cell]] = [
        [
            html.Cell(
                shown(folder.name), link=html.relative_link(OTHER_DATA, folder.name, RESULTS)
            ),
            stored.data,
            split_title(stored),
            *report.highlights(stored.evaluation).values(),
            f"{stored.evaluation.num_images:,}",
            f"{stored.date:%Y-%m-%d}",
        ]
        for folder, stored in others
    ]
    header = ["results", "data", "split", *names, "images", "measured"]
    return html.Section(
        "Other data",
        [html.table("Scores on data other than the run's own", header, rows, text_columns=3)],
    )


def _lead(model: LoadedModel, rows: Sequence[Mapping[str, Any]]) -> str:
    recipe = model.recipe
    kind = f"{recipe.model.name}{with_clusterings(model.task.model)}"
    text = f"{kind}, trained on {model.info.version}."
    metric = model.task.main_metric
    if is_finished(rows, metric, recipe.train):
        for sentence in describe_outcome(rows, metric, recipe.train):
            text += f" {sentence[0].upper()}{sentence[1:]}."
    else:
        text += f" The run is not finished: {len(rows)} of {recipe.train.epochs} epochs are done."
    return f"{text} {recipe.description}".strip()


def _highlights(
    model: LoadedModel,
    stored: Mapping[Split, StoredEvaluation],
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, str]:
    shown = {}
    for split, measured in list(stored.items())[:1]:
        report = report_of(measured.evaluation.task)
        for name, text in report.highlights(measured.evaluation).items():
            shown[f"{SPLIT_TITLES[split]} {name}"] = text
    num_parameters = sum(parameter.numel() for parameter in model.task.model.parameters())
    shown["parameters"] = f"{num_parameters:,}"
    if rows:
        shown["epochs"] = str(len(rows))
        shown["training time"] = f"{rows[-1]['elapsed'] / 60:,.1f} min"
    return shown


def _curves(
    run: Path,
    rows: Sequence[Mapping[str, Any]],
    model: LoadedModel,
    validated: StoredEvaluation | None,
) -> html.Section:
    metric = model.task.main_metric
    score = metric.replace("_", " ")
    losses, scores = loss_curves(rows), score_curves(rows, metric)
    pictures = [
        html.picture(
            html.data_uri(curves_svg(lines, label), "image/svg+xml"),
            "; ".join(_in_words(f"{name} {label}", values) for name, values in lines.items()),
            caption,
            dark=html.data_uri(curves_svg(lines, label, dark=True), "image/svg+xml"),
        )
        for lines, label, caption in (
            (losses, "loss", "Loss; in training, on augmented images."),
            (
                scores,
                score,
                f"{score.capitalize() if score.islower() else score} on the validation images.",
            ),
        )
    ]
    header = ["epoch", "training loss", "learning rate", "images/s"]
    columns = sorted(name for name in rows[0] if name.startswith("val_"))
    label = report_of(model.recipe.task.name).label
    header[1:1] = [label(name.removeprefix("val_")) for name in columns]
    parts_of_loss = [name for name in rows[0] if name.startswith(_LOSS)]
    at = header.index("learning rate")
    header[at:at] = [f"{name.removeprefix(_LOSS).replace('_', ' ')} loss" for name in parts_of_loss]
    cells = [
        [
            str(row["epoch"]),
            *(html.number(row[name]) for name in columns),
            *(html.number(row[name]) for name in ("train_loss", *parts_of_loss)),
            f"{row['lr']:.3g}",
            html.number(row["images_per_second"], digits=0),
        ]
        for row in rows
    ]
    table = html.table("Each epoch; scores are those of the validation images", header, cells)
    parts = [html.side_by_side(*pictures), html.folded("Numbers by epoch", table)]
    if (note := _two_precisions(rows[-1], model, validated)) is not None:
        parts.append(html.paragraph(note))
    if (run / BROKEN_IMAGES).is_file():
        number = len((run / BROKEN_IMAGES).read_bytes().splitlines())
        count = left_out("training and validation", number)
        parts.append(html.paragraph(f"{count}, listed in the run's {BROKEN_IMAGES}."))
    return html.Section("Learning curves", parts)


def _two_precisions(
    last: Mapping[str, Any], model: LoadedModel, validated: StoredEvaluation | None
) -> str | None:
    """Why the score of the last epoch differs from that of the results, if it visibly does."""
    metric, precision = model.task.main_metric, model.recipe.train.precision
    if validated is None or precision == "fp32":
        return None
    in_training, final = last[f"val_{metric}"], validated.evaluation.scores[metric]
    if html.number(in_training) == html.number(final):
        return None
    return (
        f"Validation {metric.replace('_', ' ')} after the last epoch is {html.number(in_training)} "
        f"here, where it is computed in {precision} as in training, and {html.number(final)} in "
        "the results, which are computed in fp32."
    )


def _in_words(name: str, values: Sequence[float]) -> str:
    """A curve as the alternative text of its picture."""
    return f"{name} goes from {values[0]:.4g} to {values[-1]:.4g} in {len(values)} epochs"


def _settings(recipe: Recipe) -> html.Section:
    """All fields of a recipe, section by section."""
    changed = changed_fields(recipe)
    lists, shareable = {}, without_paths(recipe)
    for section, fields in shareable.model_dump(
        mode="json", exclude={"name", "description"}
    ).items():
        # Without the data folder, which differs between machines and may be private.
        shown = {name: value for name, value in fields.items() if (section, name) != _DATA_ROOT}
        pairs = {name: _as_text(value) for name, value in recipes.flatten(shown)}
        emphasis = [name for name in pairs if _is_in(f"{section}.{name}", changed)]
        lists[section] = html.facts(pairs, title=section, emphasis=emphasis)
    note = f"Bold: different from the packaged recipe {recipe.name}." if changed else ""
    training = lists.pop("train")
    columns = html.side_by_side(Markup("").join(lists.values()), training)
    return html.Section("Settings", [html.paragraph(note), columns] if note else [columns])


def _is_in(field: str, changed: frozenset[str]) -> bool:
    """Whether a field, or a mapping that contains it, was changed."""
    return any(f"{field}.".startswith(f"{whole}.") for whole in changed)


def _as_text(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _repeat(recipe: Recipe, plugins: Sequence[str]) -> html.Section:
    data = None if recipe.data.root is None else "ROOT"
    training = pacavit_command("train", "recipe.json", out="DIR", data=data)
    note = "Train again, from this run's recipe.json, in another folder DIR:"
    if recipe.name in recipes.names():
        try:
            training = training_command(recipe)
            note = "Train again, in another folder DIR:"
        except RecipeError:
            pass  # no command can express a value; it is in recipe.json
    places = ["the images in ROOT"] if data else []
    if needs_weights(recipe):
        places.append(
            f"{WEIGHTS} for what model.init in recipe.json names"
            if "recipe.json" in training.argv
            else f"the weights to start from in {WEIGHTS}"
        )
    if needs_teacher(recipe):
        places.append(
            f"{TEACHER} for what train.teacher in recipe.json names"
            if "recipe.json" in training.argv
            else f"the model to imitate in {TEACHER}"
        )
    if places:
        note = f"{note.removesuffix(':')}, with {' and '.join(places)}:"
    measuring = pacavit_command("evaluate", "DIR", data=data)
    return html.Section(
        "How to repeat",
        [
            html.command(training.with_plugins(plugins), note),
            html.command(measuring.with_plugins(plugins), "Evaluate it on the test images:"),
        ],
    )
