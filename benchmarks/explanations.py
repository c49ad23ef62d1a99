"""Explanation benches of several models beside each other: one file of results, tables, pictures.

::

    pacavit explain-bench cifar10_nano_conv --skip 200 --data FOLDER --out bench/conv
    python benchmarks/explanations.py explanations bench/conv bench/kmeans ...

Reads the numbers in each folder. Writes ``benchmarks/results/NAME.json``, where other models stay
and the same are replaced, and of several models the picture ``docs/pictures/NAME.png``; prints the
tables of ``docs/results/explanations.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from pacavit.explain.evaluation.clusters import AGREEMENT, OWN
from pacavit.explain.evaluation.methods import MEASURES as MEANINGS
from pacavit.explain.evaluation.metrics import paired_difference
from pacavit.utils.files import read_tensors
from pacavit.utils.statistics import Interval

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
MEASURES = ("difference", "kept", "removed", "ROAD")
FAITHFUL = ("insertion", "deletion", "difference", "kept", "removed", "ROAD")
TITLES = ("insertion minus deletion", "right with 25 % kept", "right with 25 % removed", "ROAD")
METHODS = (
    "cluster_contributions",
    "cluster_gradient",
    "class_map",
    "attention_map",
    "relevance",
    "grad_cam",
)
CONTROLS = ("centre", "edges", "random")
JUDGED = ("cluster_contributions", "cluster_gradient", "class_map")
RIVALS = (*CONTROLS, "grad_cam")


def main() -> None:
    """Read the command line, gather, draw and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="of the results file and the picture")
    parser.add_argument("benches", type=Path, nargs="+", help="folders of pacavit explain-bench")
    arguments = parser.parse_args()
    path = RESULTS / f"{arguments.name}.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else []
    found = {bench["model"]: bench for bench in known}
    measured = {}
    for folder in arguments.benches:
        bench = json.loads((folder / "bench.json").read_text("utf-8"))
        values, _ = read_tensors(folder / "bench.safetensors")
        measured[bench["model"]] = values
        found[bench["model"]] = bench | {"pairs": paired(values)}
    for model in measured:
        found[model]["models"] = against_others(model, measured)
    benches = [found[model] for model in sorted(found)]
    path.write_text(json.dumps(benches, indent=1) + "\n", "utf-8")
    if len(benches) > 1:
        draw(benches, PICTURES / f"{arguments.name}.png")
    tables = [methods(bench) for bench in benches]
    tables += [models(benches, measure) for measure in MEASURES]
    tables += [verdicts(benches, method) for method in JUDGED]
    tables += [ranking(benches)] if len(measured) > 1 else []
    tables += [agreement(bench) for bench in benches if bench["clusters"][0]["agreement"]]
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


def paired(values: Mapping[str, Tensor]) -> dict[str, Any]:
    """By method, other and measure: how much higher the first is, image by image."""

    def differences(one: str, other: str, measures: Sequence[str]) -> dict[str, list[float]]:
        return {
            name: [
                round(each, 4)
                for each in paired_difference(values[f"{other}/{name}"], values[f"{one}/{name}"])
            ]
            for name in measures
        }

    found: dict[str, Any] = {
        one: {
            other: differences(f"{one}/predicted", f"{other}/predicted", FAITHFUL)
            for other in RIVALS
        }
        for one in JUDGED
        if f"{one}/predicted/{FAITHFUL[0]}" in values
    }
    for partition in dict.fromkeys(name.rpartition("/")[0] for name in values):
        stage, _, other = partition.partition("/")
        if stage.startswith("stage ") and other != OWN:
            found.setdefault(stage, {})[other] = differences(
                f"{stage}/{OWN}", partition, tuple(AGREEMENT)
            )
    return found


