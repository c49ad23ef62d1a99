"""Optimizer, learning-rate schedule and moving average of the weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import timm.optim
import torch
from timm.models import group_parameters
from timm.optim import Lookahead
from timm.utils import ModelEmaV3
from torch import nn

from pacavit.clustering import Clustering
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.models import Pyramid
from pacavit.models.match import classifiers
from pacavit.recipes.schema import TrainConfig
from pacavit.utils.text import one_line

__all__ = ["create_average", "create_optimizer", "lr_at", "set_lr"]


def create_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The timm optimizer of that name, with a weight decay and a learning rate per parameter.

    By default, vectors and ``no_weight_decay()`` get no weight decay. ``lr_scale`` of each
    parameter group is the product of its factors: ``layer_decay`` by timm's ``group_matcher``,
    ``lr_scales`` by name, ``head_lr_scale`` outside the backbone, ``cluster_lr_scale`` for the
    layers that cluster. With ``lookahead``, timm's Lookahead wraps the optimizer; its slow copy
    begins with the weights at its first turn.

    Raises:
        UnknownNameError: timm has no such optimizer.
        RecipeError: it does not take these options, or one of the settings has no effect.
    """
    known = [str(name) for name in timm.optim.list_optimizers()]
    if config.optimizer.startswith("lookahead_"):
        raise RecipeError(
            f"train.optimizer {config.optimizer!r}: write train.optimizer = "
            f"{config.optimizer.removeprefix('lookahead_')!r} and train.lookahead = 6"
        )
    if config.optimizer not in known:
        raise UnknownNameError("optimizer", config.optimizer, known)
    if config.layer_decay is not None and _num_layers(model) < 2:
        raise RecipeError(
            f"train.layer_decay {config.layer_decay} has no effect: the model has no group_matcher "
            "that defines its layers; leave it out"
        )
    try:
        optimizer: torch.optim.Optimizer = timm.optim.create_optimizer_v2(
            model,
            opt=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay,
            **config.optimizer_options,
        )
    except (TypeError, ValueError, RuntimeError, ImportError) as error:
        raise RecipeError(f"train.optimizer {config.optimizer!r}: {one_line(error)}") from error
    if config.weight_decay_exempt == "layer_norms":
        _decay_all_but_layer_norms(optimizer, model, config)
    if config.cluster_lr_layers != "all" and config.cluster_lr_scale == 1:
        raise RecipeError(
            f"train.cluster_lr_layers {config.cluster_lr_layers!r} has no effect without "
            "train.cluster_lr_scale; leave it out"
        )
    if config.lr_scales or config.cluster_lr_scale != 1 or config.head_lr_scale != 1:
        _scale_groups(optimizer, model, config)
    if config.lookahead is None:
        return optimizer
    wrapped: torch.optim.Optimizer = Lookahead(optimizer, config.lookahead_alpha, config.lookahead)
    return wrapped


def _num_layers(model: nn.Module) -> int:
    """Number of layers of a model that timm gives different learning rates."""
    matcher = getattr(model, "group_matcher", None)
    return 0 if matcher is None else len(group_parameters(model, matcher()))


def _decay_all_but_layer_norms(
    optimizer: torch.optim.Optimizer, model: nn.Module, config: TrainConfig
) -> None:
    if config.weight_decay == 0:
        raise RecipeError(
            "train.weight_decay_exempt has no effect: train.weight_decay is 0; leave it out"
        )
    exempt = {
        parameter
        for module in model.modules()
        if isinstance(module, nn.LayerNorm)
        for parameter in module.parameters()
    }
    groups = []
    for group in optimizer.param_groups:
        for decay in (config.weight_decay, 0.0):
            members = [each for each in group["params"] if (each in exempt) == (decay == 0)]
            if members:
                groups.append({**group, "params": members, "weight_decay": decay})
    optimizer.param_groups[:] = groups


