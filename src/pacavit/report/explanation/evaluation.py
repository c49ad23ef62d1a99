"""The evaluation of explanations on the console and as Markdown, JSON, picture and page."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from pacavit.errors import PacavitError
from pacavit.explain.choice import NUMBERS, most_faithful
from pacavit.explain.evaluation.clusters import AGREEMENT, HEALTH, StageScores
from pacavit.explain.evaluation.methods import (
    AREA,
    MEASURES,
    TARGETS,
    ExplanationScores,
    MethodScores,
)
from pacavit.report import html, markdown
from pacavit.report.curves import svg_picture
from pacavit.report.folders import check_folder
from pacavit.utils import files
from pacavit.utils.command import Command
from pacavit.utils.statistics import Interval, mean_interval

__all__ = [
    "PAGE",
    "UNFINISHED",
    "VALUES",
    "ExplanationReport",
    "check_report_folder",
    "print_explanation_report",
    "write_explanation_report",
]

PAGE, TEXT = "faithfulness.html", "faithfulness.md"
PICTURE = "faithfulness.svg"
VALUES = "faithfulness.safetensors"
"""The values of every image, which allow paired comparisons of any two methods."""
UNFINISHED = "faithfulness.unfinished"
"""Folder of intermediate results, removed when the report is written."""

# Names in release 0.1.
_OLD_NUMBERS, _OLD_UNFINISHED = "bench.json", "bench.unfinished"
_OLD_FILES = (_OLD_NUMBERS, "bench.html", "bench.md", "bench.svg", "bench.safetensors")
_WHAT = "an evaluation of explanations"
_TITLES = {"predicted": "Maps of the top-1 class", "true": "Maps of the true class"}
_NOTE = (
    "Means over the images with half their 95 % bootstrap interval. Pixels are altered in the "
    "order of each map, pixels of equal value in a random order. Kept and removed use "
    f"{AREA:.0%} of the pixels for every method. Differences are paired by image, to the first "
    "method; one is significant if its interval does not contain 0. Times are of this machine, for "
    "maps of a whole batch at once."
)
_ARROWS = {1: " ↑", -1: " ↓", 0: ""}


@dataclass(frozen=True)
class ExplanationReport:
    """The evaluation of a model's explanations, with what is needed to repeat it.

    Attributes:
        model: name of the model.
        data: version of the data, and the split.
        command: repeats the evaluation.
        scores: of methods and clusters.
        environment: machine and versions.
        weights: the SHA-256 of the model's file.
    """

    model: str
    data: str
    command: Command
    scores: ExplanationScores
    environment: Mapping[str, Any]
    weights: str

    @property
    def lead(self) -> str:
        """A sentence on what was evaluated."""
        return (
            f"{len(self.scores.rows)} explanation methods for {self.model}, on "
            f"{self.scores.num_images:,} images of {self.data}, on which its accuracy is "
            f"{self.scores.accuracy:.1%}."
        )


def check_report_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is not empty, or with ``overwrite`` one without such an evaluation.

    A folder with an unfinished evaluation is accepted: its settings decide whether it is resumed.

    Raises:
        PacavitError: the folder is refused, or it is a file.
    """
    if (out / UNFINISHED).is_dir():
        return
    if (out / _OLD_UNFINISHED).is_dir():
        if overwrite:
            return
        raise PacavitError(
            f"{out} holds an unfinished evaluation of an earlier release ({_OLD_UNFINISHED}), "
            "which cannot be resumed; give --overwrite to start over, or choose another folder"
        )
    old = (out / _OLD_NUMBERS).is_file() and not (out / NUMBERS).is_file()
    check_folder(out, mark=_OLD_NUMBERS if old else NUMBERS, what=_WHAT, overwrite=overwrite)


def write_explanation_report(report: ExplanationReport, out: Path) -> list[Path]:
    """Write page, Markdown, JSON, picture, and the values of all images; older ones are replaced.

    Raises:
        CheckpointError: a file cannot be written.
    """
    contents = {
        PAGE: _page(report).encode(),
        TEXT: _text(report).encode(),
        NUMBERS: (json.dumps(_record(report), indent=1, allow_nan=False) + "\n").encode(),
        PICTURE: _picture(report.scores, dark=False),
        VALUES: files.tensor_bytes(_values(report.scores)),
    }
    for name, content in contents.items():
        with files.writing(out / name):
            files.replace_file(out / name, content)
    _remove_old(out)
    return [out / name for name in contents]


