"""Weights of the classes in a loss, from a recipe and the training images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pacavit.data import DataInfo, ImageSet, LabeledImages, MaskedImages, MaskStatistics
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.recipes.schema import TrainConfig
from pacavit.tasks import Task

__all__ = ["balanced_weights", "median_frequency_weights", "named_weights", "weigh_classes"]


def weigh_classes(task: Task, config: TrainConfig, info: DataInfo, images: ImageSet) -> list[str]:
    """Give a task the weights that ``train.class_weights`` asks for, if it does.

    Args:
        task: of the run.
        config: of the training.
        info: of the data.
        images: the training split.

    Returns:
        A line with the smallest and the largest weight; nothing without weights.

    Raises:
        UnknownNameError: a name is no class.
        RecipeError: the task does not weigh classes, or the images have no labels or masks to
            count.
    """
    wanted = config.class_weights
    if wanted is None:
        return []
    if wanted != "balanced":
        weights = named_weights(wanted, info)
    elif isinstance(images, LabeledImages):
        weights = balanced_weights(images.labels, len(info.class_names))
    elif isinstance(images, MaskedImages):
        weights = median_frequency_weights(images.statistics)
    else:
        raise RecipeError(
            "train.class_weights 'balanced' needs images with class labels or masks; leave it out"
        )
    task.set_class_weights(weights)
    low, high = int(weights.argmin()), int(weights.argmax())
    return [
        f"class weights: {weights[low]:.3g} ({info.class_names[low]}) to {weights[high]:.3g} "
        f"({info.class_names[high]})"
    ]


def named_weights(weights: Mapping[str, float], info: DataInfo) -> Tensor:
    """(classes,) float32: the weight of each class by name, 1 for all others.

    Raises:
        UnknownNameError: a name is no class.
    """
    for name in weights:
        if name not in info.class_names:
            raise UnknownNameError("class", name, info.class_names, "in train.class_weights")
    return torch.tensor([weights.get(name, 1.0) for name in info.class_names])


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """(classes,) float32 weights that make up for different numbers of images.

    - One class per image: images / (classes * images of the class), over the classes that occur, so
      that all have the same total weight, as scikit-learn's "balanced".
    - Several: negatives / positives of each class, the ``pos_weight`` of binary cross-entropy.

    Args:
        labels: (num,) int64, or (num, classes) of 0 and 1.
        num_classes: number of classes. One that does not occur has the weight of a single image.
    """
    if labels.ndim == 1:
        counts = labels.bincount(minlength=num_classes)
        return len(labels) / ((counts > 0).sum() * counts.clamp_min(1)).float()
    positives = labels.sum(0, dtype=torch.int64)
    return (len(labels) - positives) / positives.clamp_min(1).float()


def median_frequency_weights(counts: MaskStatistics) -> Tensor:
    """(classes,) float32: the median frequency of classes by the frequency of each.

    The frequency of a class is its fraction of all pixels of the images that show it. D. Eigen and
    R. Fergus: "Predicting depth, surface normals and semantic labels with a common multi-scale
    convolutional architecture", ICCV 2015. A class without pixels has the weight 1, and is not in
    the median.

    Args:
        counts: of the training masks.
    """
    shown = counts.pixels > 0
    frequency = counts.pixels[shown] / counts.shown_in[shown]
    weights = torch.ones(len(shown))
    weights[shown] = frequency.quantile(0.5) / frequency
    return weights
