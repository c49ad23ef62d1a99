"""Does it help to start from CIFAR-10? Blood cells cut out of BCCD, few and many of them.

Cuts the cells of the BCCD images into a folder with three classes, trains the recipe
``folder_nano`` on 20 cells a class, on 100 and on all of them, each time from random weights and
from the packaged CIFAR-10 weights, with several seeds, and writes a table. The learning rate of
each row is the one of two with the better mean F1 on the validation images; the test images are
only for the table. Repeating the command goes on where it was stopped.

    python examples/transfer_cells.py DATA/bccd --out runs/cells
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from PIL import Image

import pacavit

SPLITS = ("train", "val", "test")
SIZE = 32  # pixels, those of CIFAR-10
MARGIN = 1.2  # side of what is cut out, in longer sides of the cell's box
STARTS = {"random": None, "CIFAR-10": "cifar10_nano_conv"}
RATES = ("1e-3", "3e-4")
STEPS, BATCH_SIZE = 400, 20
VAL_PER_CLASS = 70  # measured after every epoch


class Row(NamedTuple):
    """Scores on the test images, one value a seed."""

    per_class: int | None
    start: str
    rate: str
    accuracy: list[float]
    f1: list[float]


def cut_cells(bccd: Path, out: Path, *, per_class: int | None = None) -> dict[str, int]:
    """Write every cell as a picture of its own: OUT/SPLIT/CLASS/IMAGE-NUMBER.png.

    Args:
        bccd: BCCD in COCO's layout: SPLIT2017/ and annotations/instances_SPLIT2017.json.
        out: made if it is not there.
        per_class: cells a class to train on, the first ones; None: all.

    Returns:
        Cells a split.
    """
    limits = {"train": per_class, "val": VAL_PER_CLASS, "test": None}
    return {split: _cut_split(bccd, out, split, limits[split]) for split in SPLITS}


def _cut_split(bccd: Path, out: Path, split: str, limit: int | None) -> int:
    path = bccd / "annotations" / f"instances_{split}2017.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in record["categories"]}
    files = {image["id"]: image["file_name"] for image in record["images"]}
    counts = dict.fromkeys(names.values(), 0)
    opened: dict[str, Image.Image] = {}
    for cell in record["annotations"]:
        name, file = names[cell["category_id"]], files[cell["image_id"]]
        if limit is not None and counts[name] >= limit:
            continue
        if file not in opened:  # the annotations of an image stand together
            opened = {file: Image.open(bccd / f"{split}2017" / file).convert("RGB")}
        picture = cut_square(opened[file], cell["bbox"])
        target = out / split / name / f"{Path(file).stem}-{cell['id']:05d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
        counts[name] += 1
    return sum(counts.values())


def cut_square(image: Image.Image, box: Iterable[float]) -> Image.Image:
    """A square around a box (x, y, width, height), moved into the image, scaled to SIZE."""
    x, y, width, height = box
    side = min(MARGIN * max(width, height), *image.size)
    left = min(max(x + width / 2 - side / 2, 0), image.width - side)
    top = min(max(y + height / 2 - side / 2, 0), image.height - side)
    return image.resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )


def train_and_score(
    folder: Path, num_train: int, out: Path, *, start: str, rate: str, seed: int
) -> dict[str, dict[str, Any]]:
    """One run, trained unless it is there, and its scores on validation and test images."""
    epochs = math.ceil(STEPS / (num_train // BATCH_SIZE))
    changes = [
        f"task.image_size={SIZE}",
        f"train.batch_size={BATCH_SIZE}",
        f"train.epochs={epochs}",
        f"train.lr={rate}",
        f"train.seed={seed}",
    ]
    if weights := STARTS[start]:
        changes.append(f"model.init={weights}")
    resume = (out / "recipe.json").exists()  # else it was stopped before it began
    pacavit.train("folder_nano", out, data=folder, set=changes, resume=resume)
    scores = {}
    for split in ("val", "test"):
        evaluation = pacavit.evaluate(out, split=split)
        scores[split] = {"accuracy": evaluation.accuracy, "f1": evaluation.f1_macro}
    return scores


def best_rate(per_class: int | None, start: str, seeds: int, bccd: Path, out: Path) -> Row:
    """All runs of a row of the table, and the scores of the better learning rate."""
    size = "all" if per_class is None else str(per_class)
    folder = out / f"cells-{size}"
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        cut_cells(bccd, unfinished, per_class=per_class)
        unfinished.rename(folder)
    num_train = sum(1 for _ in (folder / "train").glob("*/*.png"))
    candidates = []
    for rate in RATES:
        scores = []
        for seed in range(seeds):
            run = out / f"{size}-{start}-{rate}-seed{seed}"
            scores.append(
                train_and_score(folder, num_train, run, start=start, rate=rate, seed=seed)
            )
            print(f"{run}: F1 {scores[-1]['test']['f1']:.4f}", flush=True)  # noqa: T201
        row = Row(
            per_class,
            start,
            rate,
            [score["test"]["accuracy"] for score in scores],
            [score["test"]["f1"] for score in scores],
        )
        candidates.append((mean(score["val"]["f1"] for score in scores), row))
    return max(candidates, key=lambda candidate: candidate[0])[1]


def table(rows: Iterable[Row]) -> str:
    """Markdown: mean and standard deviation over the seeds."""

    def spread(values: list[float]) -> str:
        deviation = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
        return f"{mean(values):.4f}{deviation}"

    lines = [
        "| cells a class to train on | start | learning rate | accuracy | F1 (macro) |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        size = "all" if row.per_class is None else str(row.per_class)
        lines.append(
            f"| {size} | {row.start} | {row.rate} | {spread(row.accuracy)} | {spread(row.f1)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bccd", type=Path, help="folder with BCCD in COCO's layout")
    parser.add_argument("--out", type=Path, default=Path("runs/cells"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = [
        best_rate(per_class, start, arguments.seeds, arguments.bccd, arguments.out)
        for per_class in (20, 100, None)
        for start in STARTS
    ]
    text = table(rows)
    (arguments.out / "transfer.md").write_text(text, encoding="utf-8")
    print(text)  # noqa: T201


if __name__ == "__main__":
    main()