def _remove_old(out: Path) -> None:
    """Remove results with the names of release 0.1, which have been replaced by new files."""
    with files.writing(out):
        for name in _OLD_FILES:
            (out / name).unlink(missing_ok=True)
        if (out / _OLD_UNFINISHED).is_dir():
            shutil.rmtree(out / _OLD_UNFINISHED)


def print_explanation_report(report: ExplanationReport, *, console: Console | None = None) -> None:
    """Print the columns that fit a console, for the top-1 classes."""
    table = Table(
        title=escape(report.lead), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("method", no_wrap=True)
    shown = ("insertion", "deletion", "kept", "removed")
    for name in shown:
        table.add_column(name + _ARROWS[MEASURES[name].better], justify="right", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    for row in report.scores.rows:
        cells = [_cell(row.interval("predicted", name), short=True) for name in shown]
        table.add_row(escape(row.method), *cells, f"{1000 * row.seconds:.1f}")
    console = console or Console()
    console.print(table)
    if choice := most_faithful(_record(report)):
        console.print(choice.note, markup=False, highlight=False, soft_wrap=True)


def _measured(scores: ExplanationScores) -> list[str]:
    return [name for name in MEASURES if name in scores.rows[0].values[TARGETS[0]]]


def _scores(scores: ExplanationScores, target: str) -> tuple[list[str], list[list[str]]]:
    names = _measured(scores)
    header = ["method", *(name + _ARROWS[MEASURES[name].better] for name in names), "ms per image"]
    rows = [
        [
            row.method,
            *(_cell(row.interval(target, name)) for name in names),
            f"{1000 * row.seconds:.1f}",
        ]
        for row in scores.rows
    ]
    return header, rows


def _differences(scores: ExplanationScores) -> tuple[list[str], list[list[str]]]:
    names = [name for name in _measured(scores) if MEASURES[name].better]
    first = scores.rows[0]
    header = [f"minus {first.method}", *(name + _ARROWS[MEASURES[name].better] for name in names)]
    rows = [
        [row.method, *(_change(row.minus(first, "predicted", name)) for name in names)]
        for row in scores.rows[1:]
    ]
    return header, rows


def _cell(value: Interval | None, *, short: bool = False) -> str:
    if value is None or math.isnan(value.mean):
        return ""
    return f"{value.mean:.3f}" + ("" if short else f" ± {(value.high - value.low) / 2:.3f}")


def _change(value: Interval | None) -> str:
    return "" if value is None or math.isnan(value.mean) else value.as_difference(3)


def _tables(scores: ExplanationScores) -> list[tuple[str, list[str], list[list[str]]]]:
    found = [(_TITLES[target], *_scores(scores, target)) for target in TARGETS]
    if len(scores.rows) > 1:
        found.append(
            (f"Differences to {scores.rows[0].method}, top-1 class", *_differences(scores))
        )
    if any(stage.agreement for stage in scores.clusters):
        found.append(
            (
                "Agreement of clusters with the masks of objects, higher is better",
                *_agreement(scores),
            )
        )
    if scores.clusters:
        found.append(("The clusters themselves", *_health(scores)))
    return found


def _agreement(scores: ExplanationScores) -> tuple[list[str], list[list[str]]]:
    rows = []
    for stage in scores.clusters:
        for name, measures in stage.agreement.items():
            cells = [_cell(mean_interval(values)) for values in measures.values()]
            rows.append([f"stage {stage.stage}, {_number(stage)}: {name}", *cells])
    return ["partition", *AGREEMENT], rows


def _number(stage: StageScores) -> str:
    """M, and the mean number of clusters found if that differs."""
    found = stage.health["clusters"].mean().item()
    note = "" if found == stage.num_clusters else f", {found:.1f} found on average"
    return f"M = {stage.num_clusters}{note}"


def _health(scores: ExplanationScores) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            f"stage {stage.stage}, {_number(stage)}",
            *(_cell(mean_interval(stage.health[name])) for name in HEALTH),
        ]
        for stage in scores.clusters
    ]
    return ["clusters", *HEALTH], rows


