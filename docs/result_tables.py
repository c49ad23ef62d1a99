"""The tables of the documents, each made from a recorded file in ``benchmarks/results``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pacavit.explain.evaluation.clusters import OWN
from pacavit.explain.evaluation.methods import MEASURES
from pacavit.report.markdown import table
from pacavit.report.publishing.published import Published, published
from pacavit.utils.statistics import Interval

__all__ = ["FAITHFUL", "TABLES", "evaluations", "found", "record"]

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


def _table(name: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    def add(make: Callable[[], str]) -> Callable[[], str]:
        TABLES[name] = make
        return make

    return add


@cache
def record(name: str) -> Any:
    """The content of a recorded JSON file."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


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
    values = (entry.accuracy, entry.precision, entry.recall, entry.f1)
    return [f"{value:.4f}" for value in values]


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


@_table("headline")
def headline() -> str:
    """The four rows of the README."""
    names = ("cifar10_nano_short-mlp", "cifar10_nano-mlp", "cifar10_nano-kmeans")
    rows = [_published()[name] for name in (*names, "cifar10_nano_long-mlp")]
    cells = [[_recipe(row), _minutes(row), f"{row.accuracy:.4f}"] for row in rows]
    return table(["recipe, clustering", "minutes", "accuracy"], cells)


@_table("recipes")
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


@_table("clusterings")
def clusterings() -> str:
    """All clusterings with the recipe ``cifar10_nano``."""
    rows = [(title, _published()[f"cifar10_nano-{name}"]) for title, name in _study()]
    cells = [[title, *_scores(row), _minutes(row)] for title, row in rows]
    return table(["", *SCORES, "minutes"], cells)


@_table("clusterings-seed-1")
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


@_table("kmeans-settings")
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


@_table("shared-clustering")
def shared_clustering() -> str:
    """Two blocks that share a clustering, or not."""
    scores, _ = _ablation("recluster_every")
    rows = [
        [title, *row[1:5], _difference("".join(row[5:6]))]
        for title, row in zip(("shared", "each block its own"), scores, strict=True)
    ]
    return table(["", *SCORES, "difference (95 %)"], rows)


@_table("swaps")
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


@_table("cluster-numbers")
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


def _pm(value: Sequence[float]) -> str:
    mean, low, high = value
    return f"{mean:.3f} ± {(high - low) / 2:.3f}"


def _change(value: Sequence[float]) -> str:
    return Interval(*value).as_difference(3).replace("no significant difference", "not significant")


def _title(method: str) -> str:
    return f"control `{method}`" if method in BASELINES else f"`{method}`"


@_table("methods")
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


@_table("stability")
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


@_table("contributions")
def contributions() -> str:
    """The default method with all clusterings; bold: not significantly worse than the best."""
    return _by_clustering(DEFAULT, bold=True)


@_table("gradients")
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


@_table("verdict-contributions")
def verdict_contributions() -> str:
    """The default method against Grad-CAM and controls."""
    return _verdicts(DEFAULT)


@_table("verdict-gradients")
def verdict_gradients() -> str:
    """The method with a single pass against Grad-CAM and controls."""
    return _verdicts(QUICK)


@_table("left-out-clusters")
def left_out_clusters() -> str:
    """What leaving out a cluster changes."""
    columns = ("used", "entropy", "drop", "top drop", "rank", "rank, contributions")
    rows = [
        [f"`{name}`, stage {stage['stage']}", *(_pm(stage["health"][each]) for each in columns)]
        for name, one in evaluations().items()
        for stage in one["clusters"]
    ]
    return table(["", *columns], rows)


@_table("shapes-methods")
def shapes_methods() -> str:
    """All methods on shapes."""
    columns = (*FAITHFUL, *STABLE, "pointing")
    rows = [
        [_title(name), *(_pm(found(shapes(), name)[column]) for column in columns)]
        for name in COMPARED
    ]
    return table(["", *columns], rows)


@_table("shapes-clusters")
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


@_table("which-map")
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


@_table("which-clustering")
def which_clustering() -> str:
    """The clusterings in accuracy, explanations and time."""
    steps = {row["clustering"]: row["ratio"][1] for row in record("clustering_step")["rows"]}
    rows = []
    for title, name in _study():
        accuracies = (f"cifar10_nano-{name}", f"cifar10_nano_short-{name}-seed_1")
        cells = [f"{_published()[each].accuracy:.4f}" for each in accuracies]
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


def _quartiles(values: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"


@_table("functions-speed")
def functions_speed() -> str:
    """Clusterings as functions, against scikit-learn."""
    rows = [
        [
            f"`{row['method']}`",
            str(row["points"]),
            f"{row['milliseconds'][1]:.2f}",
            f"{row['scikit_learn_milliseconds'][1]:.1f}",
            _quartiles(row["ratio"], 1),
        ]
        for row in record("clustering_speed")["rows"]
    ]
    header = ["", "points", "milliseconds", "scikit-learn", "times as fast (quartiles)"]
    return table(header, rows)


@_table("step-speed")
def step_speed() -> str:
    """A training step with each clustering."""
    rows = [
        [
            f"`{row['clustering']}`",
            f"{row['milliseconds'][1]:.0f}",
            _quartiles(row["ratio"], 2),
        ]
        for row in record("clustering_step")["rows"]
    ]
    return table(["clustering", "milliseconds", "of conv's (quartiles)"], rows)


@_table("map-speed")
def map_speed() -> str:
    """The time of a map."""
    names = ("attention_map", "class_map", "relevance", QUICK, DEFAULT)
    return table(["method", "times Grad-CAM"], [[f"`{name}`", _times(name)] for name in names])


@_table("trials")
def trials() -> str:
    """Killed runs and wrong inputs."""
    kills, inputs = record("kill_resume"), record("wrong_inputs")
    points = kills["points"]
    same = sum(point["identical"] for point in points)
    outcomes = inputs["outcomes"]
    rows = [
        [
            "`kill -9` at a random moment of training, then `--resume`",
            str(len(points)),
            f"{same} runs end with the same bits as an uninterrupted run; "
            f"{kills['half_written_checkpoints']} of the kills left a half-written checkpoint",
            _command(kills),
        ],
        [
            "wrong files and settings",
            str(inputs["inputs"]),
            f"{outcomes['one line']} end with one line and exit code 2, {outcomes['works']} work, "
            f"{len(inputs['failures'])} end in a traceback, hang or run out of memory",
            _command(inputs),
        ],
    ]
    return table(["trial", "number", "result", "repeat"], rows)


def _command(recorded: Any) -> str:
    return f"`{recorded['command']}`"


@_table("wrong-inputs")
def wrong_inputs() -> str:
    """Wrong inputs by group."""
    rows = [
        [name, *(str(number) for number in (sum(counts.values()), *_outcomes(counts)))]
        for name, counts in record("wrong_inputs")["groups"].items()
    ]
    return table(["group", "inputs", "one line", "works"], rows)


def _outcomes(counts: dict[str, int]) -> tuple[int, int]:
    return counts.get("one line", 0), counts.get("works", 0)
