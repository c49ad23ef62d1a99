r"""How much accuracy and explanations vary between seeds.

::

    pacavit train cifar10_nano_short --set model.clustering=kmeans --set train.seed=0 \
        --data FOLDER --out runs/seeds/kmeans-seed0
    ...
    python benchmarks/seeds.py runs/seeds --data FOLDER

Takes a folder of runs of one recipe that differ in clustering and seed. Each finished run is
measured on the test images once, and its maps on the same 250 of them, with the measures of
``pacavit explain-evaluate``: about three minutes a run on one core. Results are kept in the run, in
``evaluation-test`` and ``explain-evaluate``; repeating the command resumes, and adds runs that were
not finished before. Means and standard deviations over the seeds are written to
``benchmarks/results/seeds.json`` after each run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacavit import api, recipes
from pacavit.engine.run.environment import environment
from pacavit.engine.run.log import read_metrics
from pacavit.engine.system import pick_device
from pacavit.engine.weights.format import WEIGHTS
from pacavit.engine.weights.load import load_model, weights_digest
from pacavit.errors import PacavitError
from pacavit.explain.choice import NUMBERS
from pacavit.recipes import Recipe
from pacavit.recipes.io import RECIPE_FILE
from pacavit.report.evaluation import read_evaluation
from pacavit.utils.command import Command

RESULTS = Path(__file__).parent / "results" / "seeds.json"
SCORES = ("accuracy", "precision_macro", "recall_macro", "f1_macro")
METHODS = (
    "cluster_contributions",
    "cluster_gradient",
    "class_map",
    "attention_map",
    "relevance",
    "grad_cam",
)
EXPLANATIONS = "explain-evaluate"


@dataclass(frozen=True)
class Sample:
    """The test images on which maps are measured.

    Attributes:
        limit: number of images.
        skip: images of the fixed random order that are left out first.
    """

    limit: int
    skip: int


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, measure and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of the run folders")
    parser.add_argument("--data", type=Path, help="folder with the data set")
    parser.add_argument("--limit", type=int, default=250, help="images whose maps are measured")
    parser.add_argument("--skip", type=int, default=200, help="images to leave out first")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(words)
    sample = Sample(given.limit, given.skip)
    try:
        runs = finished_runs(given.folder)
        entries = []
        for number, (run, recipe) in enumerate(runs, 1):
            print(f"{number} of {len(runs)}: {run.name}", flush=True)  # noqa: T201
            entries.append(measured(run, recipe, given.data, sample))
            write(entries, runs[0][1].name, sample, given.results)
    except PacavitError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"wrote {given.results}")  # noqa: T201


def finished_runs(folder: Path) -> list[tuple[Path, Recipe]]:
    """The runs in a folder that are finished, by clustering and seed.

    Raises:
        PacavitError: there are none, they are of several recipes, or two have the same clustering
            and seed.
    """
    found: dict[tuple[str, int], tuple[Path, Recipe]] = {}
    for run in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not (run / RECIPE_FILE).is_file():
            continue
        if not (run / WEIGHTS).is_file():
            print(f"{run.name} is not finished and left out")  # noqa: T201
            continue
        recipe = recipes.load(run)
        key = (str(recipe.model.clustering), recipe.train.seed)
        if key in found:
            raise PacavitError(f"{run} and {found[key][0]} have the same clustering and seed")
        found[key] = (run, recipe)
    names = {recipe.name for _, recipe in found.values()}
    if len(names) != 1:
        what = "no finished run" if not names else f"runs of several recipes: {', '.join(names)}"
        raise PacavitError(f"{folder} holds {what}")
    return [found[key] for key in sorted(found)]


def measured(run: Path, recipe: Recipe, data: Path | None, sample: Sample) -> dict[str, Any]:
    """The entry of a run, which is measured unless that is done already."""
    model = load_model(run)
    digest = weights_digest(model)
    stored = read_evaluation(run / "evaluation-test", digest)
    evaluation = (
        api.evaluate(run, data=data, progress=True) if stored is None else stored.evaluation
    )
    numbers = explanations(run, data, sample, digest)
    last = read_metrics(run)[-1]
    return {
        "clustering": recipe.model.clustering,
        "seed": recipe.train.seed,
        "data": model.info.version,
        "weights_sha256": digest,
        "minutes": round(last["elapsed"] / 60, 1),
        "val_accuracy": last["val_accuracy"],
        "num_images": evaluation.num_images,
        **{name: evaluation.scores[name] for name in SCORES},
        "explanations": {
            row["method"]: {measure: value[0] for measure, value in row["predicted"].items()}
            for row in numbers["methods"]
        },
    }


def explanations(run: Path, data: Path | None, sample: Sample, digest: str) -> dict[str, Any]:
    """The numbers of ``explain-evaluate`` for a run; other ones are replaced."""
    file = run / EXPLANATIONS / NUMBERS
    if file.is_file():
        found = _numbers(file)
        words = Command(tuple(found["command"]))
        wanted = f" --limit {sample.limit}" + (f" --skip {sample.skip} " if sample.skip else " ")
        same = wanted in f"{words} " and [row["method"] for row in found["methods"]] == [*METHODS]
        if same and found["weights_sha256"] == digest:
            return found
    api.explain_evaluate(
        run,
        run / EXPLANATIONS,
        data=data,
        methods=METHODS,
        limit=sample.limit,
        skip=sample.skip,
        precision="bf16",
        overwrite=file.is_file(),
        progress=True,
    )
    return _numbers(file)


def _numbers(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def write(entries: Sequence[Mapping[str, Any]], recipe: str, sample: Sample, results: Path) -> None:
    """Write all runs, and each clustering's means and standard deviations over its seeds."""
    changed = [f"--limit {sample.limit}", f"--skip {sample.skip}"]
    record = {
        "command": " ".join(["python benchmarks/seeds.py RUNS --data FOLDER", *changed]),
        "recipe": recipe,
        "explained_images": sample.limit,
        "environment": environment(pick_device("auto", float64=True)),
        "clusterings": summaries(entries),
        "runs": entries,
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def summaries(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By clustering: its seeds, and of each number the mean and the standard deviation."""
    found = {}
    for name in dict.fromkeys(entry["clustering"] for entry in entries):
        own = [entry for entry in entries if entry["clustering"] == name]
        found[name] = {
            "seeds": [entry["seed"] for entry in own],
            **{score: spread(entry[score] for entry in own) for score in SCORES},
            "explanations": {
                method: {
                    measure: spread(entry["explanations"][method][measure] for entry in own)
                    for measure in own[0]["explanations"][method]
                }
                for method in METHODS
            },
        }
    return found


def spread(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for the latter of a single value."""
    known = list(values)
    deviation = round(statistics.stdev(known), 4) if len(known) > 1 else None
    return round(statistics.mean(known), 4), deviation


if __name__ == "__main__":
    main()
