"""Scores of detections: average precision and recall, by class and size, and confusions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from pacavit.data import Objects, Rle
from pacavit.tasks.detection.average_precision import Kind, average_precision
from pacavit.tasks.detection.confusion import working_point
from pacavit.tasks.detection.predictions import Detections

__all__ = ["DetectionMetrics", "ObjectRecords"]


class ObjectRecords(Metric):
    """All predictions and objects so far, as tensors that processes can exchange.

    Args:
        masks: keep the masks too.

    Attributes:
        images: (images, 4) int64: height, width, number of objects and of detections.
        objects: (objects, 7) float32: box, class, crowd and area.
        found: (detections, 6) float32: box, class and score.
        lengths: (objects and detections by image,) int64, bytes of each mask.
        masks: uint8, their run lengths one after another.
    """

    full_state_update = False
    images: list[Tensor]
    objects: list[Tensor]
    found: list[Tensor]
    lengths: list[Tensor]
    masks: list[Tensor]

    def __init__(self, *, masks: bool) -> None:
        super().__init__()
        self.has_masks = masks
        for name in _EMPTY:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, records: Sequence[Detections], targets: Sequence[Objects]) -> None:
        """Add the predictions for B images, and their objects."""
        for record, target in zip(records, targets, strict=True):
            height, width = target.size
            self.images.append(self._own(torch.tensor([[height, width, len(target), len(record)]])))
            columns = [target.labels[:, None], target.crowd[:, None], target.areas[:, None]]
            self.objects.append(self._own(torch.cat([target.boxes, *columns], dim=1).float()))
            columns = [record.labels[:, None], record.scores[:, None]]
            self.found.append(self._own(torch.cat([record.boxes, *columns], dim=1).float()))
            if self.has_masks:
                assert target.masks is not None
                assert record.masks is not None
                runs = [mask.counts for mask in (*target.masks, *record.masks)]
                self.lengths.append(
                    self._own(torch.tensor([len(run) for run in runs], dtype=torch.int64))
                )
                packed = np.frombuffer(b"".join(runs), dtype=np.uint8).copy()
                self.masks.append(self._own(torch.from_numpy(packed)))

    def compute(self) -> dict[str, Tensor]:
        """The states, each as one tensor."""
        states = {}
        for name, empty in _EMPTY.items():
            state = getattr(self, name)
            # It is one tensor already after an exchange between processes.
            joined = state if isinstance(state, Tensor) else torch.cat([self._own(empty), *state])
            states[name] = joined
        return states

    def _own(self, values: Tensor) -> Tensor:
        return values.to(self.device)

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # Without these, processes without images would send tensors of another type.
        for name, empty in _EMPTY.items():
            getattr(self, name).append(self._own(empty))
        super()._sync_dist(*args, **kwargs)


_EMPTY = {
    "images": torch.zeros(0, 4, dtype=torch.int64),
    "objects": torch.zeros(0, 7),
    "found": torch.zeros(0, 6),
    "lengths": torch.zeros(0, dtype=torch.int64),
    "masks": torch.zeros(0, dtype=torch.uint8),
}


class DetectionMetrics(MetricCollection):
    """COCO's scores, with names such as ``box_AP`` and ``mask_AP50``, see ``AveragePrecision``.

    Scores per class, ``confusion`` (K + 1, K + 1), ``precision`` (K, 101), ``best_F1`` and its
    score threshold ``best_F1_threshold`` (see ``WorkingPoint``) are those of masks, or of boxes if
    there are none.

    Args:
        num_classes: K.
        masks: score masks as well as boxes.
    """

    def __init__(self, num_classes: int, *, masks: bool) -> None:
        # torchmetrics takes a dict of metrics or of collections and declares only the union.
        super().__init__(cast(Any, {"records": ObjectRecords(masks=masks)}), compute_groups=False)
        self.num_classes = num_classes
        self.kinds: tuple[Kind, ...] = ("mask", "box") if masks else ("box",)

    def update(  # type: ignore[override]
        self, records: Sequence[Detections], targets: Sequence[Objects]
    ) -> None:
        """Add the predictions for B images, and their objects."""
        super().update(records, targets)

    def compute(self) -> dict[str, Tensor]:
        """All scores by name."""
        states = {name: value.cpu() for name, value in super().compute().items()}
        images = list(_images(states, masks="mask" in self.kinds))
        truth, found = [target for target, _ in images], [record for _, record in images]
        scores: dict[str, Tensor] = {}
        others: dict[str, Tensor] = {}
        for kind in self.kinds:
            measured = average_precision(found, truth, self.num_classes, kind)
            scores |= {f"{kind}_{name}": value for name, value in measured.scores.items()}
            prefix = "" if kind == self.kinds[0] else f"{kind}_"
            columns = {
                f"{prefix}{name}_per_class": each for name, each in measured.per_class.items()
            }
            others = {**columns, **others}  # the main kind comes last
            if kind == self.kinds[0]:
                others["precision"] = measured.precision
        point = working_point(found, truth, self.num_classes, masks=self.kinds[0] == "mask")
        labels = torch.cat([target.labels[~target.crowd] for target in truth])
        return {
            **scores,
            "best_F1": torch.tensor(point.f1),
            "best_F1_threshold": torch.tensor(point.score),
            **others,
            "support_per_class": labels.bincount(minlength=self.num_classes),
            "confusion": point.confusion,
        }


def _images(states: dict[str, Tensor], *, masks: bool) -> Iterator[tuple[Objects, Detections]]:
    """The objects and the predictions of each image, from the states of ``ObjectRecords``."""
    numbers = states["images"][:, 2:]
    objects = states["objects"].split(numbers[:, 0].tolist())
    found = states["found"].split(numbers[:, 1].tolist())
    packed, ends = states["masks"].numpy().tobytes(), states["lengths"].cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    first = 0
    for row, (height, width, num_objects, num_found) in enumerate(states["images"].tolist()):
        last = first + num_objects + num_found
        runs = None
        if masks:
            size = (height, width)
            runs = [Rle(size, packed[starts[k] : ends[k]]) for k in range(first, last)]
        first = last
        target, record = objects[row], found[row]
        yield (
            Objects(
                target[:, :4],
                target[:, 4].long(),
                target[:, 5].bool(),
                target[:, 6],
                (height, width),
                row,
                None if runs is None else tuple(runs[:num_objects]),
            ),
            Detections(
                record[:, :4],
                record[:, 4].long(),
                record[:, 5],
                (height, width),
                None if runs is None else tuple(runs[num_objects:]),
            ),
        )
