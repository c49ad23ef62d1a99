"""Which objects do detectors find: those that touch another one, and those that stand alone?

::

    pacavit evaluate runs/nuclei --data NUCLEI
    pacavit evaluate runs/nuclei_watershed --data NUCLEI
    python benchmarks/touching_objects.py --data NUCLEI runs/nuclei runs/nuclei_watershed

Reads the predictions that evaluations of the test images stored, at the score with the best F1 of
each model on the validation images, which are predicted for it. An object touches another if a
pixel of it is at most one pixel away from a pixel of the other. Recall is counted of both kinds at
a mask IoU of .5. Adds one row per run to ``benchmarks/results/touching_objects.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pacavit import api, recipes
from pacavit.data import DATASETS, DataInfo, ObjectImages, Objects
from pacavit.report.publishing.command import training_command
from pacavit.tasks.detection.confusion import hit_objects
from pacavit.tasks.detection.results import ResultFile

RESULTS = Path(__file__).parent / "results" / "touching_objects.json"
PREDICTIONS = "predictions.json"


def main() -> None:
    """Read the command line, count, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="in COCO's layout, with masks")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders with evaluation-test/")
    arguments = parser.parse_args()
    source = DATASETS.create("coco", arguments.data, options={}, target="instances")
    images = source.load("test")
    assert isinstance(images, ObjectImages)
    touching = [touches(images.target(row)) for row in range(len(images))]
    rows = []
    for run in arguments.runs:
        threshold = api.evaluate(run, data=arguments.data, split="val").scores["best_F1_threshold"]
        row = {
            "command": str(training_command(recipes.load(run))),
            "threshold": round(threshold, 4),
            **recalls(run, images, source.info, touching, threshold),
        }
        rows.append(row)
        print(json.dumps(row))  # noqa: T201
    result = {"data": source.info.version, "runs": rows}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def touches(truth: Objects) -> NDArray[np.bool_]:
    """(num,): whether each object is at most a pixel away from another one."""
    assert truth.masks is not None
    owner = np.zeros(truth.size, dtype=np.int64)
    found = np.zeros(len(truth), dtype=bool)
    pixels = [mask.decode().numpy() for mask in truth.masks]
    for number, own in enumerate(pixels, 1):
        owner[own] = number
    for number, own in enumerate(pixels, 1):
        near = owner[ndimage.binary_dilation(own, np.ones((3, 3)))]
        found[number - 1] = bool(np.isin(near, (0, number), invert=True).any())
    return found


def recalls(
    run: Path,
    images: ObjectImages,
    info: DataInfo,
    touching: Sequence[NDArray[np.bool_]],
    threshold: float,
) -> dict[str, Any]:
    """Recall of touching and of other objects, and precision of all, for the test images."""
    file = ResultFile.read(run / "evaluation-test" / PREDICTIONS)
    found = file.detections(images, info, masks=True)
    hit: list[NDArray[np.bool_]] = []
    number = right = 0
    for row, detections in enumerate(found):
        truth, likely = images.target(row), detections.above(threshold)
        hits = torch.from_numpy(hit_objects(likely, truth, masks=True))
        own = np.zeros(len(truth), dtype=bool)
        own[hits[hits >= 0].numpy()] = True
        hit.append(own)
        number, right = number + len(likely), right + int((hits >= 0).sum())
    near, all_hit = _joined(touching), _joined(hit)
    return {
        "touching": int(near.sum()),
        "others": int((~near).sum()),
        "recall_touching": round(float(all_hit[near].mean()), 4),
        "recall_others": round(float(all_hit[~near].mean()), 4),
        "precision": round(right / max(1, number), 4),
    }


def _joined(parts: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    return np.concatenate(list(parts))


if __name__ == "__main__":
    main()
