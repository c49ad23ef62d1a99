"""Explanations of images as JSON with pictures, and as single pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pacavit.explain import (
    DetectionExplanation,
    ExplainOptions,
    Explanation,
    ImageExplanation,
    SegmentationExplanation,
    explainer_of,
    find_class,
    mask_area,
    restored_mask,
)
from pacavit.explain.render import display_size, heatmap_picture, thumbnail
from pacavit.explain.render_detection import box_picture
from pacavit.explain.render_segmentation import region_picture
from pacavit.serve.models import Weights
from pacavit.serve.refusals import Refusal
from pacavit.utils.pictures import base64_text, gray_png_bytes, png_bytes

__all__ = ["PICTURES", "Picture", "Question", "explain_image"]

Picture = Literal["overlay", "map", "mask"]
PICTURES: tuple[Picture, ...] = get_args(Picture)


@dataclass(frozen=True)
class Question:
    """What a request asks about an image.

    Attributes:
        label: name or index of the class; None: what the model predicts.
        method: registered name; None: the default of ``pacavit explain``.
        stage: whose clusters make the map; None: the last with clusters.
        region: x, y in pixels: the region or the object there.
        box: x1, y1, x2, y2 in pixels: the object there, or why there is none.
        threshold: of the mask, see ``binary_mask``.
        pictures: to return.
        number: which one to return alone as PNG, from 1; None: all of them in JSON.
    """

    label: str | None = None
    method: str | None = None
    stage: int | None = None
    region: tuple[int, int] | None = None
    box: tuple[float, float, float, float] | None = None
    threshold: str = "otsu"
    pictures: tuple[Picture, ...] = PICTURES
    number: int | None = None


@dataclass(frozen=True)
class _Answer:
    """The map of a class, a region or an object.

    Attributes:
        facts: about it, for JSON.
        heatmap: (H, W) of the image, >= 0, NaN where the image was cropped.
        overlay: the map over the image, (3, h, w) uint8 of the size of a display.
    """

    facts: Mapping[str, Any]
    heatmap: Tensor
    overlay: Tensor


def explain_image(weights: Weights, data: bytes, name: str, question: Question) -> Any:
    """The explanation of an image file, ready for JSON; the bytes of a PNG if one picture is asked.

    No prediction may be computed meanwhile: methods register hooks in the network.

    Raises:
        PacavitError: the image cannot be read, or the question does not fit the model.
        Refusal: there is no explanation of that number.
    """
    model = weights.model
    label = None if question.label is None else find_class(question.label, model.info)
    options = ExplainOptions(
        label,
        question.method,
        question.stage,
        region=question.region,
        box=question.box,
    )
    explainer = explainer_of(model)(model, options, weights.predictor.device)
    image = weights.decoded(data, name, still=True)
    weights.job(image, name)  # refuses what would be too large
    explanation: Explanation = explainer(image, Path(name))
    answers = list(_answers(explanation))
    if question.number is None:
        return {
            "path": name,
            "method": explanation.choice.methods[0],
            "note": explanation.choice.note,
            **_predicted(explanation),
            "explanations": [_to_json(explanation, each, question) for each in answers],
        }
    if not 1 <= question.number <= len(answers):
        raise Refusal(
            400,
            f"there is no explanation {question.number} of {name}; there are {len(answers)}",
        )
    answer = answers[question.number - 1]
    return _picture(explanation, answer, question.pictures[0], question.threshold)


def _answers(explanation: Explanation) -> Iterator[_Answer]:
    """What is explained: a class, regions or objects."""
    placement = explanation.placement
    if isinstance(explanation, ImageExplanation):
        size = display_size(placement.image_size)
        method = next(iter(explanation.maps))
        shown = placement.resized(size).restore(explanation.maps[method])
        yield _Answer(
            {
                "class": explanation.explained.name,
                "probability": round(explanation.explained.probability, 6),
            },
            explanation.restored(method),
            heatmap_picture(thumbnail(explanation.image, size), shown),
        )
    elif isinstance(explanation, SegmentationExplanation):
        for region in explanation.regions:
            facts = {
                "class": explanation.names[region.label],
                "probability": round(region.probability, 6),
                "area": round(region.area, 6),
                "agreement": round(region.agreement, 6),
            }
            heatmap = placement.restore(region.map).clamp(min=0)
            yield _Answer(facts, heatmap, region_picture(explanation, region))
    elif isinstance(explanation, DetectionExplanation):
        for box in explanation.boxes:
            facts = {
                "class": explanation.names[box.label],
                "score": None if box.score is None else round(box.score, 6),
                "logit": round(box.logit, 6),
                "box": [round(value, 2) for value in box.box],
            }
            heatmap = placement.restore(box.map).clamp(min=0)
            yield _Answer(facts, heatmap, box_picture(explanation, box))


def _predicted(explanation: Explanation) -> Mapping[str, Any]:
    """The prediction of a classifier; those of other tasks are in each explanation."""
    if not isinstance(explanation, ImageExplanation):
        return {}
    top = [
        {"class": name, "probability": round(probability, 6)}
        for name, probability in explanation.top
    ]
    return {"top": top}


def _to_json(explanation: Explanation, answer: _Answer, question: Question) -> Mapping[str, Any]:
    mask = restored_mask(answer.heatmap, explanation.placement, question.threshold)
    pictures: dict[str, str] = {
        name: base64_text(_picture(explanation, answer, name, question.threshold))
        for name in question.pictures
    }
    area = round(mask_area(mask, explanation.placement), 4)
    return {**answer.facts, "mask_area": area, **pictures}


def _picture(explanation: Explanation, answer: _Answer, name: Picture, threshold: str) -> bytes:
    """A picture as the bytes of a PNG file; maps and masks have the size of the image."""
    if name == "overlay":
        return png_bytes(answer.overlay)
    if name == "mask":
        return png_bytes(restored_mask(answer.heatmap, explanation.placement, threshold))
    values = answer.heatmap.nan_to_num().clamp(min=0)
    relative = values / values.max().clamp(min=torch.finfo(values.dtype).tiny)
    return gray_png_bytes(relative.mul(255).round().to(torch.uint8))
