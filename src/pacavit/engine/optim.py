"""Optimiser, learning-rate schedule and moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

import timm.optim
import torch
from timm.utils import ModelEmaV3
from torch import nn

from pacavit.errors import RecipeError, UnknownNameError
from pacavit.recipes.schema import TrainConfig

__all__ = ["create_average", "create_optimizer", "lr_at", "set_lr"]


def create_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The timm optimiser of that name; weight decay spares vectors and ``no_weight_decay()``.

    Raises:
        UnknownNameError: timm has no such optimiser.
        RecipeError: it does not take these options, or a pattern of ``lr_scales`` matches nothing.
    """
    known = [str(name) for name in timm.optim.list_optimizers()]
    if config.optimizer not in known:
        raise UnknownNameError("optimizer", config.optimizer, known)
    try:
        optimizer: torch.optim.Optimizer = timm.optim.create_optimizer_v2(
            model,
            opt=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            **config.optimizer_options,
        )
    except (TypeError, ValueError, RuntimeError, ImportError) as error:
        line = " ".join(str(error).split())
        raise RecipeError(f"train.optimizer {config.optimizer!r}: {line}") from error
    if config.lr_scales:
        _scale_groups(optimizer, model, config.lr_scales)
    return optimizer


def _scale_groups(
    optimizer: torch.optim.Optimizer, model: nn.Module, scales: Mapping[str, float]
) -> None:
    """Split each parameter group by the first pattern that its parameters' names match."""
    pattern_of = {
        parameter: next((pattern for pattern in scales if fnmatchcase(name, pattern)), None)
        for name, parameter in model.named_parameters()
    }
    for pattern in scales:
        if pattern not in pattern_of.values():
            raise RecipeError(f"train.lr_scales: no parameter is left for {pattern!r}")
    factors: dict[str | None, float] = {None: 1.0} | dict(scales)
    groups = []
    for group in optimizer.param_groups:
        for key, factor in factors.items():
            members = [each for each in group["params"] if pattern_of[each] == key]
            if members:
                groups.append({**group, "params": members, "lr_scale": factor})
    optimizer.param_groups[:] = groups


def lr_at(step: int, total: int, config: TrainConfig) -> float:
    """Learning rate of a step: a straight rise to ``lr``, then a fall to ``min_lr``.

    Args:
        step: counted from 0.
        total: steps in the run; at ``step == total`` the rate would be ``min_lr``.
        config: ``lr``, ``min_lr``, ``warmup`` and ``schedule``.
    """
    rising = round(config.warmup * total)
    if step < rising:
        return config.lr * (step + 1) / rising
    done = (step - rising) / max(1, total - rising)
    rest = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.min_lr + (config.lr - config.min_lr) * rest


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of all parameter groups, each times its own ``lr_scale`` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def create_average(model: nn.Module, decay: float) -> ModelEmaV3:
    """Moving average of parameters and buffers; call ``update(model, step)`` after each step.

    Early on the average would be dominated by the random start, so the decay rises with the step
    t as t / (t + 10) until it reaches ``decay``.
    """
    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_gamma=10.0, warmup_power=1.0)
