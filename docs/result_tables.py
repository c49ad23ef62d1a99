"""The tables on accuracy and explanations, from the recorded files in ``benchmarks/results``."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pacavit.explain.evaluation.clusters import OWN
from pacavit.explain.evaluation.methods import MEASURES
from pacavit.report.markdown import table
from pacavit.report.publishing.published import Published, published
from pacavit.utils.statistics import Interval

__all__ = [
    "FAITHFUL",
    "TABLES",
    "budgets",
    "evaluations",
    "found",
    "is_recorded",
    "named_table",
    "record",
]

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
CLUSTERINGS = ("conv", "mlp", "kmeans", "gmm", "hierarchical", "dbscan")
CONTROLS = ("grid", "random")
FAITHFUL = ("insertion", "deletion", "difference", "kept", "removed", "ROAD")
"""The measures that alter images."""
STABLE = ("randomized", "sensitivity")
BASELINES = ("center", "edges", "random")
RIVALS = ("grad_cam", *BASELINES)
DEFAULT, QUICK = "cluster_contributions", "cluster_gradient"
COMPARED = (DEFAULT, QUICK, "relevance", "class_map", "attention_map", "grad_cam", *BASELINES)

TABLES: dict[str, Callable[[], str]] = {}
"""By name, a function that returns the Markdown of a table."""


def named_table(name: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Register a function that returns the Markdown of a table."""

    def add(make: Callable[[], str]) -> Callable[[], str]:
        TABLES[name] = make
        return make

    return add


@cache
def record(name: str) -> Any:
    """The content of a recorded JSON file."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def is_recorded(name: str) -> bool:
    """Whether somebody has run a study and recorded it."""
    return (RESULTS / f"{name}.json").is_file()


def evaluations() -> dict[str, Any]:
    """The evaluations of explanations on CIFAR-10, by clustering."""
    prefix = "cifar10_nano_"
    by_name = {one["model"].removeprefix(prefix): one for one in record("explanations")}
    return {name: by_name[name] for name in CLUSTERINGS}


def shapes() -> Any:
    """The evaluation of explanations on shapes."""
    (only,) = record("explanations_shapes")
    return only


def found(evaluation: Any, method: str) -> dict[str, Sequence[float]]:
    """The scores of a method for the top-1 class: mean, low and high by measure."""
    (row,) = (row for row in evaluation["methods"] if row["method"] == method)
    scores: dict[str, Sequence[float]] = row["predicted"]
    return scores


# Accuracy


@cache
def _published() -> dict[str, Published]:
    return {entry.name: entry for entry in published()}


def _scores(entry: Published) -> list[str]:
    return [f"{value:.4f}" for value in entry.scores.values()]


def _minutes(entry: Published) -> str:
    return f"{entry.minutes:.1f}"


SCORES = ("accuracy", "precision", "recall", "F1")
RECIPES = (
    "cifar10_nano_short-conv",
    "cifar10_nano_short-mlp",
    *(f"cifar10_nano-{name}" for name in CLUSTERINGS),
    "cifar10_nano_long-mlp",
)


def _recipe(entry: Published) -> str:
    return f"`{entry.recipe}`, {entry.name.removeprefix(entry.recipe + '-')}"


@named_table("headline")
def headline() -> str:
    """The rows of the README: the frontier of accuracy over minutes, if it was measured."""
    found = budgets()
    if found:
        cells = [
            [
                f"`{budget.replace(':', '`, ')} epochs",
                f"{statistics.mean(row['cpu_minutes'] for row in rows):.0f}",
                f"{statistics.mean(row['test']['accuracy'] for row in rows):.4f}",
            ]
            for budget, rows in found.items()
        ]
        number = len(record("accuracy_per_minute")["seeds"])
        return f"{table(['recipe', 'minutes', 'accuracy'], cells)}\n\nMeans of {number} seeds."
    names = ("cifar10_nano_short-mlp", "cifar10_nano-mlp", "cifar10_nano-kmeans")
    rows = [_published()[name] for name in (*names, "cifar10_nano_long-mlp")]
    cells = [[_recipe(row), _minutes(row), f"{row.scores['accuracy']:.4f}"] for row in rows]
    text = table(["recipe, clustering", "minutes", "accuracy"], cells)
    return f"{text}\n\nOne run each, seed 0; how much other seeds differ is not in these numbers."


def budgets() -> dict[str, list[Any]]:
    """The runs of the frontier of accuracy over minutes by RECIPE:EPOCHS; empty before its test."""
    rows = (
        record("accuracy_per_minute").get("frontier", [])
        if is_recorded("accuracy_per_minute")
        else []
    )
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row["budget"], []).append(row)
    return found if all("test" in row for row in rows) else {}


@named_table("recipes")
def recipes() -> str:
    """Recipes with learned clusterings, and the packaged weights."""
    rows = [_published()[name] for name in RECIPES]
    cells = [[_recipe(row), _minutes(row), *_scores(row)] for row in rows]
    return table(["recipe, clustering", "minutes", *SCORES], cells)


def _study() -> Iterable[tuple[str, str]]:
    """The title and the name of each row of the studies of clusterings."""
    yield from ((f"`{name}`", name) for name in CLUSTERINGS)
    yield from ((f"control `{name}`", name) for name in CONTROLS)
    yield "full attention, no clusters", "attention_full"


@named_table("clusterings")
def clusterings() -> str:
    """All clusterings with the recipe ``cifar10_nano``."""
    rows = [(title, _published()[f"cifar10_nano-{name}"]) for title, name in _study()]
    cells = [[title, *_scores(row), _minutes(row)] for title, row in rows]
    return table(["", *SCORES, "minutes"], cells)


@named_table("clusterings-seed-1")
def clusterings_of_seed_1() -> str:
    """All clusterings with the short recipe and another seed."""
    rows = [(title, _published()[f"cifar10_nano_short-{name}-seed_1"]) for title, name in _study()]
    return table(["", *SCORES], [[title, *_scores(row)] for title, row in rows])


def _ablation(field: str) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of scores and of sizes that ``ablations.md`` has of a field."""
    blocks = (RESULTS / "ablations.md").read_text("utf-8").split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith(f"| {field} |")]
    scores, sizes = (
        [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines[2:]]
        for lines in tables
    )
    return scores, sizes


