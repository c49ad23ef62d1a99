"""A benchmark as Markdown, pictures, and a table on the console."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacavit.bench.pictures import accuracy_png, growth_png
from pacavit.bench.results import Benchmark
from pacavit.bench.tables import Table as ShortTable
from pacavit.bench.tables import counts_table, growth_table, settings_of, speed_table
from pacavit.report import markdown
from pacavit.utils import files
from pacavit.utils.command import Command

__all__ = ["ACCURACY", "GROWTH", "TEXT", "benchmark_text", "print_benchmark", "write_pages"]

TEXT, ACCURACY, GROWTH = "bench.md", "accuracy.png", "growth.png"
_COUNTED = (
    "Parameters and multiply-accumulates (MACs) are counted: those of convolutions and matrix "
    "products, both products of attention included, without the iterations of classic clusterings."
)
_TIMED = (
    "Images per second are medians with quartiles over {rounds} rounds, after 2 others, in which "
    "up to 8 networks, the first always among them, take turns with a batch each. The ratio is "
    "that of the times in the same round. Images are random and already in memory. Weights and "
    "images of PyTorch have the precision; OpenVINO computes in it. Peak memory is that of weights "
    "and of one pass, beyond what libraries take, in a process of its own: allocated memory on a "
    "GPU, else resident memory."
)
_GROWING = (
    "The exponent p of N, the number of patches of 4 x 4 pixels, by which costs grow between the "
    "two largest images: 1 is linear, 2 is quadratic."
)


def write_pages(found: Benchmark, out: Path) -> None:
    """Write ``bench.md`` and the pictures; older ones are replaced.

    Raises:
        CheckpointError: a file cannot be written.
    """
    pictures = {ACCURACY: accuracy_png(found), GROWTH: growth_png(found)}
    drawn = {name: content for name, content in pictures.items() if content is not None}
    contents = {TEXT: benchmark_text(found, list(drawn)).encode(), **drawn}
    for name, content in contents.items():
        with files.writing(out / name):
            files.replace_file(out / name, content)


def benchmark_text(found: Benchmark, pictures: list[str]) -> str:
    """The benchmark as Markdown.

    Args:
        found: the results.
        pictures: names of files beside it.
    """
    rounds = found.settings["rounds"]
    parts = ["# Benchmark", markdown.table(*counts_table(found)), _COUNTED]
    if found.rows:
        parts += [markdown.table(*speed_table(found, settings_of(found)))]
        parts += [_TIMED.format(rounds=rounds), load_text(found)]
    if len(found.settings["sizes"]) > 1:
        parts += [markdown.table(*growth_table(found)), _GROWING]
    parts += [f"![{name.partition('.')[0]}]({name})" for name in pictures]
    facts = found.environment
    machine = facts.get("gpu", facts["cpu"])
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "timm"))
    threads = f"{facts['threads']} thread{'s' if facts['threads'] > 1 else ''}"
    parts += [
        f"Measured on {machine}, {threads}, {versions}.",
        markdown.shell(Command(tuple(found.command))),
    ]
    return "\n\n".join(parts) + "\n"


def load_text(found: Benchmark) -> str:
    """The load of the machine before and after, in one or two sentences."""
    loads = [found.before, *([found.after] if found.after is not None else [])]
    texts = ["unknown" if each.average is None else f"{each.average:.2f}" for each in loads]
    text = f"Load of the machine before and after: {' and '.join(texts)}."
    if found.disturbed:
        text += (
            f" Other programs kept up to {found.disturbance:.1f} cores busy: these times are not "
            "reliable."
        )
    return text


def print_benchmark(found: Benchmark, *, console: Console | None = None) -> None:
    """Print the median throughput, or only parameters and MACs, and below it what failed."""
    header, rows = _short_speed(found) if found.rows else _short_counts(found)
    table = Table()
    for number, heading in enumerate(header):
        table.add_column(escape(heading), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    console = console or Console()
    console.print(table)
    reasons = {model.label: model.error for model in found.models}
    reasons |= {
        f"{found.model(row.name).label}, {row.engine} {row.precision}, batch {row.batch_size}, "
        f"{row.size} pixels": row.error
        for row in found.rows
    }
    for what, reason in reasons.items():
        if reason is not None:
            line = f"{what}: {reason}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _short_speed(found: Benchmark) -> ShortTable:
    rows = [
        [
            found.model(row.name).label,
            f"{row.engine} {row.precision}",
            str(row.batch_size),
            str(row.size),
            "failed" if row.images_per_second is None else f"{row.images_per_second[1]:,.1f}",
            "" if row.ratio is None else f"{row.ratio[1]:.2f}",
            "" if row.peak_mebibytes is None else f"{row.peak_mebibytes:,.0f}",
        ]
        for row in found.rows
    ]
    return ["", "engine", "batch", "pixels", "images/s", "ratio", "MiB"], rows


def _short_counts(found: Benchmark) -> ShortTable:
    sizes = found.settings["sizes"]
    rows = []
    for model in found.models:
        first = next(iter(model.parameters.values()), None)
        macs = ("" if size not in model.macs else f"{model.macs[size] / 1e9:.2f}" for size in sizes)
        rows.append([model.label, "failed" if first is None else f"{first / 1e6:.2f}", *macs])
    return ["", "parameters (M)", *(f"G MACs, {size}" for size in sizes)], rows
