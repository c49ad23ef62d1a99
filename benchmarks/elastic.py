r"""Accuracy and time over the number of clusters: one elastic training beside one for each number.

::

    python benchmarks/elastic.py --data FOLDER --out runs/elastic

Trains one network with an elastic clustering of 49 clusters (nested dropout: Rippel et al., ICML
2014; over learned cores: VECA, arXiv:2605.12491), and one for each number in ``--numbers`` with the
same recipe. The elastic one is then evaluated on the test images with every number of clusters from
1 to 49, the others with their own, each once. Times are those of a batch in evaluation, by turns.

Every run is a folder in ``--out``; repeating the command resumes. The result goes to
``benchmarks/results/elastic.json`` and is drawn in ``docs/pictures/elastic.png``. For right times,
nothing else should run.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import studies
import torch
from figures import inference
from matplotlib.figure import Figure
from studies import Run

from pacavit.bench.turns import quartiles, take_turns
from pacavit.clustering import use_clusters
from pacavit.engine import build, evaluate, system
from pacavit.engine.run.environment import environment
from pacavit.engine.weights.load import LoadedModel, load_model, weights_digest
from pacavit.errors import PacavitError
from pacavit.utils.command import Command

RESULTS = Path(__file__).parent / "results" / "elastic.json"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "elastic.png"


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, train, measure, record and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--recipe", default="cifar10_nano_short")
    parser.add_argument("--clustering", default="conv", help="conv, mlp or linear")
    parser.add_argument("--most", type=int, default=49, help="clusters of the elastic network")
    parser.add_argument("--numbers", type=int, nargs="+", default=[1, 4, 9, 16, 25, 49])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=20, help="of measured times")
    parser.add_argument("--batch-size", type=int, default=64, help="of measured times")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    given = parser.parse_args(words)
    if max(given.numbers) > given.most:
        parser.error(f"--numbers are at most those of the elastic network, {given.most}")
    try:
        study(given)
    except PacavitError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"wrote {given.results}")  # noqa: T201


def study(given: argparse.Namespace) -> None:
    """Train all networks, measure them and record."""
    runs = {
        (seed, number): _run(given, seed, number)
        for seed in given.seeds
        for number in (None, *given.numbers)
    }
    studies.train_all(list(runs.values()), given.jobs)
    rows = []
    for (_, number), run in runs.items():
        model = load_model(run.folder)
        numbers = range(1, given.most + 1) if number is None else [number]
        rows.append(
            {
                "elastic": number is None,
                "clusters": given.most if number is None else number,
                "accuracy": accuracies(run, model, list(numbers), elastic=number is None),
                **studies.trained(run),
            }
        )
        record = {
            "command": str(_command(given)),
            "recipe": given.recipe,
            "clustering": given.clustering,
            "data": model.info.version,
            "environment": environment(system.pick_device("auto")),
            "runs": rows,
            "milliseconds": times(runs[given.seeds[0], None], given),
        }
        studies.write(given.results, record)
    draw(record, given.picture)


def _run(given: argparse.Namespace, seed: int, number: int | None) -> Run:
    """A training; ``number`` is None for the elastic network."""
    name = f"elastic-seed{seed}" if number is None else f"clusters{number}-seed{seed}"
    clusters = given.most if number is None else number
    changes = (
        *given.set,
        f"model.clustering={given.clustering}",
        f"model.num_clusters=[{clusters},{clusters},0]",
        *(["model.clustering_options.elastic=true"] if number is None else []),
        f"train.seed={seed}",
    )
    return Run(given.out / name, given.recipe, changes, given.data)


def accuracies(
    run: Run, model: LoadedModel, numbers: Sequence[int], *, elastic: bool
) -> dict[str, float]:
    """Test accuracy by number of clusters, each measured once and kept in the run."""
    file = run.folder / "clusters.json"
    digest, stored = weights_digest(model), studies.read(file)
    if stored.get("weights_sha256") != digest:
        stored = {"weights_sha256": digest, "accuracy": {}}
    device = system.pick_device("auto")
    system.configure(device)
    missing = [number for number in numbers if str(number) not in stored["accuracy"]]
    if missing:
        source = build.data_source(model.recipe, run.data)
        images = build.image_set(source, "test", device)
        loader = build.eval_loader(model.recipe, images, model.info)
    for number in missing:
        if elastic:
            use_clusters(model.task, number)
        print(f"{run.folder.name}: {number} clusters", flush=True)  # noqa: T201
        found = evaluate(model.task, loader, model.info.class_names, device=device, progress=True)
        stored["accuracy"][str(number)] = round(found.scores["accuracy"], 4)
        studies.write(file, stored)
    return {str(number): stored["accuracy"][str(number)] for number in numbers}


def times(run: Run, given: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of a batch (quartiles) by number of clusters, measured by turns once."""
    file = run.folder / "cluster_times.json"
    if not file.is_file():
        model = load_model(run.folder)
        device = system.pick_device("auto")
        system.configure(device)
        network = model.task.model.to(device).eval()
        size = model.recipe.task.input_size(model.info.image_size)
        images = torch.randn(given.batch_size, 3, *size, device=device)
        step = inference(network, images.contiguous(memory_format=torch.channels_last))

        def with_clusters(number: int) -> object:
            use_clusters(network, number)
            return step()

        steps: dict[str, Callable[[], object]] = {
            str(number): partial(with_clusters, number) for number in range(1, given.most + 1)
        }
        seconds = take_turns(steps, given.rounds, warm_up=2)
        studies.write(
            file, {name: quartiles([1000 * value for value in seconds[name]]) for name in seconds}
        )
    return studies.read(file)


def _command(given: argparse.Namespace) -> Command:
    """The command that repeats the study, without folders of this machine."""
    words = ["--data", "FOLDER", "--out", "DIR", "--recipe", given.recipe]
    words += ["--clustering", given.clustering, "--most", str(given.most)]
    words += ["--numbers", *map(str, given.numbers), "--seeds", *map(str, given.seeds)]
    words += [word for change in given.set for word in ("--set", change)]
    return Command(("python", "benchmarks/elastic.py", *words))


def draw(record: dict[str, Any], path: Path) -> None:
    """Accuracy and time over the number of clusters."""
    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=130)
    left, right = figure.subplots(1, 2)
    for elastic, style, label in (
        (True, "-", "one elastic network"),
        (False, "o", "a network for each number"),
    ):
        values: dict[int, list[float]] = {}
        for row in record["runs"]:
            if row["elastic"] == elastic:
                for number, accuracy in row["accuracy"].items():
                    values.setdefault(int(number), []).append(accuracy)
        numbers = sorted(values)
        left.plot(numbers, [statistics.mean(values[each]) for each in numbers], style, label=label)
    left.set(xlabel="clusters M", ylabel="test accuracy")
    left.legend(frameon=False, loc="lower right")
    low, middle, high = zip(*record["milliseconds"].values(), strict=True)
    numbers = [int(number) for number in record["milliseconds"]]
    right.plot(numbers, middle)
    right.fill_between(numbers, low, high, alpha=0.2, linewidth=0)
    right.set(xlabel="clusters M", ylabel="milliseconds of a batch", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
