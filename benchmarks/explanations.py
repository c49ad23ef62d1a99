"""Explanation evaluations of several models side by side: one results file and a picture.

::

    pacavit explain-evaluate cifar10_nano_conv --skip 200 --data FOLDER --out faithful/conv
    python benchmarks/explanations.py explanations faithful/conv faithful/kmeans ...

Reads the numbers in each folder, updates ``benchmarks/results/NAME.json`` for their models, and
draws ``docs/pictures/NAME.png`` if there are several. Without a folder, it only draws the picture
again. Folders of earlier releases, which use other names, can be read too. ``make tables`` then
writes the tables of the documents.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from pacavit.explain.choice import NUMBERS
from pacavit.explain.evaluation.clusters import AGREEMENT, OWN
from pacavit.report.explanation.evaluation import VALUES
from pacavit.utils.files import read_tensors
from pacavit.utils.statistics import paired_difference

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
MEASURES = ("difference", "kept", "removed", "ROAD")
FAITHFUL = ("insertion", "deletion", "difference", "kept", "removed", "ROAD")
TITLES = ("insertion minus deletion", "top-1 with 25 % kept", "top-1 with 25 % removed", "ROAD")
CONTROLS = ("center", "edges", "random")
JUDGED = ("cluster_contributions", "cluster_gradient", "class_map")
RIVALS = (*CONTROLS, "grad_cam")
# Names in folders of earlier releases.
RENAMED = {
    "centre": "center",
    "randomised": "randomized",
    "k-means of colour and place": "k-means of color and position",
}
OLD_NUMBERS, OLD_VALUES = "bench.json", "bench.safetensors"


def main() -> None:
    """Read the command line, gather and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="of the results file and the picture")
    parser.add_argument("folders", type=Path, nargs="*", help="folders of pacavit explain-evaluate")
    arguments = parser.parse_args()
    path = RESULTS / f"{arguments.name}.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else []
    found = {evaluation["model"]: evaluation for evaluation in known}
    measured = {}
    for folder in arguments.folders:
        evaluation, values = read(folder)
        measured[evaluation["model"]] = values
        found[evaluation["model"]] = evaluation | {"pairs": paired(values)}
    for model in measured:
        found[model]["models"] = against_others(model, measured)
    evaluations = [found[model] for model in sorted(found)]
    path.write_text(json.dumps(evaluations, indent=1) + "\n", "utf-8")
    if len(evaluations) > 1:
        draw(evaluations, PICTURES / f"{arguments.name}.png")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The numbers of a folder, and the values of every image."""
    old = not (folder / NUMBERS).is_file()
    numbers = json.loads((folder / (OLD_NUMBERS if old else NUMBERS)).read_text("utf-8"))
    values, _ = read_tensors(folder / (OLD_VALUES if old else VALUES))
    return renamed(numbers), renamed(values)


def renamed(found: Any) -> Any:
    """Results with current names, in keys and values."""
    if isinstance(found, dict):
        return {_renamed_key(key): renamed(value) for key, value in found.items()}
    if isinstance(found, list):
        return [renamed(value) for value in found]
    return RENAMED.get(found, found) if isinstance(found, str) else found


def _renamed_key(key: str) -> str:
    """A key such as "centre/true/kept", "minus centre" or "stage 0/the model/NMI"."""
    prefix = "minus " if key.startswith("minus ") else ""
    words = key.removeprefix(prefix).split("/")
    return prefix + "/".join(RENAMED.get(word, word) for word in words)


def paired(values: Mapping[str, Tensor]) -> dict[str, Any]:
    """By method, other and measure: the mean paired difference over images."""

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
    """By other model and measure: the mean paired difference of the default method over images."""
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


def draw(evaluations: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel per measure, one row per model, one mark with its interval per method."""
    figure = Figure(figsize=(12, 1.6 + 0.5 * len(evaluations)), layout="constrained", dpi=130)
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    shown = (*JUDGED, "relevance", "grad_cam", "center", "edges")
    marks = dict(zip(shown, "o*Ds^|x", strict=True))
    for axes, measure, title in zip(panels, MEASURES, TITLES, strict=True):
        for position, evaluation in enumerate(evaluations):
            for row in evaluation["methods"]:
                if row["method"] not in shown:
                    continue
                number = shown.index(row["method"])
                mean, low, high = row["predicted"][measure]
                height = position + (number - 3) * 0.11
                color = "0.45" if row["method"] in CONTROLS else f"C{number}"
                axes.plot([low, high], [height, height], color=color, linewidth=1)
                axes.plot(
                    mean,
                    height,
                    marks[row["method"]],
                    color=color,
                    markersize=5,
                    label=row["method"].replace("_", " ") if not position else None,
                )
        better = "lower" if measure == "removed" else "higher"
        axes.set_title(f"{title}\n({better} is better)", fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(
        range(len(evaluations)),
        [evaluation["model"].removeprefix("cifar10_nano_") for evaluation in evaluations],
    )
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(shown), frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