def against_others(model: str, measured: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """By other model and measure: how much higher a model's best method is, image by image."""
    names = [f"{JUDGED[0]}/predicted/{measure}" for measure in FAITHFUL]
    return {
        other: {
            measure: [
                round(each, 4) for each in paired_difference(values[name], measured[model][name])
            ]
            for name, measure in zip(names, FAITHFUL, strict=True)
        }
        for other, values in measured.items()
        if other != model and names[0] in values and names[0] in measured[model]
    }


def ranking(benches: Sequence[dict[str, Any]]) -> str:
    """Whose explanations are truest: the best method on all models, and above the centre's."""
    rows = []
    means = {
        bench["model"]: {name: score(bench, name) for name in FAITHFUL}
        for bench in benches
        if bench.get("models")
    }
    for bench in benches:
        model = bench["model"]
        if model not in means:
            continue
        cells = []
        for measure in FAITHFUL:
            better = MEANINGS[measure].better
            best = max(means, key=lambda name: better * means[name][measure][0])
            behind = bench["models"].get(best, {}).get(measure)
            mark = " (best)" if best == model else " (tie)" * Interval(*behind).tie
            cells.append(cell(means[model][measure]) + mark)
        above = bench["pairs"][JUDGED[0]]["centre"]["difference"]
        rows.append([model, *cells, Interval(*above).as_difference(3)])
    header = ["model", *FAITHFUL, "difference, above that of centre"]
    return f"{JUDGED[0]} of all models, image by image:\n\n" + table(header, rows)


def score(bench: dict[str, Any], measure: str) -> Sequence[float]:
    """Of the best method."""
    (row,) = (row for row in bench["methods"] if row["method"] == JUDGED[0])
    values: Sequence[float] = row["predicted"][measure]
    return values


def verdicts(benches: Sequence[dict[str, Any]], method: str) -> str:
    """Whether a method beats the controls and Grad-CAM, image by image, on all models."""
    rows = []
    for bench in benches:
        if method not in bench["pairs"]:
            continue
        cells = []
        for measure in FAITHFUL:
            differences = {name: bench["pairs"][method][name][measure] for name in RIVALS}
            better = MEANINGS[measure].better
            told = (compared(*each, better) for each in differences.items())
            cells.append(", ".join(filter(None, told)) or "better than all")
        rows.append([bench["model"], *cells])
    return f"{method} against controls and Grad-CAM:\n\n" + table(["model", *FAITHFUL], rows)


def compared(name: str, difference: Sequence[float], better: int) -> str:
    """What stands against a method that should have won; nothing if it did."""
    _, *ends = (better * value for value in difference)
    if min(ends) > 0:
        return ""
    return f"{name} better" if max(ends) < 0 else f"tie with {name}"


def agreement(bench: dict[str, Any]) -> str:
    """The clusters of a model against masks of objects, beside controls."""
    rows = []
    for stage in bench["clusters"]:
        pairs = bench["pairs"].get(f"stage {stage['stage']}", {})
        for partition, scores in stage["agreement"].items():
            cells = [cell(scores[name]) for name in AGREEMENT]
            told = [
                Interval(*pairs[partition][name]).as_difference(3) if partition in pairs else ""
                for name in ("FG-ARI", "mBO")
            ]
            rows.append([f"stage {stage['stage']}: {partition}", *cells, *told])
    header = ["partition", *AGREEMENT, "FG-ARI, the model minus it", "mBO, the model minus it"]
    return f"{bench['model']} against masks:\n\n" + table(header, rows)


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
    shown = (*JUDGED, "relevance", "grad_cam", "centre", "edges")
    marks = dict(zip(shown, "o*Ds^|x", strict=True))
    for axes, measure, title in zip(panels, MEASURES, TITLES, strict=True):
        for place, bench in enumerate(benches):
            for row in bench["methods"]:
                if row["method"] not in shown:
                    continue
                number = shown.index(row["method"])
                mean, low, high = row["predicted"][measure]
                height = place + (number - 3) * 0.11
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
