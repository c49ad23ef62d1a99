"""Explain the objects that a detector finds, and boxes in which it finds none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from pacavit.data import Batch, DataInfo, Placement
from pacavit.detectors import Watershed
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import DataError, PacavitError
from pacavit.explain.boxes import BoxScores
from pacavit.explain.choice import MapChoice
from pacavit.explain.explainer import EXPLAINERS, Explainer, ExplainOptions
from pacavit.explain.methods.base import METHODS, Method, method_title
from pacavit.explain.regions import check_pixel
from pacavit.explain.segmentation import HeadClusters, head_clusters
from pacavit.tasks.detection import Detections, DetectionTask
from pacavit.tasks.segmentation.predictions import restore_logits
from pacavit.utils.text import shown

__all__ = ["LEAST_SCORE", "BoxExplanation", "DetectionExplainer", "DetectionExplanation"]

LEAST_SCORE = 0.3
"""Least score of an object that is explained without being asked for."""

_SAME = 0.05  # pixels by which sides of the same box differ at most; files have two decimals


@dataclass(frozen=True, eq=False)
class BoxExplanation:
    """Why there is an object of a class in a box, or why not.

    Attributes:
        label: index of the class.
        box: x1, y1, x2, y2 in pixels of the image.
        score: of the object that was found; None for a box in which none was.
        number: of the object among those that were found, from 0; None where the score is None.
        logit: of the class for this box.
        map: (height, width) of the network's input, high where the evidence for the class lies.
    """

    label: int
    box: tuple[float, float, float, float]
    score: float | None
    number: int | None
    logit: float
    map: Tensor


@dataclass(frozen=True, eq=False)
class DetectionExplanation:
    """The explanation of the objects in an image.

    Attributes:
        path: the image file.
        image: (3, H, W) uint8.
        placement: where the image lies in the network's input, which shows all of it.
        info: of the data that the model was trained on; names and colors of the classes.
        detections: all objects that were found.
        method: of the maps.
        stages: the stages whose clusters make the maps; empty for other methods.
        boxes: what was asked about; by default the six objects with the highest scores, of at
            least 0.3.
        clusters: of the detector's head, with their names in ``cluster_names``; None if it has
            none.
        cluster_names: what each cluster is.
        choice: the method, and what was measured about it.
    """

    path: Path
    image: Tensor
    placement: Placement
    info: DataInfo
    detections: Detections
    method: str
    stages: tuple[int, ...]
    boxes: tuple[BoxExplanation, ...]
    clusters: HeadClusters | None
    cluster_names: tuple[str, ...]
    choice: MapChoice
    kind: ClassVar[str] = "detection"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self.info.class_names

    def title(self) -> str:
        """The display name of the method, with its stages."""
        return method_title(self.method, self.stages)


class _Asked(NamedTuple):
    """A question: a box in pixels of the image, and a class or None for the most likely.

    If it is about an object that was found, ``number`` is its position.
    """

    box: Tensor
    label: int | None
    number: int | None = None


@EXPLAINERS.register("detection")
@EXPLAINERS.register("instance_segmentation")
class DetectionExplainer(Explainer[DetectionExplanation]):
    """Explains objects by methods that explain classifiers, with the scores of their boxes.

    Without a box or a region, it explains the objects with the highest scores, of the class asked
    for or of any. A region is a pixel: of the objects there, the one with the highest score is
    explained. A box without a class is explained for the class that is most likely in it; the box
    of an object that was found, for the class of the object.

    Args:
        model: as loaded by ``load_model``; its task moves to ``device``.
        options: what the user asks for.
        device: where to compute.

    Raises:
        UnknownNameError: there is no such method, or it has no option ``stage``.
        PacavitError: the method cannot explain this model, or options exclude each other.
    """

    task: DetectionTask

    def __init__(self, model: LoadedModel, options: ExplainOptions, device: torch.device) -> None:
        assert isinstance(model.task, DetectionTask)
        self.task = model.task
        if options.mask is not None:
            raise PacavitError(
                "a mask is for segmentation models, and this one finds objects; give a box, or a "
                "pixel of an object"
            )
        if options.box is not None and options.region is not None:
            raise PacavitError("give a box or a pixel, not both")
        super().__init__(model, options, device)
        # A method that cannot explain the network says so before the first image.
        self._method(torch.zeros(1, 4))

    def explain(self, image: Tensor, path: Path, batch: Batch) -> DetectionExplanation:
        """Explain an image, of which ``batch`` is the network's input."""
        info = self.model.info
        found: Detections = self.predictor.records(batch, [path])[0]
        placement = batch.placements[0]
        boxes: list[BoxExplanation] = []
        stages: tuple[int, ...] = ()
        for asked in self._asked(found, path):
            own = _input_box(asked.box, placement)[None].to(self.device)
            with torch.no_grad():
                logits = BoxScores(self.task.model, own)(batch.images)[0]
            label = int(logits.argmax()) if asked.label is None else asked.label
            method = self._method(own)
            x1, y1, x2, y2 = asked.box.tolist()
            boxes.append(
                BoxExplanation(
                    label,
                    (x1, y1, x2, y2),
                    None if asked.number is None else float(found.scores[asked.number]),
                    asked.number,
                    float(logits[label]),
                    method(batch.images, torch.tensor([label], device=self.device))[0].cpu(),
                )
            )
            stages = tuple(method.stages)
        return DetectionExplanation(
            path=path,
            image=image,
            placement=placement,
            info=info,
            detections=found,
            method=self.choice.methods[0],
            stages=stages,
            boxes=tuple(boxes),
            clusters=self._clusters(batch),
            cluster_names=("background", "border", *(f"interior of {n}" for n in info.class_names)),
            choice=self.choice,
        )

    def _method(self, boxes: Tensor) -> Method:
        """The method for boxes (1, 4) of the network's input."""
        scores = BoxScores(self.task.model, boxes.to(self.device)).eval()
        return METHODS.create(self.choice.methods[0], scores, options=self.options.of_map)

    def _asked(self, found: Detections, path: Path) -> Iterator[_Asked]:
        """The questions about an image with these objects.

        Raises:
            DataError: there is no such object or box in the image; the message begins with it.
        """
        label = self.options.label
        if self.options.box is not None:
            yield self._asked_box(found, self.options.box, path)
            return
        rows = (
            torch.arange(len(found)) if label is None else (found.labels == label).nonzero()[:, 0]
        )
        if self.options.region is not None:
            column, row = self.options.region
            try:
                check_pixel(found.size, row, column)
            except DataError as error:
                raise DataError(f"{shown(path)}: {error}") from error
            here = [each for each in rows.tolist() if _covers(found, each, row, column)][:1]
            if not here:
                raise DataError(
                    f"{shown(path)}: no object was found at pixel {column},{row}; name a box to "
                    "ask why not (--box X1,Y1,X2,Y2)"
                )
            rows = torch.tensor(here)
        else:
            likely = rows[found.scores[rows] >= LEAST_SCORE][: self.options.most]
            if label is not None and not len(likely):
                raise DataError(
                    f"{shown(path)}: no object of class {self.model.info.class_names[label]!r} "
                    f"with a score of at least {LEAST_SCORE} was found; name a box to ask why "
                    "not (--box X1,Y1,X2,Y2)"
                )
            rows = likely
        for each in rows.tolist():
            yield _object(found, each)

    def _asked_box(
        self, found: Detections, box: tuple[float, float, float, float], path: Path
    ) -> _Asked:
        """The question about a box, which may be that of an object that was found."""
        checked, label = _checked_box(box, found.size, path), self.options.label
        same = (found.boxes - checked).abs().amax(1) < _SAME
        if label is not None:
            same &= found.labels == label
        if same.any():
            return _object(found, int(same.nonzero()[0]))
        return _Asked(checked, label)

    @torch.no_grad()
    def _clusters(self, batch: Batch) -> HeadClusters | None:
        """The clusters of the head of a detector without boxes."""
        detector = self.task.model
        if not isinstance(detector, Watershed) or detector.head.cluster_logits is None:
            return None
        maps = detector.backbone(batch.images)
        output, found = detector.head(maps), detector.head.attention(maps)
        clusters = output.supervised[detector.head.cluster_logits].float()
        labels, cluster_labels = (
            restore_logits(each.float(), batch.placements[0])[0].argmax(0).to(torch.uint8)
            for each in (output.logits, clusters)
        )
        return head_clusters(labels, cluster_labels, clusters[0], found)


