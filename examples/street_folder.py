"""A folder of small photographs: cars, pedestrians, signs and more, cut out of street scenes.

Cuts every connected region of eight classes of CamVid, with some of its surroundings, into
OUT/train, OUT/val and OUT/test, each with one folder a class, for trainings on a folder of
photographs::

    python examples/street_folder.py DATA/camvid street
    pacavit train folder_tune --data street --out run \
        --set model.init=timm:resnet18.a1_in1k --set model.name=resnet18

Needs scipy, which comes with scikit-learn.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

SPLITS = {"training": "train", "validation": "val", "test": "test"}
CLASSES = ("bicyclist", "building", "car", "fence", "pedestrian", "pole", "sign_symbol", "tree")
SMALLEST = 40  # longer side of a region, in pixels
THINNEST = 12  # shorter side
MARGIN = 1.2  # side of what is cut out, in longer sides of the region


def cut(camvid: Path, out: Path, limits: dict[str, int | None]) -> dict[str, Counter[str]]:
    """Write each region as a picture of its own: OUT/SPLIT/CLASS/IMAGE-NUMBER.jpg.

    Args:
        camvid: CamVid in ADE20K's layout: images/SPLIT, annotations/SPLIT, objectInfo.txt.
        out: made if it is not there.
        limits: most pictures of a class by split ("train", "val", "test"), the same every time;
            None: all.

    Returns:
        Pictures by split and class.
    """
    lines = (camvid / "objectInfo.txt").read_text("utf-8").splitlines()[1:]
    numbers = {name: int(number) for number, name in (line.split("\t") for line in lines)}
    return {
        split: _cut_split(camvid, folder, out / split, numbers, limits[split])
        for folder, split in SPLITS.items()
    }


def _cut_split(
    camvid: Path, folder: str, out: Path, numbers: dict[str, int], limit: int | None
) -> Counter[str]:
    masks = sorted((camvid / "annotations" / folder).glob("*.png"))
    np.random.default_rng(0).shuffle(masks)  # the images of a drive follow each other
    counts: Counter[str] = Counter()
    for path in masks:
        mask = np.asarray(Image.open(path))
        image = Image.open(camvid / "images" / folder / f"{path.stem}.jpg").convert("RGB")
        for name in CLASSES:
            regions, _ = ndimage.label(mask == numbers[name])
            for index, (rows, columns) in enumerate(ndimage.find_objects(regions)):
                height, width = rows.stop - rows.start, columns.stop - columns.start
                if max(height, width) < SMALLEST or min(height, width) < THINNEST:
                    continue
                if limit is not None and counts[name] >= limit:
                    continue
                side = min(round(MARGIN * max(height, width)), *image.size)
                left = min(max((columns.start + columns.stop - side) // 2, 0), image.width - side)
                top = min(max((rows.start + rows.stop - side) // 2, 0), image.height - side)
                (out / name).mkdir(parents=True, exist_ok=True)
                picture = image.crop((left, top, left + side, top + side))
                picture.save(out / name / f"{path.stem}-{index:03}.jpg", quality=92)
                counts[name] += 1
    return counts


def main() -> None:
    """Read the command line, cut, and print how many pictures there are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("camvid", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-class", type=int, default=120, help="pictures a class to train on")
    arguments = parser.parse_args()
    limits = {"train": arguments.per_class, "val": 60, "test": 150}
    for split, counts in cut(arguments.camvid, arguments.out, limits).items():
        print(split, dict(sorted(counts.items())))  # noqa: T201


if __name__ == "__main__":
    main()
