r"""What each trick of fast training gives in equal time, and the accuracy that minutes buy.

::

    python benchmarks/accuracy_per_minute.py tricks --data FOLDER --out runs/minutes
    python benchmarks/accuracy_per_minute.py frontier --data FOLDER --out runs/minutes
    python benchmarks/accuracy_per_minute.py test --data FOLDER --out runs/minutes

Three steps, in this order, that use the same folder:

- ``tricks`` trains the base recipe with several numbers of epochs, and each trick alone with the
  middle one. Its gain is the difference to the base at equal minutes, between whose points the
  accuracy is interpolated over the logarithm of time. Accuracies are those of validation images.
- ``frontier`` trains the base with all tricks that gained (or those of ``--tricks``) for several
  budgets, RECIPE:EPOCHS each.
- ``test`` measures the runs of the frontier on the test images, once, and draws the curve.

Every run is a folder in ``--out``; repeating a command resumes, and skips what is finished. The
result goes to ``benchmarks/results/accuracy_per_minute.json`` after each step. Minutes are CPU
minutes: on a machine that other programs use, they say how long the run would have taken alone. The
minutes by the clock are recorded beside them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import studies
from matplotlib.figure import Figure
from studies import Run

from pacavit import api
from pacavit.engine.run.environment import environment
from pacavit.engine.system import pick_device
from pacavit.engine.weights.load import load_model, weights_digest
from pacavit.errors import PacavitError
from pacavit.report.evaluation import read_evaluation
from pacavit.tasks.classification import TEST_TIME_VIEWS
from pacavit.utils.command import Command

RESULTS = Path(__file__).parent / "results" / "accuracy_per_minute.json"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "accuracy_per_minute.png"
BASE = "base"
RANDOM_FLIP = "random flip"
TRICKS: dict[str, tuple[str, ...]] = {
    RANDOM_FLIP: ("task.augment.flip=random",),  # the base alternates
    "whitening, fixed": ("train.whitening=1.0",),
    "whitening, fixed at first": ("train.whitening=0.5",),
    "freezing": ("train.freeze=[[0.5,1],[0.7,3]]",),
    "lookahead": ("train.lookahead=5",),
    "small images first": ("train.progressive=[[0.5,24]]",),
}
BUDGETS = (
    "cifar10_nano_short:4",
    "cifar10_nano_short:8",
    "cifar10_nano:12",
    "cifar10_nano:20",
    "cifar10_nano:36",
    "cifar10_nano:48",
)


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, train or measure, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("step", choices=("tricks", "frontier", "test"))
    parser.add_argument("--data", type=Path, help="folder with the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--recipe", default="cifar10_nano_short", help="base of the tricks")
    parser.add_argument("--epochs", type=int, nargs=3, default=[4, 6, 8], help="of the base")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--val-size", type=int, default=5000, help="validation images of tricks")
    parser.add_argument("--only", nargs="+", metavar="TRICK", help="some tricks of this step")
    parser.add_argument("--tricks", nargs="*", metavar="TRICK", help="of the frontier")
    parser.add_argument("--budgets", nargs="+", default=BUDGETS, metavar="RECIPE:EPOCHS")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    given = parser.parse_args(words)
    for name in [*(given.only or ()), *(given.tricks or ())]:
        if name not in TRICKS:
            parser.error(f"no trick {name!r}; known: {', '.join(TRICKS)}")
    try:
        {"tricks": tricks, "frontier": frontier, "test": test}[given.step](given)
    except PacavitError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"wrote {given.results}")  # noqa: T201


def tricks(given: argparse.Namespace) -> None:
    """Train the base and each trick, and compare them on validation images."""
    wanted = [name for name in TRICKS if given.only is None or name in given.only]
    middle = sorted(given.epochs)[1]
    plan = [(BASE, epochs) for epochs in sorted(given.epochs)] + [(each, middle) for each in wanted]
    runs = {
        (name, epochs, seed): _run(
            given,
            f"{name}-{epochs}-seed{seed}",
            (*TRICKS.get(name, ()), f"data.val_size={given.val_size}"),
            (given.recipe, epochs, seed),
        )
        for seed in given.seeds
        for name, epochs in plan
    }
    studies.train_all(list(runs.values()), given.jobs)
    old = studies.read(given.results)
    known = [row for row in old.get("tricks", ()) if row["setting"] not in (BASE, *wanted)]
    rows = known + [{"setting": key[0], **studies.trained(run)} for key, run in runs.items()]
    base = [runs[BASE, middle, seed] for seed in given.seeds]
    record = {
        **old,
        **_facts(given, base[0]),
        "recipe": given.recipe,
        "tricks": rows,
        "gains": gains(rows),
        "test_time": [_test_time(run, given.data) for run in base],
    }
    record["commands"] = {**old.get("commands", {}), "tricks": str(_command(given))}
    studies.write(given.results, record)


def gains(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over the seeds by trick: accuracy, CPU minutes, and gain over the base in equal time.

    Args:
        rows: of all runs, as ``studies.trained`` describes them, each with its ``setting``.
    """
    base = sorted({row["epochs"] for row in rows if row["setting"] == BASE})
    curve = [_mean(rows, BASE, epochs) for epochs in base]
    found = {}
    for name in dict.fromkeys(row["setting"] for row in rows if row["setting"] != BASE):
        accuracy, minutes = _mean(rows, name, None)
        logs = np.log([point[1] for point in curve])
        equal = float(np.interp(np.log(minutes), logs, [point[0] for point in curve]))
        found[name] = {
            "val_accuracy": round(accuracy, 4),
            "cpu_minutes": round(minutes, 2),
            "gain": round(accuracy - equal, 4),
        }
    return found


