"""What explanation methods scored, as a table on the console, Markdown, JSON, picture and page."""

from __future__ import annotations

import json
import math
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

from pacavit.explain.evaluation.clusters import AGREEMENT, HEALTH, StageScores
from pacavit.explain.evaluation.images import AREA, MEASURES, TARGETS, Bench, MethodScores
from pacavit.explain.evaluation.metrics import Interval, mean_interval
from pacavit.report import html
from pacavit.report.curves import svg_picture
from pacavit.report.folders import check_folder
from pacavit.utils import files

__all__ = [
    "PAGE",
    "UNFINISHED",
    "VALUES",
    "BenchReport",
    "check_bench_folder",
    "print_bench",
    "write_bench",
]

PAGE, TEXT, NUMBERS, PICTURE = "bench.html", "bench.md", "bench.json", "bench.svg"
VALUES = "bench.safetensors"
"""All numbers image by image, to pair any method with any other."""
UNFINISHED = "bench.unfinished"
"""Folder of what is measured, until the bench is written."""

_TITLES = {"predicted": "Maps of the likeliest class", "true": "Maps of the right class"}
_NOTE = (
    "Means over the images, with half the 95 % bootstrap interval. Pixels are taken in the order "
    "of each map, equal values in a drawn order; curves have both ends. Kept and removed are at "
    f"{AREA:.0%} of the pixels for all methods alike. The table of differences compares with the "
    "first method image by image; a tie is a difference whose interval holds 0. Times are of this "
    "machine, maps of a whole batch at once."
)
_ARROWS = {1: " ↑", -1: " ↓", 0: ""}


@dataclass(frozen=True)
class BenchReport:
    """A bench and what it is of.

    Attributes:
        model: as it was given.
        data: which copy of the data, and which split.
        command: that repeats it.
        bench: the numbers.
        environment: machine and versions.
    """

    model: str
    data: str
    command: str
    bench: Bench
    environment: Mapping[str, Any]

    @property
    def lead(self) -> str:
        """A sentence on what was measured."""
        return (
            f"{len(self.bench.rows)} ways to explain {self.model}, on {self.bench.num_images:,} "
            f"images of {self.data}, of which it names {self.bench.accuracy:.1%} right."
        )