def _difference(text: str) -> str:
    return text.replace("a tie", "not significant")


@named_table("kmeans-settings")
def kmeans_settings() -> str:
    """k-means with one setting changed at a time."""
    titles = (
        "M = 16, soft, 3 iterations",
        "M = 4",
        "M = 49",
        "hard",
        "1 iteration",
        "10 iterations",
    )
    scores, sizes = _ablation("num_clusters")
    rows = [
        [title, *row[1:5], _difference("".join(row[5:6])), f"{float(size[6]):.0f}", size[7]]
        for title, row, size in zip(titles, scores, sizes, strict=True)
    ]
    return table(["", *SCORES, "difference (95 %)", "used clusters", "entropy"], rows)


@named_table("shared-clustering")
def shared_clustering() -> str:
    """Two blocks that share a clustering, or not."""
    scores, _ = _ablation("recluster_every")
    rows = [
        [title, *row[1:5], _difference("".join(row[5:6]))]
        for title, row in zip(("shared", "each block its own"), scores, strict=True)
    ]
    return table(["", *SCORES, "difference (95 %)"], rows)


@named_table("swaps")
def swaps() -> str:
    """Networks with another clustering than they were trained with."""
    measured = ("kmeans", "gmm", "hierarchical", "dbscan", *CONTROLS)
    rows = []
    for row in record("swap_matrix")["models"]:
        own = row["clustering"]
        values = {**row["swapped"], own: row["accuracy"]}
        cells = [f"{values[name]:.4f}" for name in measured]
        rows.append([f"`{own}`", f"{row['accuracy']:.4f}", *cells, f"{row['single']:.4f}"])
    header = ["trained with", "as trained", *(f"`{name}`" for name in measured), "one cluster"]
    return table(header, rows)


@named_table("cluster-numbers")
def cluster_numbers() -> str:
    """Networks with another number of clusters than they were trained with."""
    models = [row for row in record("swap_matrix")["models"] if row["numbers"]]
    numbers = list(models[0]["numbers"])
    rows = [
        [f"`{row['clustering']}`", *(f"{row['numbers'][number]:.4f}" for number in numbers)]
        for row in models
    ]
    return table(["trained with 16", *(f"M = {number}" for number in numbers)], rows)


# Explanations


@named_table("street")
def street() -> str:
    """Pretrained weights against random ones, on photographs cut out of street scenes."""
    cells = []
    for title, run in zip(("random", "ImageNet"), record("street"), strict=True):
        rate = re.search(r"train\.lr=(\S+)", run["commands"][0])
        assert rate is not None
        test = run["test"]
        cells.append(
            [
                title,
                rate[1],
                f"{run['val_accuracy_by_epoch'][-1]:.4f}",
                *(f"{test[name]:.4f}" for name in ("accuracy", "f1_macro")),
                f"{run['training_minutes']:.1f}",
            ]
        )
    header = ["initial weights", "learning rate", "validation", "accuracy", "F1 (macro)", "minutes"]
    return table(header, cells)


