"""The tables of networks side by side, from what ``pacavit bench`` recorded."""

from __future__ import annotations

from collections.abc import Sequence

from result_tables import RESULTS, named_table

from pacavit.bench.pages import load_text
from pacavit.bench.results import Benchmark, Model, Row, read_results
from pacavit.bench.tables import (
    Shape,
    counts_table,
    growth_table,
    seconds,
    settings_of,
    speed_table,
)
from pacavit.report.markdown import table

MISSING = "Not measured yet."


def _found(name: str) -> Benchmark | None:
    path = RESULTS / f"{name}.json"
    return read_results(path) if path.is_file() else None


@named_table("peers-counts")
def peers_counts() -> str:
    """Parameters and MACs of the networks of the paper's table, and the published figures."""
    found = _found("peers_counts")
    return MISSING if found is None else table(*counts_table(found))


def _speeds(name: str) -> str:
    """Throughput and memory in all settings; then the load of the machine."""
    found = _found(name)
    if found is None:
        return MISSING
    return f"{table(*speed_table(found, settings_of(found)))}\n\n{load_text(found)}"


@named_table("peers-speed")
def peers_speed() -> str:
    """Their throughput and memory."""
    return _speeds("peers")


@named_table("engines-speed")
def engines_speed() -> str:
    """PaCa-ViT-S and its peers in each engine: images per second, by batch size."""
    found = _found("engines")
    if found is None:
        return MISSING
    tables = []
    for size in found.settings["batch_sizes"]:
        shapes = [shape for shape in settings_of(found) if shape[2] == size]
        header = ["", *(f"{engine} {precision}" for engine, precision, *_ in shapes), "best"]
        header.append("best: GMAC/s")
        rows = [_engine_row(found, model, shapes) for model in found.models]
        tables.append(f"Batch {size}:\n\n{table(header, rows)}")
    return "\n\n".join([*tables, load_text(found)])


def _engine_row(found: Benchmark, model: Model, shapes: Sequence[Shape]) -> list[str]:
    times = [seconds(_row(found, model.name, shape)) for shape in shapes]
    speeds = [None if each is None else 1 / each for each in times]
    best = max((speed for speed in speeds if speed is not None), default=0.0)
    macs = model.macs[shapes[0][3]] / 1e9
    cells = ["failed" if speed is None else f"{speed:.1f}" for speed in speeds]
    return [model.label, *cells, f"{best:.1f}", f"{best * macs:.0f}"]


def _row(found: Benchmark, name: str, shape: Shape) -> Row:
    return next(row for row in found.rows if (row.name, row.shape) == (name, shape))


@named_table("large-images")
def large_images() -> str:
    """Time per pixel and memory at 1024 pixels beside 224."""
    found = _found("large")
    if found is None:
        return MISSING
    small, large = found.settings["sizes"]
    header = ["", "engine", f"ms, {small} pixels", f"ms, {large} pixels", "cost per pixel"]
    header += [f"MiB, {small} pixels", f"MiB, {large} pixels"]
    rows = []
    for row in found.rows:
        if row.size != small:
            continue
        other = _row(found, row.name, (*row.shape[:3], large))
        cells = [found.model(row.name).label, f"{row.engine} {row.precision}"]
        short, long = seconds(row), seconds(other)
        if short is None or long is None:
            rows.append([*cells, "failed", "failed", "", "", ""])
            continue
        growth = long / short * (small / large) ** 2
        cells += [f"{1000 * short:.1f}", f"{1000 * long:.0f}", f"{growth:.2f}"]
        rows.append([*cells, *(f"{each.peak_mebibytes or 0:,.0f}" for each in (row, other))])
    return f"{table(header, rows)}\n\n{load_text(found)}"


@named_table("nano-latency")
def nano_latency() -> str:
    """The time that nano needs for one image, by engine."""
    found = _found("latency")
    if found is None:
        return MISSING
    rows = []
    for row in found.rows:
        cells = [found.model(row.name).label, f"{row.engine} {row.precision}"]
        if row.images_per_second is None:
            rows.append([*cells, "failed"])
            continue
        low, middle, high = (1000 / value for value in reversed(row.images_per_second))
        rows.append([*cells, f"{middle:.2f} ({low:.2f} to {high:.2f})"])
    return f"{table(['', 'engine', 'ms (quartiles)'], rows)}\n\n{load_text(found)}"


@named_table("attentions-counts")
def attentions_counts() -> str:
    """MACs of PaCa-ViT-S with other attentions, by image size."""
    found = _found("attentions_counts")
    return MISSING if found is None else table(*counts_table(found, with_published=False))


@named_table("attentions-growth")
def attentions_growth() -> str:
    """Exponents of N by which their costs grow."""
    found = _found("attentions") or _found("attentions_counts")
    return MISSING if found is None else table(*growth_table(found))


@named_table("attentions-speed")
def attentions_speed() -> str:
    """Their throughput and memory by image size."""
    return _speeds("attentions")
