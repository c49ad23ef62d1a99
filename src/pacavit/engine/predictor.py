"""Image files in, likeliest classes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from pacavit.data import SampleRandom
from pacavit.data.formats.image import read_image
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import CheckpointError, DataError

__all__ = ["ClassProbability", "ImagePrediction", "predict_images"]

_BATCH_SIZE = 16  # the progress bar moves once a batch
_MANY = 20  # with more images than this, waiting is worth a progress bar


class ClassProbability(NamedTuple):
    """A class and how likely it is, 0..1."""

    name: str
    probability: float


@dataclass(frozen=True)
class ImagePrediction:
    """What a model says of one image.

    Attributes:
        path: the image file.
        top: the likeliest classes, likeliest first; empty if there was an error.
        error: why the image could not be read, in one line; None if it could.
    """

    path: Path
    top: tuple[ClassProbability, ...]
    error: str | None = None


def predict_images(
    model: LoadedModel,
    paths: Sequence[Path],
    *,
    top_k: int = 5,
    device: torch.device,
    progress: bool = False,
) -> list[ImagePrediction]:
    """The likeliest classes of image files of any size and mode, in the order of the paths.

    A file that cannot be read does not stop the others: its prediction carries the error.

    Args:
        model: as loaded by ``load_model``; its task moves to ``device``.
        paths: image files.
        top_k: classes to name an image; all of them when there are fewer.
        device: where to compute.
        progress: show a progress bar on stderr when there are many images.

    Raises:
        CheckpointError: the model is no classifier, or answers with what is not a number.
    """
    model.classifier.to(device)
    starts = track(
        range(0, len(paths), _BATCH_SIZE),
        description="predicting",
        console=Console(stderr=True),
        disable=not progress or len(paths) <= _MANY,
    )
    return [
        prediction
        for start in starts
        for prediction in _predict_batch(model, paths[start : start + _BATCH_SIZE], top_k, device)
    ]


def _predict_batch(
    model: LoadedModel, paths: Sequence[Path], top_k: int, device: torch.device
) -> list[ImagePrediction]:
    transform = model.task.eval_transform(model.info, model.recipe.task.image_size)
    framing = model.task.eval_framing(model.recipe.task, model.info)
    no_draws = SampleRandom(seed=0, epoch=0, indices=torch.zeros(1, dtype=torch.int64))
    images: dict[int, Tensor] = {}
    errors: dict[int, str] = {}
    for position, path in enumerate(paths):
        try:
            pixels = read_image(path)
        except DataError as error:
            errors[position] = str(error)
        else:
            if framing is not None:
                pixels = framing(pixels, no_draws)
            images[position] = transform(pixels[None])  # one by one: their sizes differ
    top: dict[int, tuple[ClassProbability, ...]] = {}
    if images:
        names = model.info.class_names
        batch = torch.cat(list(images.values())).to(device)
        probabilities = model.classifier.predict(batch).probabilities
        if not probabilities.isfinite().all():
            raise CheckpointError(
                f"{model.path} answers {paths[next(iter(images))]} or an image near it with "
                "probabilities that are not numbers; take weights of an earlier checkpoint"
            )
        values, labels = probabilities.topk(min(top_k, len(names)))
        rows = zip(images, values.tolist(), labels.tolist(), strict=True)
        for position, row_values, row_labels in rows:
            pairs = zip(row_labels, row_values, strict=True)
            top[position] = tuple(ClassProbability(names[label], value) for label, value in pairs)
    return [
        ImagePrediction(path, top.get(position, ()), errors.get(position))
        for position, path in enumerate(paths)
    ]
