"""Explain image files with a trained model of any task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from pacavit.data import read_image
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import DataError
from pacavit.explain.classification import ClassificationExplainer
from pacavit.explain.explainer import (
    EXPLAINERS,
    Explainer,
    ExplainOptions,
    Explanation,
    FailedImage,
)
from pacavit.utils.text import shown

__all__ = ["explain_images", "explainer_of"]


def explain_images(
    model: LoadedModel,
    paths: Sequence[Path],
    *,
    label: int | None = None,
    method: str | None = None,
    stage: int | None = None,
    measured: Path | None = None,
    region: tuple[int, int] | None = None,
    mask: Path | None = None,
    box: tuple[float, float, float, float] | None = None,
    device: torch.device,
    progress: bool = False,
) -> Iterator[Explanation | FailedImage]:
    """Explain image files of any size and mode, in the order of the paths.

    A file that cannot be read becomes a :class:`FailedImage`; the others are explained.

    Args:
        model: as loaded by ``load_model``; its task moves to ``device``.
        paths: image files.
        label: index of the class to explain; None is each image's top-1 class, for segmentation
            the largest classes in the image, for detection the objects with the highest scores.
        method: registered name; None is what ``choose_maps`` chooses.
        stage: whose clusters make the map; None is the last stage with clusters.
        measured: a folder of ``pacavit explain-evaluate``, see ``choose_maps``; ignored if there is
            a method.
        region: (x, y) in pixels of the images: explain the region of one class that is connected
            with this pixel (segmentation), or the object there (detection).
        mask: file with a mask of the size of the images, for segmentation: explain the region where
            it is not 0.
        box: x1, y1, x2, y2 in pixels of the images, for detection: explain why there is an object,
            or why not.
        device: where to compute.
        progress: show a progress bar on stderr; for a single image, a status line.

    Returns:
        An ``ImageExplanation``, a ``SegmentationExplanation`` or a ``DetectionExplanation`` per
        image, by the model's task.

    Raises:
        UnknownNameError: there is no such method, or it has no option ``stage``.
        PacavitError: the method cannot explain this model, the model's task cannot be explained, or
            an option does not fit the task.
    """
    options = ExplainOptions(label, method, stage, measured, region, mask, box)
    return _explain_each(paths, explainer_of(model)(model, options, device), progress)


def explainer_of(model: LoadedModel) -> type[Explainer[Any]]:
    """The explainer of a model's task; tasks without one of their own have to classify images."""
    name = model.recipe.task.name
    return EXPLAINERS.get(name) if name in EXPLAINERS else ClassificationExplainer


def _explain_each(
    paths: Sequence[Path], explainer: Explainer[Explanation], progress: bool
) -> Iterator[Explanation | FailedImage]:
    with _watched(paths, progress) as watched:
        for path in watched:
            try:
                explanation = explainer(read_image(path, still=True), path)
            except DataError as error:
                yield FailedImage(path, str(error))
                continue
            yield explanation


@contextmanager
def _watched(paths: Sequence[Path], progress: bool) -> Iterator[Iterable[Path]]:
    """The paths, with a progress bar on stderr, or a status line for a single one."""
    console = Console(stderr=True)
    if not progress:
        yield paths
    elif len(paths) == 1:
        with console.status(Text(f"explaining {shown(paths[0].name)}")):
            yield paths
    else:
        with Progress(console=console) as bar:
            yield bar.track(paths, description="explaining")