def _scale_groups(optimizer: torch.optim.Optimizer, model: nn.Module, config: TrainConfig) -> None:
    """Split each parameter group by the factor of the learning rate."""
    clustering = _clustering_parameters(model, config) if config.cluster_lr_scale != 1 else set()
    head = _head_parameters(model) if config.head_lr_scale != 1 else set()
    # The first pattern that a name matches, and whether the parameter is of a clustering or head.
    kind_of = {
        parameter: (
            next((pattern for pattern in config.lr_scales if fnmatchcase(name, pattern)), None),
            parameter in clustering,
            parameter in head,
        )
        for name, parameter in model.named_parameters()
    }
    for pattern in config.lr_scales:
        if not any(kind[0] == pattern for kind in kind_of.values()):
            raise RecipeError(f"train.lr_scales: no parameter is left for {pattern!r}")
    factors: dict[str | None, float] = {None: 1.0} | dict(config.lr_scales)
    groups = []
    for group in optimizer.param_groups:
        for kind in itertools.product(factors, (False, True), (False, True)):
            members = [each for each in group["params"] if kind_of[each] == kind]
            if members:
                named, clusters, outside = kind
                scale = group.get("lr_scale", 1.0) * factors[named]
                scale *= config.cluster_lr_scale if clusters else 1.0
                scale *= config.head_lr_scale if outside else 1.0
                groups.append({**group, "params": members, "lr_scale": scale})
    optimizer.param_groups[:] = groups


def _clustering_parameters(model: nn.Module, config: TrainConfig) -> set[nn.Parameter]:
    """The parameters of all clusterings in a model, or of their last layers."""
    clusterings = [module for module in model.modules() if isinstance(module, Clustering)]
    layers: Sequence[nn.Module | None] = clusterings
    if config.cluster_lr_layers == "last":
        layers = [clustering.last_layer() for clustering in clusterings]
    found = _to_learn(layer for layer in layers if layer is not None)
    if not found:
        raise RecipeError(
            "train.cluster_lr_scale has no effect: no clustering of this model has parameters "
            f"to learn{' in a last layer' * (config.cluster_lr_layers == 'last')}; leave it out"
        )
    return found


def _head_parameters(model: nn.Module) -> set[nn.Parameter]:
    """The parameters outside the backbone."""
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, Pyramid):
        found = _to_learn([model]) - _to_learn([backbone])
    else:
        found = _to_learn(classifiers(model))
    if not found:
        raise RecipeError(
            "train.head_lr_scale has no effect: it is not known which layers of this model are its "
            "head; leave it out, or use train.lr_scales"
        )
    return found


def _to_learn(modules: Iterable[nn.Module]) -> set[nn.Parameter]:
    """The parameters of modules that get a gradient."""
    return {
        parameter
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad
    }


def lr_at(step: int, total: int, config: TrainConfig) -> float:
    """Learning rate of a step: linear warm-up to ``lr``, then a decrease, never below ``min_lr``.

    Args:
        step: counted from 0.
        total: steps in the run; at ``step == total`` the rate would be ``min_lr``, but for the
            schedule "steps".
        config: ``lr``, ``min_lr``, ``warmup``, ``schedule`` and ``lr_drops``.
    """
    rising = round(config.warmup * total)
    if step < rising:
        return config.lr * (step + 1) / rising
    if config.schedule == "steps":
        passed = sum(step >= round(drop * total) for drop in config.lr_drops)
        return max(config.min_lr, config.lr * 0.1**passed)
    done = (step - rising) / max(1, total - rising)
    rest = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.min_lr + (config.lr - config.min_lr) * rest


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of all parameter groups, multiplied by ``lr_scale`` if a group has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def create_average(model: nn.Module, decay: float) -> ModelEmaV3:
    """Moving average of parameters and buffers; call ``update(model, step)`` after each step.

    So that the random initialization does not dominate early averages, the decay in step t is
    t / (t + 10) until it reaches ``decay``.
    """
    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_gamma=10.0, warmup_power=1.0)
