"""Pictures of a benchmark: published accuracy over cost, and costs over the number of patches."""

from __future__ import annotations

import math
from collections.abc import Callable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from pacavit.bench.published import PUBLISHED_SIZE, published_networks
from pacavit.bench.results import Benchmark, Model
from pacavit.bench.tables import memory, pixels, rows_by_size, seconds, settings_of
from pacavit.utils.pictures import figure_bytes
from pacavit.utils.text import escape_formulas

__all__ = ["accuracy_png", "growth_png"]

_MARKERS = "osD^vP*X<>p"  # not as many as colors, so that no two lines share both
_Cost = Callable[[Model, int], float | None]


def accuracy_png(found: Benchmark) -> bytes | None:
    """Published accuracy over MACs, and over throughput in every setting; None without any."""
    models = [each for each in found.models if each.name in published_networks()]
    models = [each for each in models if PUBLISHED_SIZE in each.macs]
    if len(models) < 2:
        return None
    panels: dict[str, dict[str, float]] = {
        f"MACs (G), {PUBLISHED_SIZE} pixels": {
            each.name: each.macs[PUBLISHED_SIZE] / 1e9 for each in models
        }
    }
    for shape in settings_of(found):
        engine, precision, batch_size, size = shape
        if size == PUBLISHED_SIZE:
            panels[f"images/s, {engine} {precision}, batch {batch_size}"] = {
                row.name: row.images_per_second[1]
                for row in found.rows
                if (row.engine, row.precision, row.batch_size, row.size) == shape
                and row.images_per_second is not None
            }
    columns = min(2, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.2 * columns + 1.6, 4.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for ax, (label, costs) in zip(axes, panels.items(), strict=False):
        _draw_families(ax, models, costs)
        ax.set(xlabel=label, ylabel="published top-1 (%)", xscale="log")
        _plain_ticks(ax.xaxis, list(costs.values()))
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize="small")
    return figure_bytes(figure, dpi=120)


def _draw_families(ax: Axes, models: list[Model], costs: dict[str, float]) -> None:
    """A line for each family of networks, whose labels begin with the same word."""
    families: dict[str, list[tuple[float, float]]] = {}
    for model in models:
        entry = published_networks()[model.name]
        family, _, variant = entry.label.partition(",")
        points = families.setdefault(family.partition("-")[0] + (variant and f",{variant}"), [])
        if model.name in costs:
            points.append((costs[model.name], float(entry.top1)))
    colors = mpl.color_sequences["tab10"]
    for number, (family, points) in enumerate(families.items()):
        ax.plot(
            *zip(*sorted(points), strict=True),
            color=colors[number % len(colors)],
            marker=_MARKERS[number % len(_MARKERS)],
            linewidth=1.2,
            label=family,
        )
    ax.grid(alpha=0.3, which="both")


def growth_png(found: Benchmark) -> bytes | None:
    """MACs, time and memory over N on logarithmic axes; None for a single size."""
    sizes = sorted(found.settings["sizes"])
    if len(sizes) < 2:
        return None
    measured = {each.name: rows_by_size(found, each) for each in found.models}
    panels: dict[str, _Cost] = {
        "MACs (G)": lambda model, size: model.macs[size] / 1e9 if size in model.macs else None,
        "milliseconds per image": lambda model, size: _times(
            1000, seconds(measured[model.name].get(size))
        ),
        "peak memory (MiB)": lambda model, size: memory(measured[model.name].get(size)),
    }
    drawn = {
        label: cost
        for label, cost in panels.items()
        if any(cost(model, size) for model in found.models for size in sizes)
    }
    if not drawn:
        return None
    figure = Figure(figsize=(4.4 * len(drawn) + 2.6, 4.2), layout="constrained")
    colors = mpl.color_sequences["tab10"]
    axes = figure.subplots(1, len(drawn), squeeze=False)[0]
    for ax, (label, cost) in zip(axes, drawn.items(), strict=True):
        for number, model in enumerate(found.models):
            values = [(pixels(size), cost(model, size)) for size in sizes]
            known = [(n, value) for n, value in values if value]
            if known:
                ax.plot(
                    *zip(*known, strict=True),
                    color=colors[number % len(colors)],
                    marker=_MARKERS[number % len(_MARKERS)],
                    markersize=5,
                    linewidth=1.4,
                    label=escape_formulas(model.label),
                )
        ax.set(xlabel="N, patches of 4 x 4 pixels", ylabel=label, xscale="log", yscale="log")
        ax.set_xticks([pixels(size) for size in sizes], [f"{pixels(size):,}" for size in sizes])
        ax.tick_params(axis="x", rotation=45)
        ax.xaxis.set_minor_locator(NullLocator())
        costs = [cost(model, size) for model in found.models for size in sizes]
        _plain_ticks(ax.yaxis, [each for each in costs if each])
        ax.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize="small")
    return figure_bytes(figure, dpi=120)


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def _plain_ticks(axis: Axis, values: list[float]) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5, 10 and so on, written as numbers."""
    if not values:
        return
    low, high = min(values), max(values)
    steps = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 5, 7)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10**power for power in powers for step in steps]
    shown = [tick for tick in ticks if low / 1.5 <= tick <= high * 1.5]
    axis.set_ticks(shown, [f"{tick:,g}" for tick in shown])
    axis.set_minor_formatter(NullFormatter())
