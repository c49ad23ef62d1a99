"""Images with their objects and detections, as pictures of a report."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from pacavit.data import DataInfo, Objects
from pacavit.engine.scoring import SplitScore
from pacavit.errors import DataError
from pacavit.report.tasks.detection.observe import DetectionObserver, ImageResult, Level
from pacavit.tasks.detection.confusion import IN_CROWD, NO_OBJECT
from pacavit.tasks.detection.pictures import (
    Color,
    Mark,
    Style,
    detection_marks,
    draw_marks,
    object_marks,
)
from pacavit.utils.pictures import base64_text, jpeg_bytes

__all__ = [
    "KINDS",
    "THRESHOLD",
    "ObjectExample",
    "ObjectExamples",
    "compared_marks",
    "pick_examples",
]

THRESHOLD = "best_F1_threshold"
"""Name of the score: the least score of the detections that are counted and drawn."""

_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SIDE = 480  # pixels of the longer side of a picture

KINDS: dict[str, tuple[Color, Style]] = {
    "hit": ((86, 180, 233), "solid"),
    "miss": ((240, 228, 66), "dashed"),
    "false alarm": ((213, 94, 0), "dotted"),
}
"""Color and line of objects that are found, of those that are not, and of other detections.

Colors are of Okabe and Ito's palette, which the color-blind can tell apart.
"""


@dataclass(frozen=True)
class ObjectExample:
    """One image with its objects; pictures are base64 of JPEG files.

    Attributes:
        index: position in the split.
        name: of the image.
        f1: harmonic mean of precision and recall.
        hits: objects that are found.
        misses: objects that are not.
        false_alarms: detections that find nothing.
        truth: the image with its objects.
        prediction: the image with its detections.
        compared: the image with hits, misses and false alarms.
    """

    index: int
    name: str
    f1: float
    hits: int
    misses: int
    false_alarms: int
    truth: str
    prediction: str
    compared: str


@dataclass(frozen=True)
class ObjectExamples:
    """Example images of an evaluation.

    Attributes:
        score: the least score of the detections that are drawn and counted.
        levels: precision and recall at some scores.
        worst: with the lowest F1, lowest first.
        best: with the highest, highest first.
        others: any, by position.
        colors: RGB of each class, in label order.
    """

    score: float
    levels: tuple[Level, ...]
    worst: tuple[ObjectExample, ...]
    best: tuple[ObjectExample, ...]
    others: tuple[ObjectExample, ...]
    colors: tuple[Color, ...]


def pick_examples(score: SplitScore, observed: DetectionObserver) -> ObjectExamples:
    """The examples of a scored split; images that cannot be read are left out.

    Args:
        score: the evaluation, with images.
        observed: the observer after all batches.
    """
    assert score.info.objects is not None
    limit = score.evaluation.scores[THRESHOLD]
    groups = []
    for results in observed.chosen(limit):
        made = (_example(score, result, limit) for result in results)
        groups.append(tuple(each for each in made if each is not None))
    levels = tuple(observed.level(each) for each in _LEVELS)
    return ObjectExamples(limit, levels, groups[0], groups[1], groups[2], score.info.objects.colors)


def _example(score: SplitScore, result: ImageResult, limit: float) -> ObjectExample | None:
    try:
        sample = score.images[result.position]
    except DataError:
        return None  # predictions of a file are measured without the images
    image: Tensor = sample.image
    truth: Objects = sample.target
    pictures = (
        draw_marks(image, object_marks(truth, score.info), _SIDE),
        draw_marks(image, detection_marks(result.found.above(limit), score.info), _SIDE),
        draw_marks(image, compared_marks(result, truth, score.info, limit), _SIDE),
    )
    texts = (base64_text(jpeg_bytes(picture)) for picture in pictures)
    counts = result.counts(limit)
    name = score.image_name(result.position)
    return ObjectExample(result.position, name, counts.f1, *counts, *texts)


def compared_marks(result: ImageResult, truth: Objects, info: DataInfo, limit: float) -> list[Mark]:
    """Hits, misses and false alarms of the detections with at least a score."""
    found = result.found.above(limit)
    places = result.hits[: len(found)].tolist()
    marks = {kind: list[Mark]() for kind in KINDS}
    for mark, place in zip(detection_marks(found, info), places, strict=True):
        if place != IN_CROWD:
            kind = "false alarm" if place == NO_OBJECT else "hit"
            marks[kind].append(_of_kind(kind, mark))
    for place, mark in enumerate(object_marks(truth, info)):
        if place not in places and not truth.crowd[place]:
            marks["miss"].append(_of_kind("miss", mark))
    # The names of mistakes come first, where there is no room for all names.
    return [*marks["false alarm"], *marks["miss"], *marks["hit"]]


def _of_kind(kind: str, mark: Mark) -> Mark:
    color, style = KINDS[kind]
    return replace(mark, color=color, style=style)
