"""The tables of a benchmark: header and rows of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from pacavit.bench.published import PUBLISHED_SIZE, differs, published_networks
from pacavit.bench.results import Benchmark, Model, Row

__all__ = [
    "Shape",
    "Table",
    "counts_table",
    "growth_table",
    "pixels",
    "settings_of",
    "speed_table",
]

Table = tuple[list[str], list[list[str]]]
Shape = tuple[str, str, int, int]
"""Engine, precision, batch size, image size."""


def settings_of(found: Benchmark) -> list[Shape]:
    """The settings that were measured, in the order of the first model's rows."""
    return list(dict.fromkeys(row.shape for row in found.rows))


def pixels(size: int) -> int:
    """N of a square image: patches of 4 x 4 pixels, the first stage of a pyramid."""
    return (size // 4) ** 2


def counts_table(found: Benchmark, *, with_published: bool = True) -> Table:
    """Parameters and multiply-accumulates.

    Args:
        found: the results.
        with_published: whether published figures stand beside them, in columns of their own, if
            some of the models and 224 pixels have any; names are links to where they stand.
    """
    sizes: list[int] = found.settings["sizes"]
    published = published_networks() if with_published else {}
    known = PUBLISHED_SIZE in sizes and any(model.name in published for model in found.models)
    header = ["", "parameters (M)", *(["published (M)"] if known else [])]
    for size in sizes:
        header.append(f"MACs (G), {size} pixels")
        if known and size == PUBLISHED_SIZE:
            header.append("published (G)")
    rows = []
    for model in found.models:
        entry = published.get(model.name) if known else None
        counted = model.parameters.get(PUBLISHED_SIZE if known else sizes[0])
        label = f"[{model.label}]({entry.source})" if entry else model.label
        cells = [label, "" if counted is None else f"{counted / 1e6:.2f}"]
        cells += [entry.parameters if entry else ""] if known else []
        for size in sizes:
            cells.append(f"{model.macs[size] / 1e9:.2f}" if size in model.macs else "")
            if known and size == PUBLISHED_SIZE:
                cells.append(entry.macs if entry else "")
        if known:
            cells.append(entry.top1 if entry else "")
        rows.append([*cells, model.error or _remark(model)])
    if known:
        header.append("published top-1 (%)")
    return _without_empty([*header, "remark"], rows)


def speed_table(found: Benchmark, shapes: Sequence[Shape]) -> Table:
    """Throughput, ratio to the first model and memory; failures with their reasons.

    Args:
        found: with rows.
        shapes: the settings to list.
    """
    first = found.models[0].label
    header = ["", "engine", "batch", "pixels", "images/s (quartiles)", f"times {first}"]
    rows = []
    for row in found.rows:
        if row.shape not in shapes:
            continue
        peak = "" if row.peak_mebibytes is None else f"{row.peak_mebibytes:,.0f}"
        rows.append(
            [
                found.model(row.name).label,
                f"{row.engine} {row.precision}",
                str(row.batch_size),
                str(row.size),
                _quartiles(row.images_per_second),
                "" if row.ratio is None else f"{row.ratio[1]:.2f}",
                peak,
                row.error or "",
            ]
        )
    return _without_empty([*header, "peak memory (MiB)", "remark"], rows)


def growth_table(found: Benchmark) -> Table:
    """How costs grow between the two largest sizes: the exponents of N.

    Time and memory are those of the first setting of each model.
    """
    small, large = sorted(found.settings["sizes"])[-2:]
    step = math.log(pixels(large) / pixels(small))

    def exponent(value: Callable[[int], float | None]) -> str:
        ends = value(small), value(large)
        if None in ends or 0 in ends:
            return ""
        return f"{math.log(float(ends[1] or 0) / float(ends[0] or 0)) / step:.2f}"

    rows = []
    for model in found.models:
        by_size = rows_by_size(found, model)
        rows.append(
            [
                model.label,
                exponent(model.macs.get),
                exponent(lambda size, by_size=by_size: seconds(by_size.get(size))),  # type: ignore[misc]
                exponent(lambda size, by_size=by_size: memory(by_size.get(size))),  # type: ignore[misc]
            ]
        )
    return _without_empty(["", "MACs", "time", "peak memory"], rows)


def rows_by_size(found: Benchmark, model: Model) -> dict[int, Row]:
    """The rows of a model in the first engine, precision and batch size, by image size."""
    if not found.rows:
        return {}
    first = settings_of(found)[0][:3]
    return {
        row.size: row for row in found.rows if row.name == model.name and row.shape[:3] == first
    }


def seconds(row: Row | None) -> float | None:
    """The median time of an image."""
    return None if row is None or row.images_per_second is None else 1 / row.images_per_second[1]


def memory(row: Row | None) -> float | None:
    """The peak memory in MiB."""
    return None if row is None else row.peak_mebibytes


def _remark(model: Model) -> str:
    """What differs from the published figures, and why."""
    entry = published_networks().get(model.name)
    if entry is None or PUBLISHED_SIZE not in model.macs:
        return ""
    pairs: Iterable[tuple[str, str, float]] = (
        ("parameters", entry.parameters, model.parameters[PUBLISHED_SIZE] / 1e6),
        ("macs", entry.macs, model.macs[PUBLISHED_SIZE] / 1e9),
    )
    words = {"parameters": "parameters", "macs": "MACs"}
    return "; ".join(
        f"{words[kind]} differ: {entry.reasons.get(kind, 'reason unknown')}"
        for kind, text, counted in pairs
        if differs(text, counted)
    )


def _quartiles(values: Sequence[float] | None) -> str:
    if values is None:
        return "failed"
    digits = 0 if values[1] >= 100 else 1 if values[1] >= 10 else 2
    low, middle, high = (f"{value:,.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"


def _without_empty(header: list[str], rows: list[list[str]]) -> Table:
    """A table without the columns that no row fills."""
    kept = [number for number in range(len(header)) if any(row[number] for row in rows)]
    return [header[number] for number in kept], [[row[number] for number in kept] for row in rows]
