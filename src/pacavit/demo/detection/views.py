"""HTML fragments and pictures of the demo for detectors."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from pacavit.demo.detection.detected import Detected
from pacavit.demo.views import WEIGHTS, Figure, jpeg, legend_colors, render
from pacavit.explain.render_detection import box_picture, cluster_picture
from pacavit.tasks.detection import ImageDetections
from pacavit.tasks.detection.pictures import Mark, Style, detection_marks, draw_marks
from pacavit.utils.pictures import pillow_image

__all__ = ["choices", "clusters", "objects", "picture", "why"]

_ROWS = 100
_CHOSEN = (255, 255, 255)


def picture(detected: Detected, min_score: float) -> Image.Image:
    """The image with all objects of at least a score; the one that is explained is white."""
    explanation, chosen = detected.explanation, detected.chosen
    found = explanation.detections
    marks = dict(enumerate(detection_marks(found.above(min_score), explanation.info)))
    if chosen is not None:
        name = explanation.names[chosen.label]
        text = f"{name}?" if chosen.score is None else f"{name} {chosen.score:.2f}"
        style: Style = "dashed" if chosen.score is None else "solid"
        own = Mark(chosen.box, _CHOSEN, text, style)
        if chosen.number is not None and (drawn := marks.pop(chosen.number, None)) is not None:
            own = replace(own, mask=drawn.mask)
        marks = {-1: own, **marks}
    return pillow_image(draw_marks(explanation.image, list(marks.values()), max(detected.size)))


def choices(detected: Detected, min_score: float) -> list[tuple[str, int]]:
    """Labels and numbers of the objects of at least a score."""
    found = detected.explanation.detections.above(min_score)
    return [
        (f"{number + 1}: {detected.classes[label]} {score:.2f}", number)
        for number, (label, score) in enumerate(
            zip(found.labels.tolist(), found.scores.tolist(), strict=True)
        )
    ]


def objects(detected: Detected, min_score: float) -> str:
    """A table of the objects of at least a score, with classes, scores, places and areas."""
    explanation = detected.explanation
    assert explanation.info.objects is not None
    found = explanation.detections
    listed = ImageDetections.of(
        explanation.path, found.above(min_score), None, explanation.info
    ).objects
    colors = dict(zip(detected.classes, explanation.info.objects.colors, strict=True))
    rows = [
        {
            "number": number,
            "name": each.name,
            "color": _css(colors[each.name]),
            "score": each.score,
            "box": [round(value) for value in each.box],
            "area": round(each.area),
            "chosen": detected.chosen is not None and detected.chosen.number == number - 1,
        }
        for number, each in enumerate(listed[:_ROWS], 1)
    ]
    values = {
        "rows": rows,
        "more": len(listed) - len(rows),
        "below": len(found) - len(listed),
        "min_score": min_score,
        "highest": float(found.scores[0]) if len(found) else None,
    }
    return render("objects.html", values)


def why(detected: Detected) -> str:
    """The map of the object that is explained, with its class and numbers."""
    explanation, chosen = detected.explanation, detected.chosen
    if chosen is None:
        return ""
    name = detected.classes[chosen.label]
    figure = Figure(
        jpeg(box_picture(explanation, chosen)),
        f"evidence for {name} in the box",
        f"by {explanation.title()}",
    )
    values = {
        "name": name,
        "score": chosen.score,
        "logit": chosen.logit,
        "one": figure,
        "legend": legend_colors(),
        "note": explanation.choice.note,
    }
    return render("object.html", values)


def clusters(detected: Detected) -> str:
    """The heatmaps of the clusters of the head."""
    explanation, found = detected.explanation, detected.explanation.clusters
    figures = []
    if found is not None:
        figures = [
            Figure(
                jpeg(cluster_picture(explanation, found.weights[number])),
                f"cluster of the {name}",
                name,
                f"probability up to {float(found.probabilities[number].max()):.0%}",
            )
            for number, name in enumerate(explanation.cluster_names)
        ]
    values = {
        "model": detected.model,
        "alone": None,
        "figures": figures,
        "note": f"{WEIGHTS}.",
    }
    return render("head_clusters.html", values)


def _css(color: tuple[int, int, int]) -> str:
    red, green, blue = color
    return f"rgb({red} {green} {blue})"
