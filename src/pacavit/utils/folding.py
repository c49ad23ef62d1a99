"""Fold layers that are affine in evaluation mode into the layers before or after them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["Foldable", "fold_batch_norm", "fold_layer_norm", "has_own"]


class Foldable:
    """A module that can replace its own layers by fewer ones with equal results in evaluation.

    :func:`pacavit.layers.optimize` calls :meth:`fold` of all such modules of a network.

    Attributes:
        folds_exactly: results after :meth:`fold` have the very bits of those before.
    """

    folds_exactly: ClassVar[bool] = False

    def fold(self, *, half: bool) -> None:
        """Fold what can be folded, in place.

        Args:
            half: the network will compute in bf16, so folds that need the precision of fp32 are
                left out.
        """
        raise NotImplementedError


def has_own(module: nn.Module, name: str) -> bool:
    """Whether the very class of a module defines a name, rather than a base class.

    What a class declares about its formula need not be true of a subclass with another one.
    """
    return name in vars(type(module))


def fold_batch_norm(layer: nn.Module, norm: nn.Module, *, positive: bool = False) -> bool:
    """Fold a BatchNorm into the convolution or linear layer before it, in place.

    Computed in fp64. The caller replaces the norm if this returns True.

    Args:
        layer: ``nn.Conv2d`` or ``nn.Linear``; it gets a bias if it has none.
        norm: which follows it, directly or after an operation that commutes with it.
        positive: only if no factor is negative, as a max-pooling in between requires.

    Returns:
        Whether it was folded. False for other kinds of layers and norms, layers with a
        parametrization, norms without running statistics, and norms in training mode.
    """
    if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm) or norm.training:
        return False
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm)
    if not isinstance(layer, nn.Conv2d | nn.Linear) or "weight" not in dict(
        layer.named_parameters(recurse=False)
    ):
        return False
    if norm.running_mean is None or norm.running_var is None:
        return False
    with torch.no_grad():
        factor = (norm.running_var.double() + norm.eps).rsqrt()
        shift = -norm.running_mean.double() * factor
        if norm.affine:
            factor, shift = (each * norm.weight.double() for each in (factor, shift))
            shift = shift + norm.bias.double()
        if positive and bool((factor < 0).any()):
            return False
        if layer.bias is not None:
            shift = shift + layer.bias.double() * factor
        weight = layer.weight.double() * factor.view(-1, *[1] * (layer.weight.ndim - 1))
        _replace(layer, weight, shift)
    return True


def fold_layer_norm(norm: nn.Module, layers: Iterable[nn.Linear]) -> None:
    """Fold the affine part of a LayerNorm into the linear layers after it, in place.

    Computed in fp64. Other kinds of norms are left as they are.

    Args:
        norm: its output, or means of it with weights that sum to 1, is read by ``layers`` only.
        layers: all that read it; they get a bias if they have none. With none, nothing is done.
    """
    layers = list(layers)
    if type(norm) is not nn.LayerNorm or norm.weight is None or not layers:
        return
    with torch.no_grad():
        for layer in layers:
            weight = layer.weight.double()
            bias = torch.zeros_like(weight[:, 0]) if layer.bias is None else layer.bias.double()
            if norm.bias is not None:
                bias = bias + weight @ norm.bias.double()
            _replace(layer, weight * norm.weight.double(), bias)
    norm.elementwise_affine = False
    norm.register_parameter("weight", None)
    norm.register_parameter("bias", None)


def _replace(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Give a layer other weights, in the type and the layout of its own."""
    old = layer.weight
    layer.weight = nn.Parameter(torch.empty_like(old).copy_(weight), old.requires_grad)
    layer.bias = nn.Parameter(bias.to(old.dtype), old.requires_grad)
