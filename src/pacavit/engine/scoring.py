"""A trained model on a split of its data: what evaluation and packaging share."""

from __future__ import annotations

from pathlib import Path

import torch

from pacavit.data import DataInfo, ImageSet, Split
from pacavit.engine import build
from pacavit.engine.evaluate import Evaluation, evaluate
from pacavit.engine.weights import LoadedModel
from pacavit.errors import DataError

__all__ = ["score_model"]


def score_model(
    model: LoadedModel,
    split: Split,
    *,
    root: Path | None = None,
    device: torch.device,
    progress: bool = False,
) -> tuple[Evaluation, DataInfo, ImageSet]:
    """Measure a loaded model on a split; also returns the facts of the data, and its images.

    Args:
        model: its recipe names the data set.
        split: which images.
        root: folder with the data, instead of the recipe's.
        device: where to compute.
        progress: show a progress bar.

    Raises:
        CheckpointError: the model is no classifier.
        DataError: the data are missing or broken, or their classes are not those of the model.
    """
    config = model.recipe.data
    if root is not None:
        config = config.model_copy(update={"root": root})
    source = build.data_source(config)
    if source.info.class_names != model.info.class_names:
        raise DataError(
            f"{source.info.copy} has other classes than {model.info.copy}, "
            "on which the model was trained"
        )
    images = build.image_set(source, split, device)
    loader = build.eval_loader(model.recipe, images, model.info)
    evaluation = evaluate(
        model.classifier, loader, model.info.class_names, device=device, progress=progress
    )
    return evaluation, source.info, images
