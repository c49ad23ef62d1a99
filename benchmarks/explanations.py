"""Explanation benches of several models beside each other: one file of results, tables, pictures.

::

    pacavit explain-bench cifar10_nano_conv --skip 200 --data FOLDER --out bench/conv
    python benchmarks/explanations.py bench/conv bench/kmeans ...

Reads the ``bench.json`` of each folder. Writes ``benchmarks/results/explanations.json`` and
``docs/explanations.png``, and prints the tables of ``docs/explanations.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pacavit.explain.bench import MEASURES as MEANINGS

RESULTS = Path(__file__).parent / "results" / "explanations.json"
PICTURE = Path(__file__).parents[1] / "docs" / "explanations.png"
MEASURES = ("difference", "kept", "removed", "ROAD")
FAITHFUL = ("insertion", "deletion", "difference", "kept", "removed", "ROAD")
TITLES = ("insertion minus deletion", "right with 25 % kept", "right with 25 % removed", "ROAD")
METHODS = ("cluster_contributions", "class_map", "attention_map", "relevance", "grad_cam")
CONTROLS = ("centre", "edges", "random")


def main() -> None:
    """Read the command line, gather, draw and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("benches", type=Path, nargs="+", help="folders of pacavit explain-bench")
    arguments = parser.parse_args()
    benches = [
        json.loads((folder / "bench.json").read_text("utf-8")) for folder in arguments.benches
    ]
    RESULTS.write_text(json.dumps(benches, indent=1) + "\n", "utf-8")
    draw(benches, PICTURE)
    tables = [methods(bench) for bench in benches]
    tables += [models(benches, measure) for measure in MEASURES]
    tables += [verdicts(benches)]
    print("\n\n".join([*tables, times(benches), clusters(benches)]))  # noqa: T201


def methods(bench: dict[str, Any]) -> str:
    """All methods on one model."""
    names = list(bench["methods"][0]["predicted"])
    rows = [
        [row["method"], *(cell(row["predicted"][name]) for name in names), row["milliseconds"]]
        for row in bench["methods"]
    ]
    return f"{bench['model']}:\n\n" + table(["method", *names, "ms"], rows)


def models(benches: Sequence[dict[str, Any]], measure: str) -> str:
    """Some methods on all models."""
    rows = []
    for bench in benches:
        found = {row["method"]: row["predicted"][measure] for row in bench["methods"]}
        cells = [cell(found[name]) if name in found else "" for name in (*METHODS, *CONTROLS)]
        rows.append([bench["model"], *cells])
    return f"{measure}:\n\n" + table(["model", *METHODS, *CONTROLS], rows)


def verdicts(benches: Sequence[dict[str, Any]]) -> str:
    """Whether the first method beats the controls and Grad-CAM, image by image, on all models."""
    rows = []
    for bench in benches:
        first = bench["methods"][0]["method"]
        others = {row["method"]: row.get(f"minus {first}", {}) for row in bench["methods"]}
        cells = [
            ", ".join(
                verdict
                for name in (*CONTROLS, "grad_cam")
                if (verdict := compared(name, others[name][measure], MEANINGS[measure].better))
            )
            for measure in FAITHFUL
        ]
        rows.append([bench["model"], *(cell or "better than all" for cell in cells)])
    return "the first method against controls and Grad-CAM:\n\n" + table(["model", *FAITHFUL], rows)


def compared(name: str, difference: Sequence[float], better: int) -> str:
    """What stands against a method that should have been beaten; nothing if it was."""
    _, low, high = (better * value for value in difference)
    if max(low, high) < 0:
        return ""
    return f"{name} better" if min(low, high) > 0 else f"tie with {name}"


def times(benches: Sequence[dict[str, Any]]) -> str:
    """Milliseconds an image of each method, as shares of Grad-CAM's."""
    rows = []
    for bench in benches:
        found = {row["method"]: row["milliseconds"] for row in bench["methods"]}
        shares = {name: f"{each / found['grad_cam']:.2f}" for name, each in found.items()}
        cells = [shares.get(name, "") for name in METHODS]
        rows.append([bench["model"], *cells])
    return "times as long as Grad-CAM:\n\n" + table(["model", *METHODS], rows)


def clusters(benches: Sequence[dict[str, Any]]) -> str:
    """What the clusters of all models are worth."""
    rows, names = [], []
    for bench in benches:
        for stage in bench["clusters"]:
            names = list(stage["health"])
            cells = [cell(stage["health"][name]) for name in names]
            rows.append([f"{bench['model']}, stage {stage['stage']}", *cells])
    return "clusters:\n\n" + table(["clusters", *names], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def cell(value: Sequence[float]) -> str:
    """Mean and half of the interval."""
    mean, low, high = value
    return f"{mean:.3f} ± {(high - low) / 2:.3f}"


def draw(benches: Sequence[dict[str, Any]], path: Path) -> None:
    """A panel a measure, a row a model, a mark a method with its interval."""
    figure = Figure(figsize=(12, 1.6 + 0.5 * len(benches)), layout="constrained", dpi=130)
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    shown = ("cluster_contributions", "class_map", "relevance", "grad_cam", "centre", "edges")
    marks = dict(zip(shown, "oDs^|x", strict=True))
    for axes, measure, title in zip(panels, MEASURES, TITLES, strict=True):
        for place, bench in enumerate(benches):
            for row in bench["methods"]:
                if row["method"] not in shown:
                    continue
                number = shown.index(row["method"])
                mean, low, high = row["predicted"][measure]
                height = place + (number - 2.5) * 0.11
                colour = "0.45" if row["method"] in CONTROLS else f"C{number}"
                axes.plot([low, high], [height, height], color=colour, linewidth=1)
                axes.plot(
                    mean,
                    height,
                    marks[row["method"]],
                    color=colour,
                    markersize=5,
                    label=row["method"].replace("_", " ") if not place else None,
                )
        better = "lower" if measure == "removed" else "higher"
        axes.set_title(f"{title}\n({better} is better)", fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(
        range(len(benches)), [bench["model"].removeprefix("cifar10_nano_") for bench in benches]
    )
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(shown), frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
