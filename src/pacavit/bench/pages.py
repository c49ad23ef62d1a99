"""A benchmark as Markdown, pictures, and a table on the console."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacavit.bench.pictures import accuracy_png, growth_png
from pacavit.bench.results import Benchmark
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
    parts += [
        f"Measured on {machine}, {facts['threads']} threads, {versions}.",
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
    """Print the counts, or the throughput if it was measured."""
    console = console or Console()
    header, rows = speed_table(found, settings_of(found)) if found.rows else counts_table(found)
    failed = [] if not found.rows else [each for each in found.models if each.error is not None]
    table = Table()
    for number, heading in enumerate(header):
        table.add_column(escape(heading), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    for model in failed:
        line = f"{model.label} failed: {model.error}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