def check_bench_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds anything, or with ``overwrite`` anything but a bench.

    An unfinished bench was let in when it began; whether it goes on its settings say.

    Raises:
        PacavitError: it does, or it is a file.
    """
    if not (out / UNFINISHED).is_dir():
        check_folder(out, mark=NUMBERS, what="a bench of explanations", overwrite=overwrite)


def write_bench(report: BenchReport, out: Path) -> list[Path]:
    """Write page, Markdown, JSON, picture, and the numbers of all images; older ones are replaced.

    Raises:
        CheckpointError: a file cannot be written.
    """
    contents = {
        PAGE: _page(report).encode(),
        TEXT: _text(report).encode(),
        NUMBERS: (json.dumps(_record(report), indent=1, allow_nan=False) + "\n").encode(),
        PICTURE: _picture(report.bench, dark=False),
        VALUES: files.tensor_bytes(_values(report.bench)),
    }
    for name, content in contents.items():
        with files.writing(out / name):
            files.replace_file(out / name, content)
    return [out / name for name in contents]


def print_bench(report: BenchReport, *, console: Console | None = None) -> None:
    """Print the columns that fit a console, of the likeliest classes."""
    table = Table(
        title=escape(report.lead), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("method", no_wrap=True)
    shown = ("insertion", "deletion", "kept", "removed")
    for name in shown:
        table.add_column(name + _ARROWS[MEASURES[name].better], justify="right", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    for row in report.bench.rows:
        cells = [_cell(row.interval("predicted", name), short=True) for name in shown]
        table.add_row(escape(row.method), *cells, f"{1000 * row.seconds:.1f}")
    (console or Console()).print(table)


def _measured(bench: Bench) -> list[str]:
    return [name for name in MEASURES if name in bench.rows[0].values[TARGETS[0]]]


def _scores(bench: Bench, target: str) -> tuple[list[str], list[list[str]]]:
    names = _measured(bench)
    header = ["method", *(name + _ARROWS[MEASURES[name].better] for name in names), "ms an image"]
    rows = [
        [
            row.method,
            *(_cell(row.interval(target, name)) for name in names),
            f"{1000 * row.seconds:.1f}",
        ]
        for row in bench.rows
    ]
    return header, rows


def _differences(bench: Bench) -> tuple[list[str], list[list[str]]]:
    names = [name for name in _measured(bench) if MEASURES[name].better]
    first = bench.rows[0]
    header = [f"minus {first.method}", *(name + _ARROWS[MEASURES[name].better] for name in names)]
    rows = [
        [row.method, *(_change(row.beyond(first, "predicted", name)) for name in names)]
        for row in bench.rows[1:]
    ]
    return header, rows


def _cell(value: Interval | None, *, short: bool = False) -> str:
    if value is None or math.isnan(value.mean):
        return ""
    return f"{value.mean:.3f}" + ("" if short else f" ± {(value.high - value.low) / 2:.3f}")


def _change(value: Interval | None) -> str:
    return "" if value is None or math.isnan(value.mean) else value.as_difference(3)


def _tables(bench: Bench) -> list[tuple[str, list[str], list[list[str]]]]:
    found = [(_TITLES[target], *_scores(bench, target)) for target in TARGETS]
    if len(bench.rows) > 1:
        found.append(
            (f"Differences to {bench.rows[0].method}, likeliest class", *_differences(bench))
        )
    if any(stage.agreement for stage in bench.clusters):
        found.append(
            ("Clusters against the masks of the objects, higher is better", *_agreement(bench))
        )
    if bench.clusters:
        found.append(("The clusters themselves", *_health(bench)))
    return found


def _agreement(bench: Bench) -> tuple[list[str], list[list[str]]]:
    rows = []
    for stage in bench.clusters:
        for name, scores in stage.agreement.items():
            cells = [_cell(mean_interval(values)) for values in scores.values()]
            rows.append([f"stage {stage.stage}, {_number(stage)}: {name}", *cells])
    return ["partition", *AGREEMENT], rows


def _number(stage: StageScores) -> str:
    """M, and how many of them there are where that differs."""
    there = stage.health["clusters"].mean().item()
    few = "" if there == stage.num_clusters else f", {there:.1f} of them there"
    return f"M = {stage.num_clusters}{few}"


def _health(bench: Bench) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            f"stage {stage.stage}, {_number(stage)}",
            *(_cell(mean_interval(stage.health[name])) for name in HEALTH),
        ]
        for stage in bench.clusters
    ]
    return ["clusters", *HEALTH], rows


def _page(report: BenchReport) -> str:
    light, dark = (
        html.data_uri(_picture(report.bench, dark=each), "image/svg+xml") for each in (False, True)
    )
    left_out = report.bench.left_out
    meanings = {name: MEASURES[name].meaning for name in _measured(report.bench)}
    if any(stage.agreement for stage in report.bench.clusters):
        meanings |= {name: measure.meaning for name, measure in AGREEMENT.items()}
    if report.bench.clusters:
        meanings |= HEALTH
    return html.page(
        f"How true are explanations of {report.model}?",
        report.lead,
        [
            html.Section(
                "Results",
                [
                    html.picture(
                        light,
                        "Insertion minus deletion of each method, and its time",
                        "Insertion minus deletion with its 95 % interval, higher is better; and "
                        "milliseconds an image.",
                        dark=dark,
                    ),
                    *(html.table(*table) for table in _tables(report.bench)),
                    html.paragraph(_NOTE),
                ],
            ),
            html.Section("What the columns mean", [html.facts(meanings)]),
            *(
                [html.Section("Methods that cannot explain this model", [html.facts(left_out)])]
                if left_out
                else []
            ),
            html.Section("How to repeat", [html.command(report.command, "Measure again:")]),
            html.environment(report.environment),
        ],
    )


def _text(report: BenchReport) -> str:
    lines = [f"# How true are explanations of {report.model}?", "", report.lead, ""]
    for caption, header, rows in _tables(report.bench):
        lines += [f"{caption}:", "", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines.append("")
    lines += [_NOTE, "", f"![insertion minus deletion]({PICTURE})", ""]
    lines += ["```sh", report.command, "```"]
    return "\n".join(lines) + "\n"


def _record(report: BenchReport) -> dict[str, Any]:
    bench = report.bench
    return {
        "command": report.command,
        "model": report.model,
        "data": report.data,
        "environment": report.environment,
        "num_images": bench.num_images,
        "accuracy": round(bench.accuracy, 4),
        "methods": [_method(row, bench) for row in bench.rows],
        "clusters": [_stage(stage) for stage in bench.clusters],
    }


def _values(bench: Bench) -> dict[str, Tensor]:
    """By method/target/measure, and stage/partition/measure, a number an image."""
    found = {
        f"{row.method}/{target}/{name}": values
        for row in bench.rows
        for target, measures in row.values.items()
        for name, values in measures.items()
    }
    return found | {
        f"stage {stage.stage}/{partition}/{name}": values
        for stage in bench.clusters
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
    """Of what could be measured."""
    return {
        name: [round(number, 4) for number in interval]
        for name, interval in intervals.items()
        if interval is not None and not math.isnan(interval.mean)
    }


def _method(row: MethodScores, bench: Bench) -> dict[str, Any]:
    names, first = _measured(bench), bench.rows[0]
    found: dict[str, Any] = {"method": row.method, "milliseconds": round(1000 * row.seconds, 2)}
    for target in TARGETS:
        found[target] = _rounded({name: row.interval(target, name) for name in names})
    if row is not first:
        differences = {name: row.beyond(first, "predicted", name) for name in names}
        found[f"minus {first.method}"] = _rounded(differences)
    return found


def _picture(bench: Bench, *, dark: bool) -> bytes:
    def draw(axes: Axes) -> None:
        rows = bench.rows[::-1]  # the first row on top
        for place, row in enumerate(rows):
            found = row.interval("predicted", "difference")
            assert found is not None
            axes.barh(place, found.mean, color="C0", height=0.6)
            axes.plot([found.low, found.high], [place, place], color="C1", linewidth=2)
        labels = [f"{row.method}, {1000 * row.seconds:.1f} ms" for row in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_xlabel("insertion minus deletion")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)

    return svg_picture(draw, (7, 1 + 0.28 * len(bench.rows)), dark=dark)
