"""Predict what images show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pacavit.engine.predictor import ImagePrediction, find_images, predict_images
from pacavit.engine.system import pick_device
from pacavit.engine.weights.load import load_model

__all__ = ["predict"]


def predict(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top_k: int = 5,
    progress: bool = False,
) -> list[ImagePrediction]:
    """Name what images show: the ``top_k`` likeliest classes of each, with probabilities.

    Args:
        model: run folder, weights file or packaged name.
        images: image files of any size and mode, or folders of them; one, or several.
        top_k: classes to name; all of them when there are fewer.
        progress: show a progress bar when there are many images.

    Returns:
        One prediction an image, in order; an image that cannot be read has its ``error`` set.

    Raises:
        PacavitError: the model cannot be loaded, or a folder has no images.
    """
    paths = find_images([images] if isinstance(images, str | Path) else images)
    loaded = load_model(model)
    return predict_images(loaded, paths, top_k=top_k, device=pick_device("auto"), progress=progress)
