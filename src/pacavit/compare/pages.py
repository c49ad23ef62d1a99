"""A comparison as a table on the console, as Markdown, and as an HTML page."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacavit.compare.pictures import bars_png, bars_svg, curves_png, curves_svg
from pacavit.compare.results import Comparison, leading_rows
from pacavit.report import html, markdown
from pacavit.report.run_page import REPORT
from pacavit.utils import files
from pacavit.utils.statistics import Spread

__all__ = ["PAGE", "TEXT", "print_comparison", "write_comparison"]

PAGE, TEXT, CURVES, BARS = "comparison.html", "comparison.md", "curves.png", "accuracy.png"
_TESTED = (
    "Differences are of {paired} to the first row, paired by image, with the 95 % interval{test}, "
    "which covers other images but not other seeds. A difference is significant if its interval "
    "does not contain 0."
)
_UNTESTED = (
    "Differences were not tested over images; --seeds shows how much scores vary between trainings."
)
_COSTS = (
    "MACs are those of layers, without the iterations of classic clusterings. Speeds depend on the "
    "machine and on its load at the time."
)
_WHISKERS = "Whiskers of the bars are the 95 % interval (Wilson) of each score over other images."


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write a comparison as page, text and pictures; older ones are replaced.

    Args:
        comparison: of at least one run.
        out: folder, created if needed.

    Returns:
        The page, the text, and the two pictures.

    Raises:
        CheckpointError: a file cannot be written.
    """
    contents = {
        PAGE: comparison_page(comparison).encode(),
        TEXT: comparison_text(comparison).encode(),
        CURVES: curves_png(comparison),
        BARS: bars_png(comparison),
    }
    for name, content in contents.items():
        with files.writing(out / name):
            files.replace_file(out / name, content)
    return [out / name for name in contents]


def comparison_page(comparison: Comparison) -> str:
    """The comparison as an HTML document."""
    heading, main = comparison.main
    pictures = html.side_by_side(
        html.picture(
            html.data_uri(bars_svg(comparison), "image/svg+xml"),
            "; ".join(f"{row.value} {_spread(row.score(main))}" for row in comparison.rows),
            f"{heading.capitalize()} on the test images, one dot per seed; the axis may not begin "
            "at 0.",
            dark=html.data_uri(bars_svg(comparison, dark=True), "image/svg+xml"),
        ),
        html.picture(
            html.data_uri(curves_svg(comparison), "image/svg+xml"),
            f"Validation {heading} by epoch, one line per value",
            f"{heading.capitalize()} on the validation images by epoch; the mean over seeds.",
            dark=html.data_uri(curves_svg(comparison, dark=True), "image/svg+xml"),
        ),
    )
    runs: list[list[str | html.Cell]] = [
        [
            run.value,
            html.Cell(run.folder.name, link=html.relative_link(run.folder.name, REPORT)),
            str(run.seed),
            f"{run.evaluation.scores[main]:.4f}",
        ]
        for row in comparison.rows
        for run in row.runs
    ]
    return html.page(
        _title(comparison),
        f"The recipe {comparison.recipe} with {len(comparison.rows)} values of "
        f"{' and '.join(comparison.fields)}.",
        [
            html.Section(
                "Results",
                [
                    html.table("Scores on the test images", *_scores(comparison)),
                    html.table("Cost, and statistics of the clusters", *_costs(comparison)),
                    html.paragraph(_sentence(comparison)),
                ],
            ),
            html.Section("Pictures", [pictures]),
            html.Section(
                "Runs",
                [
                    html.table(
                        "Links lead to the reports of the runs, in the folders beside this page",
                        ["value", "run", "seed", heading],
                        runs,
                        text_columns=2,
                    )
                ],
            ),
            html.Section(
                "How to repeat", [html.command(comparison.command, "Train and compare again:")]
            ),
        ],
        highlights=_highlights(comparison),
    )


def _highlights(comparison: Comparison) -> dict[str, str]:
    """The best value and its scores; several values if they do not differ significantly."""
    heading, main = comparison.main
    first, *others = leading_rows(comparison)
    if others:
        scores = sorted(row.score(main).mean for row in (first, *others))
        ends = dict.fromkeys(html.percent(score) for score in (scores[0], scores[-1]))
        return {
            "highest, without significant difference": ", ".join(
                row.value for row in (first, *others)
            ),
            f"their {heading}": " to ".join(ends),
        }
    return {
        "best": first.value,
        **{
            f"its {label}": html.percent(first.score(name).mean)
            for name, label in (comparison.report.headline or {main: heading}).items()
        },
    }


