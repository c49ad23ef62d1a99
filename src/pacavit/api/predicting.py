"""Predict images with a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from pacavit.api._images import find_images
from pacavit.engine.ensemble import load_predictor
from pacavit.engine.predictor import ImageInput, decode_input
from pacavit.engine.system import pick_device
from pacavit.engine.test_time import check_tta
from pacavit.errors import PacavitError
from pacavit.tasks import TaskPrediction
from pacavit.tasks.detection import DetectionTask, ImageDetections
from pacavit.utils.text import shown

__all__ = ["predict"]

_MANY = 20  # with more images than this, waiting is worth a progress bar


def predict(
    model: str | Path | Sequence[str | Path],
    images: ImageInput | Iterable[ImageInput],
    *,
    top_k: int = 5,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    batch_size: int = 16,
    tta: str | None = None,
    precision: str = "fp32",
    score: float | None = None,
    progress: bool = False,
) -> list[TaskPrediction]:
    """Predict each image: its most probable classes, the class of each pixel, or its objects.

    Args:
        model: run folder, weights file or packaged name; or several, as an ensemble, whose
            probabilities are averaged.
        images: one image, or several of any kind: a path of an image file of any size and mode, or
            of a folder of them; the bytes of a file; a PIL image; a uint8 array (H, W, 3) or
            (H, W); a uint8 tensor (3, H, W).
        top_k: number of classes to return; all of them if there are fewer.
        out: where to write the predictions as well: for classifiers a table in ``.csv`` or
            ``.parquet``, or ``.json``; for segmentation a folder, which gets pictures of the
            classes of all pixels; for detection a folder, which gets pictures of the objects, and
            ``predictions.json`` in COCO's result format.
        overwrite: replace what is there.
        device: where to compute: "auto", "cpu", "cuda", "cuda:1" and so on.
        batch_size: number of images that the network gets at once.
        tta: name of a test-time augmentation: "flip" averages the probabilities of each image and
            its mirror image.
        precision: "fp32", whose results agree to 1e-4 with the trained network's; "bf16", which is
            faster where the processor computes with it; "auto": bf16 there, if its outputs for the
            first images agree with those of fp32 to 3 %, else fp32.
        score: of detectors, the least score of the objects that are printed and drawn; by default
            0.5. The prediction itself and ``predictions.json`` have all.
        progress: show a progress bar when there are many images.

    Returns:
        One record per image, in order: an ``ImagePrediction`` if the model is a classifier, an
        ``ImageSegmentation`` if it segments, an ``ImageDetections`` if it finds objects. An image
        that cannot be read has its ``error`` set. The ``path`` of an image without one is
        ``image N``, its position.

    Raises:
        PacavitError: the model cannot be loaded, a folder has no images, an option does not fit, or
            the file cannot be written.
    """
    for name, value in (("top_k", top_k), ("batch_size", batch_size)):
        if value < 1:
            raise PacavitError(f"{name.replace('_', ' ')} must be at least 1, not {value}")
    if score is not None and not 0 <= score <= 1:
        raise PacavitError(f"score must be in 0..1, not {score}")
    check_tta(tta)
    picked = pick_device(device, option="device")
    sources = _sources(images, progress=progress)
    predictor = load_predictor(
        model,
        picked,
        batch_size=batch_size,
        tta=tta,
        precision=precision,
        examples=sources[:batch_size],
    )
    loaded = predictor.model
    if score is not None and not isinstance(loaded.task, DetectionTask):
        raise PacavitError(
            f"a least score is for detectors; {shown(str(model))} is of the task "
            f"{loaded.recipe.task.name!r}"
        )
    writer = None
    if out is not None:
        # Reports draw pictures, with libraries that a prediction alone does not need.
        from pacavit.report.tasks import report_of

        report = report_of(loaded.recipe.task.name)
        writer = report.prediction_writer(Path(out), loaded.info, overwrite=overwrite)
    found = track(
        predictor.stream(sources),
        description="predicting",
        total=len(sources),
        console=Console(stderr=True),
        disable=not progress or len(sources) <= _MANY,
    )
    predictions = []
    for source, each in zip(sources, found, strict=True):
        made = loaded.task.prediction(each.source, each.record, each.error, loaded.info, top_k)
        if isinstance(made, ImageDetections) and score is not None:
            made = replace(made, min_score=score)
        predictions.append(made)
        if writer is not None:
            writer.add(made, partial(decode_input, source, shown(each.source)))
    if writer is not None:
        writer.finish()
    return predictions


def _sources(images: ImageInput | Iterable[ImageInput], *, progress: bool) -> list[ImageInput]:
    """The images, with the files in them instead of folders."""
    if isinstance(images, str | Path | bytes | np.ndarray | Image.Image | Tensor):
        images = [images]
    given = list(images)
    paths = [each for each in given if isinstance(each, str | Path)]
    if len(paths) == len(given):
        return [*find_images(paths, progress=progress)]
    sources: list[ImageInput] = []
    for each in given:
        if isinstance(each, str | Path):
            sources += find_images(each, progress=progress)
        else:
            sources.append(each)
    return sources
