"""Images with their true and predicted classes, as pictures of a report."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pacavit.data import MaskInfo
from pacavit.data.formats.image import resize_image
from pacavit.engine.scoring import SplitScore
from pacavit.report.tasks.segmentation.observe import ImageScore, SegmentationObserver
from pacavit.tasks.segmentation.pictures import errors_picture, overlay
from pacavit.tasks.segmentation.preprocess import resize_mask
from pacavit.utils.pictures import base64_text, jpeg_bytes

__all__ = ["MaskExample", "MaskExamples", "pick_examples"]

_MAX_SIDE = 360  # pixels of a picture


@dataclass(frozen=True)
class MaskExample:
    """One image with its classes; pictures are base64 of JPEG files.

    Attributes:
        index: position in the split.
        name: of the image.
        iou: mean over the classes in its truth or its prediction.
        accuracy: fraction of the labeled pixels that are right.
        image: as it is.
        truth: with its true classes in color.
        prediction: with its predicted classes in color.
        errors: with the wrong pixels in red.
    """

    index: int
    name: str
    iou: float
    accuracy: float
    image: str
    truth: str
    prediction: str
    errors: str


@dataclass(frozen=True)
class MaskExamples:
    """Example images of an evaluation.

    Attributes:
        worst: with the lowest IoU, lowest first.
        best: with the highest, highest first.
        others: any, by position.
        colors: RGB of each class, in label order.
    """

    worst: tuple[MaskExample, ...]
    best: tuple[MaskExample, ...]
    others: tuple[MaskExample, ...]
    colors: tuple[tuple[int, int, int], ...]


def pick_examples(
    score: SplitScore, observed: SegmentationObserver, masks: MaskInfo
) -> MaskExamples:
    """The examples of a scored split.

    Args:
        score: the evaluation, with images.
        observed: the observer after all batches.
        masks: colors of the classes.
    """
    scores = {each.position: each for each in observed.scores}
    groups = [
        tuple(_example(score, scores[index], labels, masks) for index, labels in group.items())
        for group in observed.chosen()
    ]
    return MaskExamples(groups[0], groups[1], groups[2], masks.colors)


def _example(score: SplitScore, own: ImageScore, labels: Tensor, masks: MaskInfo) -> MaskExample:
    sample = score.images[own.position]
    image, truth = sample.image.cpu(), sample.target.cpu()
    factor = min(1.0, _MAX_SIDE / max(image.shape[1:]))
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[2] * factor)))
    small = resize_image(image, size)
    truth, labels = resize_mask(truth, size), resize_mask(labels, size)
    pictures = (
        small,
        overlay(small, truth, masks.colors),
        overlay(small, labels, masks.colors),
        errors_picture(small, labels, truth),
    )
    texts = (base64_text(jpeg_bytes(picture)) for picture in pictures)
    name = score.image_name(own.position)
    return MaskExample(own.position, name, own.iou, own.accuracy, *texts)