def comparison_text(comparison: Comparison) -> str:
    """The comparison as Markdown."""
    heading, _ = comparison.main
    lines = [
        f"# {_title(comparison)}",
        "",
        markdown.table(*_scores(comparison)),
        "",
        markdown.table(*_costs(comparison)),
        "",
        _sentence(comparison),
        "",
        f"![{heading}]({BARS})",
        "",
        f"![learning curves]({CURVES})",
        "",
        markdown.shell(comparison.command),
    ]
    return "\n".join(lines) + "\n"


def print_comparison(comparison: Comparison, *, console: Console | None = None) -> None:
    """Print the columns that fit a console; differences that are not significant are "n.s."."""
    tested = comparison.is_tested
    table = Table(
        title=escape(_title(comparison)),
        title_justify="left",
        caption=f"change of {comparison.report.paired} to the first row; n.s.: no significant "
        "difference"
        if tested
        else None,
        caption_justify="left",
    )
    headings = [*comparison.columns, *(("change",) if tested else ()), "images/s"]
    rows = []
    for row in comparison.rows:
        change = row.difference
        text = "" if change is None else f"{change.mean:+.4f}" if change.significant else "n.s."
        speed = f"{fmean(run.training_speed for run in row.runs):,.0f}"
        scores = (_spread(row.score(name)) for name in comparison.columns.values())
        rows.append([escape(row.value), *scores, *((text,) if tested else ()), speed])
    table.add_column(escape(_name(comparison)), no_wrap=True)
    for heading, *texts in zip(headings, *(row[1:] for row in rows), strict=True):
        # In a narrow console headings are wrapped, and numbers are not cut.
        table.add_column(heading, justify="right", min_width=max(map(len, texts)))
    for cells in rows:
        table.add_row(*cells)
    (console or Console()).print(table)


def _scores(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of scores."""
    header = [_name(comparison), *comparison.columns]
    rows = [
        [row.value, *(_spread(row.score(name)) for name in comparison.columns.values())]
        for row in comparison.rows
    ]
    if not comparison.is_tested:
        return header, rows
    differences = (row.difference for row in comparison.rows)
    texts = ("" if each is None else each.as_difference(4) for each in differences)
    return [*header, "difference (95 %)"], [
        [*row, text] for row, text in zip(rows, texts, strict=True)
    ]


def _costs(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of costs and cluster statistics."""
    header = [_name(comparison), "parameters", "M MACs", "training images/s", "test images/s"]
    rows = []
    for row in comparison.rows:
        first, used, entropy = row.runs[0], row.clusters("used"), row.clusters("entropy")
        rows.append(
            [
                row.value,
                f"{first.parameters:,}",
                f"{first.macs / 1e6:,.1f}",
                f"{fmean(run.training_speed for run in row.runs):,.0f}",
                f"{fmean(run.evaluation.images_per_second for run in row.runs):,.0f}",
                f"{fmean(run.minutes for run in row.runs):,.1f}",
                "" if used is None else f"{used.mean:.1f}",
                "" if entropy is None else f"{entropy.mean:.2f}",
            ]
        )
    return [*header, "minutes", "used clusters", "entropy"], rows


def _title(comparison: Comparison) -> str:
    return f"{comparison.recipe}: {', '.join(comparison.fields)}"


def _name(comparison: Comparison) -> str:
    return comparison.fields[0].rpartition(".")[2]


def _spread(value: Spread) -> str:
    text = f"{value.mean:.4f}"
    return text if value.deviation is None else f"{text} ± {value.deviation:.4f}"


def _sentence(comparison: Comparison) -> str:
    """What the numbers mean."""
    number = len(comparison.rows[0].runs)
    seeds = f", and over {number} seeds, with their standard deviations" if number > 1 else ""
    caption = comparison.report.scores_caption()
    paired = comparison.rows[0].runs[0].paired
    sentences = [
        f"Scores are measured on the test images; {caption[:1].lower()}{caption[1:]}{seeds}."
    ]
    if paired is None or not comparison.is_tested:
        sentences.append(_UNTESTED)
    else:
        test = " of McNemar's test" if paired.values.dtype == bool else ""
        sentences.append(_TESTED.format(paired=comparison.report.paired, test=test))
    sentences.append(_COSTS)
    if comparison.main[1] in comparison.report.proportions:
        sentences.append(_WHISKERS)
    return " ".join(sentences)