def _mean(rows: Sequence[Mapping[str, Any]], name: str, epochs: int | None) -> tuple[float, float]:
    """Mean accuracy and CPU minutes of a setting."""
    own = [row for row in rows if row["setting"] == name and epochs in (None, row["epochs"])]
    return (
        statistics.mean(row["val_accuracy"] for row in own),
        statistics.mean(row["cpu_minutes"] for row in own),
    )


def chosen(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The tricks that gained in equal time, at most one of each kind (the name before a comma)."""
    best: dict[str, str] = {}
    for name in sorted(found, key=lambda name: found[name]["gain"]):
        if found[name]["gain"] > 0:
            best[name.partition(",")[0]] = name
    return [name for name in TRICKS if name in best.values()]


def frontier(given: argparse.Namespace) -> None:
    """Train the chosen tricks together, with several budgets."""
    old = studies.read(given.results)
    if given.tricks is None and "gains" not in old:
        raise PacavitError(f"{given.results} has no tricks yet: run that step first, or --tricks")
    names = chosen(old["gains"]) if given.tricks is None else given.tricks
    changes = tuple(change for name in names for change in TRICKS[name])
    rows = []
    for budget in given.budgets:
        recipe, _, epochs = budget.partition(":")
        if not epochs.isdecimal():
            raise PacavitError(f"--budgets {budget!r}: expected RECIPE:EPOCHS")
        for seed in given.seeds:
            name = "+".join(["frontier", *names, Path(recipe).stem, epochs, f"seed{seed}"])
            run = _run(given, name, changes, (recipe, int(epochs), seed))
            studies.train_all([run])
            rows.append({"budget": budget, "run": run.folder.name, **studies.trained(run)})
            record = {**old, **_facts(given, run), "chosen": names, "frontier": rows}
            record["commands"] = {**old.get("commands", {}), "frontier": str(_command(given))}
            studies.write(given.results, record)


def test(given: argparse.Namespace) -> None:
    """Measure the runs of the frontier on the test images, once."""
    record = studies.read(given.results)
    if not record.get("frontier"):
        raise PacavitError(f"{given.results} has no frontier yet: run that step first")
    for row in record["frontier"]:
        folder = given.out / row["run"]
        entry = studies.evaluated(folder, given.data)
        row["test"] = {
            **{name: entry["test"][name] for name in ("accuracy", "f1_macro", "num_images")},
            "test_time": {
                name: _augmented(folder, given.data, "test", name) for name in TEST_TIME_VIEWS
            },
        }
        row |= {name: entry[name] for name in ("parameters", "macs")}
        record["commands"]["test"] = str(_command(given))
        studies.write(given.results, record)
    draw(record, given.picture)


def _run(
    given: argparse.Namespace,
    name: str,
    changes: tuple[str, ...],
    budget: tuple[str, int, int],
) -> Run:
    recipe, epochs, seed = budget
    folder = given.out / name.replace(", ", "-").replace(" ", "_")
    settings = (*given.set, *changes, f"train.epochs={epochs}", f"train.seed={seed}")
    return Run(folder, recipe, settings, given.data)


def _augmented(folder: Path, data: Path | None, split: str, view: str) -> float:
    """Accuracy of a run with test-time augmentation, which is measured once."""
    digest = weights_digest(load_model(folder))
    stored = read_evaluation(folder / f"evaluation-{split}-tta-{view}", digest)
    if stored is None:
        found = api.evaluate(folder, data=data, split=split, tta=view, progress=True)
        return round(found.scores["accuracy"], 4)
    return round(stored.evaluation.scores["accuracy"], 4)


def _test_time(run: Run, data: Path | None) -> dict[str, float]:
    """Validation accuracy of a run: plain, and with each test-time augmentation."""
    views = {name: _augmented(run.folder, data, "val", name) for name in TEST_TIME_VIEWS}
    return {"none": studies.trained(run)["val_accuracy"], **views}


def _facts(given: argparse.Namespace, run: Run) -> dict[str, Any]:
    """What all numbers depend on."""
    return {
        "data": load_model(run.folder).info.version,
        "seeds": given.seeds,
        "val_size_of_tricks": given.val_size,
        "changes": given.set,
        "environment": environment(pick_device("auto")),
    }


def _command(given: argparse.Namespace) -> Command:
    """The command that repeats a step, without folders of this machine."""
    words = ["--data", "FOLDER", "--out", "DIR", "--recipe", given.recipe]
    words += ["--seeds", *map(str, given.seeds)]
    if given.step == "frontier":
        words += [] if given.tricks is None else ["--tricks", *given.tricks]
        words += ["--budgets", *given.budgets]
    words += [word for change in given.set for word in ("--set", change)]
    return Command(("python", "benchmarks/accuracy_per_minute.py", given.step, *words))


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Test accuracy over CPU minutes of each budget, mean and range of the seeds."""
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=130)
    axes = figure.subplots()
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in record["frontier"]:
        groups.setdefault(row["budget"], []).append(row)
    for view, label in ((None, "plain"), ("flip", "mean of mirror images")):
        points = []
        for rows in groups.values():
            values = [
                row["test"]["accuracy"] if view is None else row["test"]["test_time"][view]
                for row in rows
            ]
            minutes = statistics.mean(row["cpu_minutes"] for row in rows)
            points.append((minutes, statistics.mean(values), min(values), max(values)))
        x, mean, low, high = np.array(sorted(points)).T
        axes.plot(x, mean, "o-" if view is None else "o:", label=label)
        axes.fill_between(x, low, high, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    ticks = [t for t in (1, 2, 5, 10, 20, 30, 60, 100, 200) if x[0] / 1.5 < t < 1.5 * x[-1]]
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    threads = record["frontier"][0]["threads"]
    axes.set(xlabel=f"minutes on {threads} CPU threads", ylabel="test accuracy")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