def _pm(value: Sequence[float]) -> str:
    mean, low, high = value
    return f"{mean:.3f} ± {(high - low) / 2:.3f}"


def _change(value: Sequence[float]) -> str:
    return Interval(*value).as_difference(3).replace("no significant difference", "not significant")


def _title(method: str) -> str:
    return f"control `{method}`" if method in BASELINES else f"`{method}`"


@named_table("methods")
def methods() -> str:
    """All methods on the network with k-means."""
    evaluation = evaluations()["kmeans"]
    names = [row["method"] for row in evaluation["methods"]]
    first = [name for name in (DEFAULT, QUICK) if name in names]
    middle = [name for name in names if name not in (*first, *BASELINES)]
    columns = (*FAITHFUL, *STABLE)
    rows = [
        [_title(name), *(_pm(found(evaluation, name)[column]) for column in columns)]
        for name in (*first, *middle, *BASELINES)
    ]
    return table(["", *columns], rows)


@named_table("stability")
def stability() -> str:
    """Dependence on the weights and stability under noise, with all clusterings."""
    compared = (DEFAULT, "relevance", "grad_cam")
    columns = [(measure, method) for measure in STABLE for method in compared]
    rows = [
        [f"`{name}`", *(_pm(found(one, method)[measure]) for measure, method in columns)]
        for name, one in evaluations().items()
    ]
    return table(["", *(f"{measure}: `{method}`" for measure, method in columns)], rows)


def _by_clustering(method: str, *, bold: bool) -> str:
    rows = []
    for name, one in evaluations().items():
        cells = []
        for measure in FAITHFUL:
            text = f"{found(one, method)[measure][0]:.3f}"
            cells.append(f"**{text}**" if bold and not _behind(name, method, measure) else text)
        above = one["pairs"][method]["center"]["difference"]
        rows.append((found(one, method)["difference"][0], [f"`{name}`", *cells, _change(above)]))
    rows.sort(key=lambda row: -row[0])
    header = ["", *FAITHFUL, "difference, minus that of `center`"]
    return table(header, [cells for _, cells in rows])


def _behind(name: str, method: str, measure: str) -> bool:
    """Whether a clustering is significantly worse than the best one, paired by image."""
    means = {each: found(one, method)[measure][0] for each, one in evaluations().items()}
    best = max(means, key=lambda each: MEASURES[measure].better * means[each])
    if name == best:
        return False
    behind = evaluations()[name]["models"][f"cifar10_nano_{best}"][measure]
    return Interval(*behind).significant


@named_table("contributions")
def contributions() -> str:
    """The default method with all clusterings; bold: not significantly worse than the best."""
    return _by_clustering(DEFAULT, bold=True)


@named_table("gradients")
def gradients() -> str:
    """The method with a single pass, with all clusterings."""
    return _by_clustering(QUICK, bold=False)


def _verdicts(method: str) -> str:
    """Which rivals a method is not significantly better than, paired by image."""
    rows = []
    for name, one in evaluations().items():
        cells = []
        for measure in FAITHFUL:
            pairs = {rival: one["pairs"][method][rival][measure] for rival in RIVALS}
            cells.append(", ".join(filter(None, (_loss(*pair, measure) for pair in pairs.items()))))
        rows.append([f"`{name}`", *(cell or "better than all" for cell in cells)])
    return table(["", *FAITHFUL], rows)


def _loss(rival: str, difference: Sequence[float], measure: str) -> str:
    low, high = sorted(MEASURES[measure].better * value for value in difference[1:])
    if low > 0:
        return ""
    return f"`{rival}` better" if high < 0 else f"`{rival}` n.s."


@named_table("verdict-contributions")
def verdict_contributions() -> str:
    """The default method against Grad-CAM and controls."""
    return _verdicts(DEFAULT)


@named_table("verdict-gradients")
def verdict_gradients() -> str:
    """The method with a single pass against Grad-CAM and controls."""
    return _verdicts(QUICK)


@named_table("left-out-clusters")
def left_out_clusters() -> str:
    """What leaving out a cluster changes."""
    columns = ("used", "entropy", "drop", "top drop", "rank", "rank, contributions")
    rows = [
        [f"`{name}`, stage {stage['stage']}", *(_pm(stage["health"][each]) for each in columns)]
        for name, one in evaluations().items()
        for stage in one["clusters"]
    ]
    return table(["", *columns], rows)


