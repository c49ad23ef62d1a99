"""Accuracy on corrupted images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.progress import track

from pacavit.data import LabeledImages
from pacavit.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt_images
from pacavit.engine import build
from pacavit.engine.evaluate import measure
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import CheckpointError, UnknownNameError
from pacavit.tasks.classification import ClassificationTask

__all__ = ["check_corruptions", "check_robustness_model", "measure_corruptions"]


def check_corruptions(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names of corruptions, from a list, a list in one string with commas, or "all".

    Raises:
        UnknownNameError: there is no such corruption.
    """
    given = names.split(",") if isinstance(names, str) else names
    chosen = tuple(dict.fromkeys(name.strip() for name in given))
    if chosen == ("all",):
        return CORRUPTIONS
    for name in chosen:
        if name not in CORRUPTIONS:
            raise UnknownNameError("corruption", name, ("all", *CORRUPTIONS))
    return chosen


def check_robustness_model(model: LoadedModel) -> None:
    """Raise CheckpointError unless a model gives each image one class."""
    if not isinstance(model.task, ClassificationTask):
        raise CheckpointError(
            f"{model.path} was trained for the task {model.recipe.task.name!r}; accuracy on "
            "corrupted images is measured for the task 'classification'"
        )


def measure_corruptions(
    model: LoadedModel,
    images: LabeledImages,
    names: Sequence[str],
    device: torch.device,
    *,
    progress: bool = False,
) -> dict[str, tuple[float, ...]]:
    """The accuracy of a classifier on corrupted images, by kind, at severities 1 to 5.

    Args:
        model: of a classification task, see :func:`check_robustness_model`; on ``device``.
        images: of the split, as they are stored.
        names: of corruptions.
        device: where to compute.
        progress: show a progress bar.
    """
    pairs = [(name, severity) for name in names for severity in SEVERITIES]
    found: dict[str, list[float]] = {name: [] for name in names}
    for name, severity in track(pairs, "corruptions", disable=not progress, transient=True):
        changed = corrupt_images(images, name, severity)
        loader = build.eval_loader(model.recipe, changed, model.info)
        found[name].append(measure(model.task, loader, device).scalars()["accuracy"])
    return {name: tuple(values) for name, values in found.items()}