def _object(found: Detections, number: int) -> _Asked:
    """The question why an object was found."""
    return _Asked(found.boxes[number], int(found.labels[number]), number)


def _covers(found: Detections, number: int, row: int, column: int) -> bool:
    """Whether an object covers a pixel: its mask if it has one, else its box."""
    x1, y1, x2, y2 = found.boxes[number].tolist()
    if not (x1 <= column + 0.5 <= x2 and y1 <= row + 0.5 <= y2):
        return False
    return found.masks is None or bool(found.masks[number].decode()[row, column])


def _checked_box(
    box: tuple[float, float, float, float], size: tuple[int, int], path: Path
) -> Tensor:
    """The part of a box inside an image of ``size`` (height, width): (4,).

    Raises:
        DataError: nothing of it is inside, or it has no area.
    """
    height, width = size
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    inside = torch.tensor(box, dtype=torch.float32).clamp_min(0).minimum(limits)
    if not bool((inside[2:] > inside[:2]).all()):
        listed = ",".join(f"{value:g}" for value in box)
        raise DataError(
            f"{shown(path)}: nothing of the box {listed} (x1,y1,x2,y2) is inside the image, which "
            f"has {width} x {height} pixels"
        )
    return inside


def _input_box(box: Tensor, placement: Placement) -> Tensor:
    """A box of the image in pixels of the network's input, which shows all of it: (4,)."""
    rows, columns = (
        inside / outside
        for inside, outside in zip(placement.input_size, placement.image_size, strict=True)
    )
    return box * torch.tensor([columns, rows, columns, rows])