@named_table("shapes-methods")
def shapes_methods() -> str:
    """All methods on shapes."""
    columns = (*FAITHFUL, *STABLE, "pointing")
    rows = [
        [_title(name), *(_pm(found(shapes(), name)[column]) for column in columns)]
        for name in COMPARED
    ]
    return table(["", *columns], rows)


@named_table("shapes-clusters")
def shapes_clusters() -> str:
    """Clusters against the masks of shapes."""
    titles = {
        OWN: "clusters of the model",
        "k-means of color and position": "k-means of color and position",
        "grid partition": "cells of a grid",
        "random partition": "random",
    }
    rows = []
    for stage in shapes()["clusters"]:
        for name, title in titles.items():
            cells = []
            for measure in ("FG-ARI", "mBO"):
                pair = shapes()["pairs"][f"stage {stage['stage']}"].get(name)
                change = _change(pair[measure]) if pair else ""
                cells += [_pm(stage["agreement"][name][measure]), change]
            rows.append([f"stage {stage['stage']}: {title}" if name == OWN else title, *cells])
    return table(["", "FG-ARI", "the model minus it", "mBO", "the model minus it"], rows)


# Both studies, at the beginning of the pages on clusterings and explanations


def _range(values: Sequence[float], digits: int) -> str:
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _spread(method: str, measure: str) -> str:
    """The range of a measure over the networks for CIFAR-10."""
    return _range([found(one, method)[measure][0] for one in evaluations().values()], 3)


@named_table("which-map")
def which_map() -> str:
    """The maps in both studies."""
    rows = []
    for name in (*COMPARED[:6], "center"):
        on_shapes = found(shapes(), name)
        rows.append(
            [
                _title(name),
                *(_spread(name, measure) for measure in ("difference", "kept")),
                *(f"{on_shapes[each][0]:.3f}" for each in ("difference", "kept", "pointing")),
                _times(name),
            ]
        )
    header = [
        "map",
        "CIFAR-10:<br>difference",
        "<br>kept",
        "shapes:<br>difference",
        "<br>kept",
        "<br>pointing",
        "time",
    ]
    return table(header, rows)


def _times(method: str) -> str:
    """The range over networks of the time of a map relative to Grad-CAM."""
    rows = record("explanation_speed")["rows"]
    values = [row["ratio"][1] for row in rows if row["method"] == method]
    return _range(values, 1 if min(values) > 2 else 2) if values else "-"


@named_table("which-clustering")
def which_clustering() -> str:
    """The clusterings in accuracy, explanations and time."""
    steps = {row["clustering"]: row["ratio"][1] for row in record("clustering_step")["rows"]}
    rows = []
    for title, name in _study():
        accuracies = (f"cifar10_nano-{name}", f"cifar10_nano_short-{name}-seed_1")
        cells = [f"{_published()[each].scores['accuracy']:.4f}" for each in accuracies]
        if name in CLUSTERINGS:
            one = evaluations()[name]
            above = one["pairs"][DEFAULT]["center"]["difference"][0]
            cells += [f"{above:+.3f}", f"{found(one, DEFAULT)['kept'][0]:.3f}"]
        else:
            cells += ["-"] * 2
        rows.append([title, *cells, f"{steps[name]:.2f}" if name in steps else "-"])
    header = [
        "clustering",
        "accuracy,<br>16 epochs",
        "accuracy,<br>6 epochs",
        "map:<br>difference",
        "map:<br>kept",
        "time",
    ]
    return table(header, rows)


# Speed and reliability


@named_table("map-speed")
def map_speed() -> str:
    """The time of a map."""
    names = ("attention_map", "class_map", "relevance", QUICK, DEFAULT)
    return table(["method", "times Grad-CAM"], [[f"`{name}`", _times(name)] for name in names])


@named_table("large32")
def large32() -> str:
    """The training on a GPU, by ``benchmarks/gpu.sh``, or that it has not run."""
    training = record("gpu")["training"] if (RESULTS / "gpu.json").is_file() else None
    if training is None or training["test_accuracy"] is None:
        return (
            "The model `pacavit_large32` needs a GPU and has not been trained;"
            " `sh benchmarks/gpu.sh` trains it."
        )
    row = [
        "`cifar10_large32`",
        record("gpu")["device"],
        str(training["epochs"]),
        f"{training['minutes']:.1f}",
        training["data"],
        f"{training['test_accuracy']:.4f}",
    ]
    return table(["recipe", "device", "epochs", "minutes", "data", "test accuracy"], [row])
