"""A trained model on a split of its data: what evaluation, reports and packaging share."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.data import Batch, DataInfo, ImageSet, Split
from pacavit.engine import build
from pacavit.engine.evaluate import Evaluation, evaluate
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import DataError
from pacavit.tasks.classification import Prediction

__all__ = ["SplitScore", "TopClasses", "check_classes", "score_model"]

_TOP = 3  # classes remembered of every image


class TopClasses(NamedTuple):
    """What a classifier says of each of N images, in stored order; on the CPU.

    Attributes:
        indices: (N,) int64, their positions in the split.
        labels: (N,) int64, the true classes.
        true_probabilities: (N,) of the true classes.
        classes: (N, k) int64, the likeliest classes, likeliest first.
        probabilities: (N, k) of these.
    """

    indices: Tensor
    labels: Tensor
    true_probabilities: Tensor
    classes: Tensor
    probabilities: Tensor


class SplitScore(NamedTuple):
    """A model's answers for a split.

    Attributes:
        evaluation: the scores.
        top: the likeliest classes of each image.
        images: that were scored.
        info: facts of the data they come from.
        note: lines on files that were skipped, and on data other than those of the training.
    """

    evaluation: Evaluation
    top: TopClasses
    images: ImageSet
    info: DataInfo
    note: str | None


def score_model(
    model: LoadedModel,
    split: Split,
    *,
    root: Path | None = None,
    device: torch.device,
    progress: bool = False,
) -> SplitScore:
    """Measure a loaded model on a split.

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
    source = build.data_source(config, model.info.class_names)
    check_classes(source.info, model.info)
    images = build.image_set(source, split, device)
    parts: list[TopClasses] = []
    evaluation = evaluate(
        model.classifier,
        build.eval_loader(model.recipe, images, model.info),
        model.info.class_names,
        device=device,
        watch=lambda prediction, batch: parts.append(_top_classes(prediction, batch)),
        progress=progress,
    )
    top = TopClasses(*(torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True)))
    other = _other_data(source.info, model.info, split, len(images))
    note = "\n".join(filter(None, (source.note, other))) or None
    return SplitScore(evaluation, top, images, source.info, note)


def check_classes(data: DataInfo, trained: DataInfo) -> None:
    """Raise DataError unless the data have the classes that a model was trained on."""
    found, known = data.class_names, trained.class_names
    if found == known:
        return
    if len(found) != len(known):
        what = f"{len(found)} classes, and the model knows {len(known)}"
    else:
        first = next(i for i, pair in enumerate(zip(found, known, strict=True)) if len({*pair}) > 1)
        what = f"class {first} named {found[first]!r}, which the model knows as {known[first]!r}"
    raise DataError(
        f"{data.copy} has {what}; give the data that the model was trained on: {trained.copy}"
    )


def _other_data(data: DataInfo, trained: DataInfo, split: Split, num: int) -> str | None:
    """A line, where splits of other data may hold images that a model was trained on."""
    if data.copy == trained.copy:
        return None
    return (
        f"note: these are the {num:,} images of the {split} split of {data.copy}; the model was "
        f"trained on {trained.copy}, and images that it has seen may be among them"
    )


def _top_classes(prediction: Prediction, batch: Batch) -> TopClasses:
    probabilities, labels = prediction.probabilities, batch.labels
    values, classes = probabilities.topk(min(_TOP, probabilities.shape[1]))
    true_probabilities = probabilities.gather(1, labels[:, None])[:, 0]
    return TopClasses(batch.indices, labels, true_probabilities, classes, values)
