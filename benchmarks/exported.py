"""Exported files beside the network: size, accuracy on the whole test set, images per second.

::

    python benchmarks/exported.py --data CIFAR10 --out DIR
    python benchmarks/exported.py --data CAMVID --out DIR --models camvid_nano_paca

For each packaged weights file: the network in PyTorch, as ``pacavit predict`` runs it, and its
files for ONNX Runtime and OpenVINO in fp32 and int8. All take turns on the same test images;
``ratio`` is PyTorch's time over that of the file. int8 is kept however much it loses, since the
table shows it; what cannot be exported is recorded with the reason. The result goes to
``benchmarks/results/exported.json`` after each step, and the program continues where it stopped.
Nothing else should run while speeds are measured; ``--scores-only`` does all else.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from studies import read, write
from torch import Tensor

from pacavit import api
from pacavit.bench.turns import quartiles, ratios, take_turns
from pacavit.data import ImageSet
from pacavit.engine.predictor import Predictor
from pacavit.engine.run.environment import environment
from pacavit.engine.scoring import score_model
from pacavit.engine.weights.load import LoadedModel, load_model
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import PacavitError

RESULTS = Path(__file__).parent / "results" / "exported.json"
CLASSIFIERS = [name for name in packaged_names() if name.startswith("cifar10")]
EAGER = "PyTorch"
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "ONNX Runtime": ("fp32.onnx", {}),
    "ONNX Runtime, int8": ("int8.onnx", {"precision": "int8", "allow_drop": True}),
    "OpenVINO": ("fp32.xml", {}),
    "OpenVINO, int8": ("int8.xml", {"precision": "int8", "allow_drop": True}),
}
"""By engine, the end of the file's name, and the options of ``pacavit.api.export``."""


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, measure what is missing, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=CLASSIFIERS, metavar="MODEL")
    parser.add_argument("--data", type=Path, help="folder with the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], metavar="IMAGES")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=5, metavar="ROUNDS")
    parser.add_argument(
        "--scores-only", action="store_true", help="leave speeds, which need an idle machine"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(words)
    settings = {"batches": given.batches, "rounds": given.rounds, "warm_up": given.warm_up}
    record = read(given.results)
    if record.get("settings", settings) != settings:
        raise SystemExit(f"{given.results} was measured with other settings; remove it first")
    record |= {
        "command": "python benchmarks/exported.py --data DATA --out DIR",
        "settings": settings,
        "environment": environment(torch.device("cpu")),
    }
    models = record.setdefault("models", {})
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.models:
        row = models.setdefault(Path(name).stem, {"engines": {}})
        save = partial(write, given.results, record)
        try:
            measure(name, row, given, save)
        except PacavitError as error:
            raise SystemExit(f"error: {error}") from error
    print(f"wrote {given.results}")  # noqa: T201


def measure(
    name: str, row: dict[str, Any], given: argparse.Namespace, save: Callable[[], None]
) -> None:
    """Measure what is missing of a model.

    Args:
        name: of the weights.
        row: what was found before; is extended.
        given: the command line.
        save: writes the record.
    """
    model = load_model(name, optimize=True)
    found = {EAGER: model}
    for engine, (ending, options) in FILES.items():
        path = given.out / f"{Path(name).stem}-{ending}"
        if "refused" in row["engines"].get(engine, {}):
            continue
        try:
            if not path.is_file():
                api.export(name, path, data=given.data, progress=True, **options)
        except PacavitError as error:
            row["engines"][engine] = {"refused": str(error)}
            save()
            continue
        found[engine] = load_model(path)
    images: ImageSet | None = None
    for engine, each in found.items():
        if engine in row["engines"]:
            continue
        print(f"{name}: {engine}", flush=True)  # noqa: T201
        scored = score_model(
            each, "test", root=given.data, device=torch.device("cpu"), progress=True
        )
        images = scored.images
        row["engines"][engine] = {
            "bytes": num_bytes(each.path),
            "metric": each.task.main_metric,
            "score": round(scored.evaluation.scores[each.task.main_metric], 4),
            "images": scored.evaluation.num_images,
        }
        save()
    if "speed" not in row and not given.scores_only:
        row["speed"] = speed(found, images or test_images(model, given.data), given)
        save()


def num_bytes(path: Path) -> int:
    """Of a file, with the .bin that lies beside an .xml."""
    both = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return sum(each.stat().st_size for each in both)


def test_images(model: LoadedModel, root: Path | None) -> ImageSet:
    """The test split of a model's data."""
    from pacavit.engine import build

    return build.data_source(model.recipe, root, model.info, "test").load("test")


def speed(
    found: dict[str, LoadedModel], images: ImageSet, given: argparse.Namespace
) -> dict[str, Any]:
    """Images per second and the ratio to PyTorch, by number of images and engine."""
    predictor, rows = Predictor(found[EAGER]), {}
    for number in given.batches:
        chosen = [images[position % len(images)].image for position in range(number)]
        batch = predictor.prepare(chosen).images
        steps = {engine: step(each, batch) for engine, each in found.items()}
        with torch.inference_mode():
            seconds = take_turns(steps, given.rounds, given.warm_up)
        rows[str(number)] = {
            engine: {
                "images_per_second": quartiles([number / each for each in times]),
                "ratio": ratios(seconds[EAGER], times),
            }
            for engine, times in seconds.items()
        }
    return rows


def step(model: LoadedModel, batch: Tensor) -> Callable[[], object]:
    """A forward pass, without preprocessing."""
    run = model.task.graph() if model.exported is None else model.exported.engine
    return lambda: run(batch)


if __name__ == "__main__":
    main()
