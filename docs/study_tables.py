"""The tables on distillation and on seeds, from the recorded files in ``benchmarks/results``.

Studies that take hours are recorded when somebody has run them; until then a line stands in place
of the table.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from result_tables import (
    CLUSTERINGS,
    DEFAULT,
    FAITHFUL,
    RESULTS,
    SCORES,
    STABLE,
    named_table,
    record,
)

from pacavit.report.markdown import table

CLUSTER_MAPS = (DEFAULT, "cluster_gradient", "class_map", "attention_map")
_CLASSIC, _LEARNED = ("kmeans", "gmm", "hierarchical"), ("conv", "mlp")


def _recorded(name: str) -> bool:
    return (RESULTS / f"{name}.json").is_file()


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


@named_table("distillation")
def distillation() -> str:
    """The same network with and without a teacher, in equal time; then what that says."""
    if not _recorded("distillation"):
        return "Not measured yet."
    found = record("distillation")
    rows, tests = [], {}
    titles = {"plain": "labels only", "distilled": f"teacher, {found['targets']} targets"}
    for kind, title in titles.items():
        runs = [run for run in found["runs"] if run["kind"] == kind]
        if not runs:
            continue
        tests[kind] = [run["test"]["accuracy"] for run in runs]
        rows.append(
            [
                title,
                str(runs[0]["epochs"]),
                ", ".join(str(run["seed"]) for run in runs),
                _listed([run["val_accuracy_by_epoch"][-1] for run in runs]),
                _listed(tests[kind]),
                f"{statistics.mean(tests[kind]):.4f}",
                ", ".join(f"{run['training_minutes']:.1f}" for run in runs),
            ]
        )
    header = ["", "epochs", "seeds", "validation", "accuracy", "mean", "minutes"]
    return f"{table(header, rows)}\n\n{_lift(tests)}"


def _lift(tests: dict[str, list[float]]) -> str:
    """A sentence on the difference that the teacher makes."""
    pairs = list(zip(tests.get("plain", []), tests.get("distilled", []), strict=False))
    if not pairs:
        return "The runs are not complete."
    lifts = [distilled - plain for plain, distilled in pairs]
    same = all(lift > 0 for lift in lifts) or all(lift < 0 for lift in lifts)
    seeds = f"{len(lifts)} {'seed' if len(lifts) == 1 else 'seeds'}"
    verdict = "the same sign with every seed" if same else "different signs"
    return (
        f"The teacher changes the test accuracy by {statistics.mean(lifts):+.4f} on average of "
        f"{seeds} ({', '.join(f'{lift:+.4f}' for lift in lifts)}: {verdict}); so few seeds show "
        "no more than that."
    )


# Seeds


def _clusterings() -> dict[str, Any]:
    """The recorded clusterings, in the usual order."""
    found = record("seeds")["clusterings"]
    return {name: found[name] for name in CLUSTERINGS if name in found}


def _spread(value: Sequence[float | None], digits: int) -> str:
    """A mean with its standard deviation, if there are several seeds."""
    mean, deviation = value
    text = f"{mean:.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def _between(values: Sequence[float | None], digits: int) -> str:
    """The range of standard deviations."""
    known = [value for value in values if value is not None]
    low, high = (f"{value:.{digits}f}" for value in (min(known), max(known)))
    return low if low == high else f"{low} to {high}"


def _several() -> dict[str, Any]:
    """The recorded clusterings with several seeds; none before the study is recorded."""
    if not _recorded("seeds"):
        return {}
    return {name: one for name, one in _clusterings().items() if len(one["seeds"]) > 1}


@named_table("seeds-accuracy")
def seeds_accuracy() -> str:
    """Accuracy of each clustering over seeds, and how much the seed matters."""
    if not _recorded("seeds"):
        return "Not measured yet."
    names = ("accuracy", "precision_macro", "recall_macro", "f1_macro")
    rows = [
        [f"`{name}`", str(len(one["seeds"])), *(_spread(one[score], 4) for score in names)]
        for name, one in _clusterings().items()
    ]
    text = table(["", "seeds", *SCORES], rows)
    several = _several()
    if len(several) < 2:
        return text
    means = [one["accuracy"][0] for one in several.values()]
    deviations = _between([one["accuracy"][1] for one in several.values()], 4)
    return (
        f"{text}\n\nThe standard deviation of the accuracy between seeds is {deviations}; the "
        f"means of the clusterings differ by up to {max(means) - min(means):.4f}."
    )


@named_table("seeds-explanations")
def seeds_explanations() -> str:
    """Measures of the maps of clusters over seeds."""
    if not _recorded("seeds"):
        return "Not measured yet."
    columns = (*FAITHFUL, *STABLE)
    rows = [
        [f"`{method}`", f"`{name}`", str(len(one["seeds"])), *cells]
        for method in CLUSTER_MAPS
        for name, one in _clusterings().items()
        if (scores := one["explanations"].get(method)) is not None
        for cells in [[_spread(scores[column], 3) for column in columns]]
    ]
    text = table(["map", "clustering", "seeds", *columns], rows)
    number = record("seeds")["explained_images"]
    return f"{text}\n\nMeasured on the same {number:,} test images for all networks."


@named_table("seeds-claim")
def seeds_claim() -> str:
    """What may be concluded from networks of one seed each."""
    several = _several()
    if not several:
        return (
            "Intervals and tests are about other images. How much these numbers vary between seeds "
            "was not measured,\nso they are findings about these networks and not laws about "
            "clusterings."
        )
    deviations = {
        measure: _between([one["explanations"][DEFAULT][measure][1] for one in several.values()], 3)
        for measure in ("difference", "kept")
    }
    seeds = sorted({len(one["seeds"]) for one in several.values()})
    return (
        "Intervals and tests are about other images. Between seeds, `cluster_contributions` has a "
        f"standard deviation of {deviations['difference']} in the difference and of "
        f"{deviations['kept']} in keeping ({' or '.join(map(str, seeds))} seeds per clustering, "
        "[below](#between-seeds)); smaller differences between the networks of this page are no "
        f"findings about clusterings. {_groups(several)}".rstrip()
    )


def _groups(several: dict[str, Any]) -> str:
    """Whether the classic clusterings are ahead of the learned ones with every seed."""
    if not {*_CLASSIC, *_LEARNED} <= several.keys():
        return ""
    values = {
        name: [
            run["explanations"][DEFAULT]["difference"]
            for run in record("seeds")["runs"]
            if run["clustering"] == name
        ]
        for name in (*_CLASSIC, *_LEARNED)
    }
    lowest = min(min(values[name]) for name in _CLASSIC)
    highest = max(max(values[name]) for name in _LEARNED)
    ahead = "larger than" if lowest > highest else "not always larger than"
    return (
        "The difference of every network with `kmeans`, `gmm` and `hierarchical` was "
        f"{ahead} that of every network with `conv` and `mlp`."
    )
