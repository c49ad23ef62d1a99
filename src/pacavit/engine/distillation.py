"""Knowledge distillation: a trained network whose answers a training imitates.

Hinton et al., "Distilling the knowledge in a neural network", 2015; hard targets as in Touvron et
al., "Training data-efficient image transformers" (DeiT), 2021.
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.data import DataInfo
from pacavit.engine.weights.foreign import TIMM, imagenet_classes, read_foreign
from pacavit.engine.weights.load import load_network
from pacavit.errors import RecipeError
from pacavit.layers import evaluation_mode
from pacavit.recipes.schema import Recipe
from pacavit.tasks import TASKS, ImageClassifier
from pacavit.tasks.classification import Distiller
from pacavit.utils.text import first_few

__all__ = ["Teacher", "load_distiller"]


class Teacher:
    """A frozen classifier that scores the images of a training as its own would be prepared.

    Args:
        network: (B, 3, height, width) -> (B, its classes) logits.
        own: mean, standard deviation and (height, width) of its images.
        given: facts of the images that it will get.
        order: positions of the training's classes among its own.
    """

    def __init__(self, network: nn.Module, own: DataInfo, given: DataInfo, order: Tensor) -> None:
        self.network = network.requires_grad_(False)
        self.size, self.order = own.image_size, order
        channels = torch.tensor([own.mean, own.std, given.mean, given.std])[..., None, None]
        mean, std, given_mean, given_std = channels
        self.scale, self.shift = given_std / std, (given_mean - mean) / std

    def to(self, device: torch.device) -> Teacher:
        """The same on a device."""
        self.network.to(device).to(memory_format=torch.channels_last)
        self.order, self.scale, self.shift = (
            value.to(device) for value in (self.order, self.scale, self.shift)
        )
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) normalized images -> (B, classes) logits, without gradients."""
        images = images * self.scale + self.shift
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        with evaluation_mode(self.network):
            logits: Tensor = self.network(images)
        return logits[:, self.order].float()


def load_distiller(recipe: Recipe, info: DataInfo, device: torch.device) -> Distiller | None:
    """What a training imitates, as its recipe says; None: nothing.

    Args:
        recipe: of the run; ``train.teacher`` names a run, weights, or ``timm:NAME``.
        info: of the data to train on.
        device: of the training.

    Raises:
        RecipeError: the teacher's task or classes are others.
        PacavitError: the teacher cannot be loaded.
    """
    train = recipe.train
    if train.teacher is None:
        return None
    if not issubclass(TASKS.get(recipe.task.name), ImageClassifier):
        raise RecipeError(f"train.teacher: the task {recipe.task.name!r} cannot be distilled")
    if train.teacher.startswith(TIMM):
        foreign = read_foreign(train.teacher)
        assert foreign.network is not None
        network, own = foreign.network, _imagenet_info(foreign.network)
        if recipe.task.name != "classification":
            raise RecipeError("train.teacher: the weights of timm are for one class per image")
    else:
        loaded = load_network(train.teacher)
        if loaded.recipe.task.name != recipe.task.name or not isinstance(
            loaded.task, ImageClassifier
        ):
            raise RecipeError(
                f"train.teacher: {train.teacher} was trained for the task "
                f"{loaded.recipe.task.name!r}, this run is for {recipe.task.name!r}"
            )
        size = loaded.recipe.task.image_size
        network, own = loaded.task.model, loaded.info
        own = own if size is None else own.stored_as((size, size))
    unknown = [name for name in info.class_names if name not in own.class_names]
    if unknown:
        raise RecipeError(
            f"train.teacher: {train.teacher} does not know the classes {first_few(unknown)}; take "
            "a teacher that was trained on the classes of these data"
        )
    order = torch.tensor([own.class_names.index(name) for name in info.class_names])
    return Distiller(
        Teacher(network.eval(), own, info, order).to(device),
        hard=train.distillation == "hard",
        weight=train.distillation_weight,
        temperature=train.distillation_temperature,
    )


def _imagenet_info(network: nn.Module) -> DataInfo:
    """Facts about the data of a network of timm that classifies ImageNet-1k."""
    facts = timm.data.resolve_data_config(model=network)
    names = imagenet_classes()
    if getattr(network, "num_classes", None) != len(names):
        raise RecipeError("train.teacher: weights of timm must be for the 1000 classes of ImageNet")
    _, height, width = facts["input_size"]
    return DataInfo("imagenet", "ImageNet-1k", names, (height, width), facts["mean"], facts["std"])
