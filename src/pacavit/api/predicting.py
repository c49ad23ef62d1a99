"""Predict images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from pacavit.api._images import find_images
from pacavit.engine.ensemble import load_predictor
from pacavit.engine.system import pick_device
from pacavit.tasks import TaskPrediction

__all__ = ["predict"]

_MANY = 20  # with more images than this, waiting is worth a progress bar


def predict(
    model: str | Path | Sequence[str | Path],
    images: str | Path | Sequence[str | Path],
    *,
    top_k: int = 5,
    tta: str | None = None,
    progress: bool = False,
) -> list[TaskPrediction]:
    """Predict each image; a classifier returns the ``top_k`` most probable classes.

    Args:
        model: run folder, weights file or packaged name; or several, as an ensemble, whose
            probabilities are averaged.
        images: image files of any size and mode, or folders of them; one, or several.
        top_k: number of classes to return; all of them if there are fewer.
        tta: name of a test-time augmentation: "flip" averages the probabilities of each image and
            its mirror image.
        progress: show a progress bar when there are many images.

    Returns:
        One record per image, in order; an ``ImagePrediction`` if the model is a classifier. An
        image that cannot be read has its ``error`` set.

    Raises:
        PacavitError: the model cannot be loaded, or a folder has no images.
    """
    paths = find_images(images, progress=progress)
    predictor = load_predictor(model, pick_device("auto"), tta=tta)
    loaded = predictor.model
    found = track(
        predictor.stream(paths),
        description="predicting",
        total=len(paths),
        console=Console(stderr=True),
        disable=not progress or len(paths) <= _MANY,
    )
    return [
        loaded.task.prediction(each.source, each.record, each.error, loaded.info, top_k)
        for each in found
    ]