def _page(report: ExplanationReport) -> str:
    light, dark = (
        html.data_uri(_picture(report.scores, dark=each), "image/svg+xml") for each in (False, True)
    )
    left_out = report.scores.left_out
    choice = most_faithful(_record(report))
    meanings = {name: MEASURES[name].meaning for name in _measured(report.scores)}
    if any(stage.agreement for stage in report.scores.clusters):
        meanings |= {name: measure.meaning for name, measure in AGREEMENT.items()}
    if report.scores.clusters:
        meanings |= HEALTH
    return html.page(
        f"How faithful are explanations of {report.model}?",
        report.lead,
        [
            html.Section(
                "Results",
                [
                    *([html.paragraph(choice.note)] if choice else []),
                    html.picture(
                        light,
                        "Insertion minus deletion of each method, and its time",
                        "Insertion minus deletion with its 95 % interval, higher is better, and "
                        "milliseconds per image.",
                        dark=dark,
                    ),
                    *(html.table(*table) for table in _tables(report.scores)),
                    html.paragraph(_NOTE),
                ],
            ),
            html.Section("What the columns mean", [html.facts(meanings)]),
            *(
                [html.Section("Methods that do not work on this model", [html.facts(left_out)])]
                if left_out
                else []
            ),
            html.Section("How to repeat", [html.command(report.command, "Evaluate again:")]),
            html.environment(report.environment),
        ],
    )


def _text(report: ExplanationReport) -> str:
    lines = [f"# How faithful are explanations of {report.model}?", "", report.lead, ""]
    for caption, header, rows in _tables(report.scores):
        lines += [f"{caption}:", "", markdown.table(header, rows), ""]
    lines += [_NOTE, "", f"![insertion minus deletion]({PICTURE})", ""]
    lines.append(markdown.shell(report.command))
    return "\n".join(lines) + "\n"


def _record(report: ExplanationReport) -> dict[str, Any]:
    scores = report.scores
    return {
        "command": report.command.json,
        "model": report.model,
        "data": report.data,
        "weights_sha256": report.weights,
        "environment": report.environment,
        "num_images": scores.num_images,
        "accuracy": round(scores.accuracy, 4),
        "methods": [_method(row, scores) for row in scores.rows],
        "clusters": [_stage(stage) for stage in scores.clusters],
    }


def _values(scores: ExplanationScores) -> dict[str, Tensor]:
    """By method/target/measure and stage/partition/measure: (images,)."""
    found = {
        f"{row.method}/{target}/{name}": values
        for row in scores.rows
        for target, measures in row.values.items()
        for name, values in measures.items()
    }
    return found | {
        f"stage {stage.stage}/{partition}/{name}": values
        for stage in scores.clusters
        for partition, measures in stage.agreement.items()
        for name, values in measures.items()
    }


def _stage(scores: StageScores) -> dict[str, Any]:
    return {
        "stage": scores.stage,
        "num_clusters": scores.num_clusters,
        "agreement": {name: _means(values) for name, values in scores.agreement.items()},
        "health": _means(scores.health),
    }


def _means(values: Mapping[str, Tensor]) -> dict[str, list[float]]:
    return _rounded({name: mean_interval(numbers) for name, numbers in values.items()})


def _rounded(intervals: Mapping[str, Interval | None]) -> dict[str, list[float]]:
    """Mean, low and high of each interval that was measured."""
    return {
        name: [round(number, 4) for number in interval]
        for name, interval in intervals.items()
        if interval is not None and not math.isnan(interval.mean)
    }


def _method(row: MethodScores, scores: ExplanationScores) -> dict[str, Any]:
    names, first = _measured(scores), scores.rows[0]
    found: dict[str, Any] = {"method": row.method, "milliseconds": round(1000 * row.seconds, 2)}
    for target in TARGETS:
        found[target] = _rounded({name: row.interval(target, name) for name in names})
    if row is not first:
        differences = {name: row.minus(first, "predicted", name) for name in names}
        found[f"minus {first.method}"] = _rounded(differences)
    return found


def _picture(scores: ExplanationScores, *, dark: bool) -> bytes:
    def draw(axes: Axes) -> None:
        rows = scores.rows[::-1]  # the first row on top
        for position, row in enumerate(rows):
            found = row.interval("predicted", "difference")
            assert found is not None
            axes.barh(position, found.mean, color="C0", height=0.6)
            axes.plot([found.low, found.high], [position, position], color="C1", linewidth=2)
        labels = [f"{row.method}, {1000 * row.seconds:.1f} ms" for row in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_xlabel("insertion minus deletion")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)

    return svg_picture(draw, (7, 1 + 0.28 * len(scores.rows)), dark=dark)
