"""Average precision and recall of objects as COCO defines them.

Lin et al., "Microsoft COCO: Common objects in context", ECCV 2014; computed by faster-coco-eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from faster_coco_eval import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data import Objects
from pacavit.tasks.detection.predictions import Detections, coco_boxes

__all__ = ["AveragePrecision", "Kind", "average_precision"]

Kind = Literal["box", "mask"]

_SIZES = ("small", "medium", "large")  # below 32 x 32 pixels, below 96 x 96, and above
_LIMITS = (1, 10, 100, 300)  # detections of an image that count, those with the highest scores
_USUAL, _MORE = 100, 300


class AveragePrecision(NamedTuple):
    """Scores over a set of images.

    Attributes:
        scores: means over the classes that have objects, by name: AP is the mean over ten IoU
            thresholds from .5 to .95, AP50 and AP75 are those at one; AP_small to AP_large count
            objects of a size only, and are left out where no object has that size; AP_300 and
            AP50_300 count up to 300 detections of an image instead of 100; AR_1 to AR_300 are
            recalls at so many detections, over the same thresholds.
        per_class: AR, AP50 and AP, each (classes,); NaN for classes without objects.
        precision: (classes, 101) at recalls 0, .01 to 1 and an IoU of .5; -1 for classes without
            objects, as COCO writes it.
    """

    scores: dict[str, Tensor]
    per_class: dict[str, Tensor]
    precision: Tensor


def average_precision(
    found: Sequence[Detections], truth: Sequence[Objects], num_classes: int, kind: Kind
) -> AveragePrecision:
    """Compare what was found in images with the objects that are in them.

    Args:
        found: in each image.
        truth: likewise.
        num_classes: K.
        kind: compare boxes or masks.
    """
    evaluator = COCOeval_faster(
        _as_coco([_truth_rows(image, kind) for image in truth], truth, num_classes),
        _as_coco([_found_rows(image, kind) for image in found], truth, num_classes),
        "bbox" if kind == "box" else "segm",
        print_function=_silent,
    )
    evaluator.params.maxDets = list(_LIMITS)
    evaluator.evaluate()
    evaluator.accumulate()
    # COCO writes -1 for classes without objects.
    precision = _without_missing(evaluator.eval["precision"])
    recall = _without_missing(evaluator.eval["recall"])
    limit, sizes = {number: k for k, number in enumerate(_LIMITS)}, ("all", *_SIZES)
    thresholds = {"": slice(None), "50": slice(0, 1), "75": slice(5, 6)}

    def ap(name: str, size: str = "all", number: int = _USUAL) -> NDArray[np.float64]:
        values = precision[thresholds[name], :, :, sizes.index(size), limit[number]]
        return values.mean((0, 1))

    def ar(number: int) -> NDArray[np.float64]:
        return recall[:, :, 0, limit[number]].mean(0)

    per_class = {
        "AP": ap(""),
        "AP50": ap("50"),
        "AP75": ap("75"),
        **{f"AP_{size}": ap("", size) for size in _SIZES},
        f"AP_{_MORE}": ap("", number=_MORE),
        f"AP50_{_MORE}": ap("50", number=_MORE),
        **{f"AR_{number}": ar(number) for number in _LIMITS},
    }
    means = {name: _mean(values) for name, values in per_class.items()}
    return AveragePrecision(
        {
            name: torch.tensor(value)
            for name, value in means.items()
            if not (np.isnan(value) and name.removeprefix("AP_") in _SIZES)
        },
        {
            "AR": torch.from_numpy(per_class[f"AR_{_USUAL}"]),
            "AP50": torch.from_numpy(per_class["AP50"]),
            "AP": torch.from_numpy(per_class["AP"]),
        },
        torch.from_numpy(evaluator.eval["precision"][0, :, :, 0, limit[_USUAL]].T.copy()),
    )


def _as_coco(
    rows: Sequence[list[dict[str, Any]]], truth: Sequence[Objects], num_classes: int
) -> COCO:
    """Rows of each image as a data set of COCO, numbered from 1."""
    annotations: list[dict[str, Any]] = []
    for image_id, of_image in enumerate(rows, 1):
        for row in of_image:
            annotations.append({**row, "id": len(annotations) + 1, "image_id": image_id})
    return COCO(
        {
            "images": [
                {"id": number, "height": image.size[0], "width": image.size[1]}
                for number, image in enumerate(truth, 1)
            ],
            "categories": [{"id": label + 1, "name": str(label)} for label in range(num_classes)],
            "annotations": annotations,
        },
        print_function=_silent,
    )


def _truth_rows(image: Objects, kind: Kind) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"category_id": label + 1, "iscrowd": int(crowd), "area": area, "bbox": box}
        for label, crowd, area, box in zip(
            image.labels.tolist(),
            image.crowd.tolist(),
            image.areas.tolist(),
            coco_boxes(image.boxes),
            strict=True,
        )
    ]
    return _with_masks(rows, image, kind)


def _found_rows(image: Detections, kind: Kind) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "category_id": label + 1,
            "iscrowd": 0,
            "score": score,
            "area": box[2] * box[3],
            "bbox": box,
        }
        for label, score, box in zip(
            image.labels.tolist(), image.scores.tolist(), coco_boxes(image.boxes), strict=True
        )
    ]
    if kind == "mask":
        assert image.masks is not None
        for row, mask in zip(rows, image.masks, strict=True):
            row["area"] = mask.area
    return _with_masks(rows, image, kind)


def _with_masks(
    rows: list[dict[str, Any]], image: Objects | Detections, kind: Kind
) -> list[dict[str, Any]]:
    if kind == "box":
        return rows
    assert image.masks is not None
    return [
        {**row, "segmentation": mask.to_json()} for row, mask in zip(rows, image.masks, strict=True)
    ]


def _without_missing(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values < 0, np.nan, values)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean over the classes that have objects; NaN if none has."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def _silent(*_: object) -> None:
    """The evaluator reports each of its steps."""
