"""Layers near the input that stop learning, and a first convolution that is fixed at first."""

from __future__ import annotations

from collections.abc import Sequence

from timm.models import group_parameters
from torch import nn

from pacavit.errors import RecipeError
from pacavit.recipes.schema import Recipe

__all__ = ["Freezing", "first_convolution", "layers_of"]


class Freezing:
    """Which parameters learn in each epoch of a run, a function of the epoch alone.

    The weights of the first convolution are fixed while less than the fraction ``whitening`` of the
    epochs is done. After the fractions in ``freeze``, the first layers stop learning (FreezeOut:
    Brock et al., 2017, arXiv:1706.04983). As they are next to the images, no gradient is computed
    for them or through them. Their BatchNorm layers continue to use and to average the statistics
    of batches.

    Args:
        model: the network.
        recipe: of the run.

    Raises:
        RecipeError: the network has no such layers, or a setting has no effect.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        train = recipe.train
        self.epochs, self.whitening = train.epochs, train.whitening or 0.0
        self.first = [] if train.whitening is None else [first_convolution(model)[1].weight]
        self.steps: list[tuple[float, list[nn.Parameter]]] = []
        self.lines: list[str] = []
        layers = layers_of(model) if train.freeze else []
        numbers = [sum(parameter.numel() for parameter in layer) for layer in layers]
        for fraction, count in train.freeze:
            start = self._first_epoch(fraction)
            if fraction == 0 and recipe.model.init is None:
                raise RecipeError(
                    "train.freeze from 0 would keep layers at random weights; set model.init, or "
                    "a larger fraction"
                )
            if count >= len(layers):
                raise RecipeError(
                    f"train.freeze: {count} layers of a model that has {len(layers)}; freeze at "
                    f"most {len(layers) - 1}"
                )
            if start >= train.epochs:
                raise RecipeError(
                    f"train.freeze from {fraction} has no effect: the last of {train.epochs} "
                    f"epochs begins at {(train.epochs - 1) / train.epochs:.3g}"
                )
            self.steps.append((fraction, [each for layer in layers[:count] for each in layer]))
            self.lines.append(
                f"from epoch {start + 1} on, the first {count} of {len(layers)} layers do not "
                f"learn: {sum(numbers[:count]):,} of {sum(numbers):,} parameters"
            )

    def apply(self, epoch: int) -> bool:
        """Let exactly the parameters learn that do so in an epoch, counted from 0.

        Returns:
            Whether there was a change, which wrappers for several processes have to know.
        """
        frozen = {*self.first} if epoch < self._first_epoch(self.whitening) else set()
        managed = set(self.first)
        for fraction, parameters in self.steps:
            managed.update(parameters)
            if epoch >= self._first_epoch(fraction):
                frozen.update(parameters)
        changed = False
        for parameter in managed:
            learns = parameter not in frozen
            if parameter.requires_grad != learns:
                parameter.requires_grad_(learns)
                # Optimizers skip parameters without a gradient; one of zeros would still decay.
                parameter.grad = None
                changed = True
        return changed

    def _first_epoch(self, fraction: float) -> int:
        """The first epoch, from 0, at whose start that fraction of all epochs is done."""
        return next(
            (epoch for epoch in range(self.epochs) if epoch / self.epochs >= fraction), self.epochs
        )


def layers_of(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters that learn of each layer, from the images on, by timm's ``group_matcher``.

    Raises:
        RecipeError: the model does not define its layers.
    """
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        raise RecipeError(
            f"train.freeze: {type(model).__name__} has no group_matcher that defines its layers; "
            "leave it out"
        )
    parameters = dict(model.named_parameters())
    groups: dict[float, Sequence[str]] = group_parameters(model, matcher())
    layers = [
        [parameters[name] for name in groups[key] if parameters[name].requires_grad]
        for key in sorted(groups)
    ]
    return [layer for layer in layers if layer]


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """The name and the module of the convolution that reads the images.

    Raises:
        RecipeError: there is none.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1:
            return name, module
    raise RecipeError(
        f"train.whitening: {type(model).__name__} has no convolution of RGB images; leave it out"
    )
