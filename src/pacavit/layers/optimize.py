"""Make a trained network faster where it only predicts."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn

from pacavit.clustering import Clustering
from pacavit.layers.mlp import DepthwiseMlp
from pacavit.utils.folding import Foldable, fold_batch_norm

__all__ = ["optimize"]

_Network = TypeVar("_Network", bound=nn.Module)


def optimize(network: _Network, *, half: bool = False, in_place: bool = False) -> _Network:
    """A network in evaluation mode with fewer operations and, in fp32, equal results to 1e-4.

    Folded are: the shortcut of depthwise convolutions into their kernels, so that they are plain
    convolutions; BatchNorm into the convolution or linear layer before it (not after an activation,
    and before a max-pooling only if none of its factors is negative); the affine part of LayerNorm
    into the linear layers after it, where nothing else reads it; and the factor 1/sqrt(d) of the
    attention into its queries. Activations of feed-forward layers are computed in place, and many
    hidden values in slices. Modules fold themselves
    (:class:`~pacavit.utils.folding.Foldable`), so that this works for any network that contains
    modules of this package: backbones, heads, detectors, tasks. Of networks with a clustering whose
    decisions depend on rounding (``dbscan``, see ``Clustering.stable``) only the shortcuts are
    folded and activations computed in place, which changes no bit.

    The result cannot be trained further, and its weights cannot be loaded into another network.
    Modules keep their names, so that hooks and explanations work as before; only those on layers
    inside of feed-forward layers are not called where no gradients are computed.

    Args:
        network: trained; any module.
        half: prepare it for bf16: linear and convolutional weights are kept in bf16, instead of
            being converted in each pass. It must then run under
            ``torch.autocast(device, torch.bfloat16)``, and returns the values that the folded
            network returns there, up to the shortcuts, which are then not folded: the sum would
            round their kernels.
        in_place: change ``network`` itself, instead of a copy.

    Returns:
        The optimized network.
    """
    if not in_place:
        network = copy.deepcopy(network)
    network.eval()
    uses = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    modules = list(network.modules())
    exactly = any(isinstance(module, Clustering) and not module.stable for module in modules)
    for module in modules:
        if isinstance(module, DepthwiseMlp):
            module.slices = not exactly
    for module in modules:
        if isinstance(module, Foldable):
            if module.folds_exactly or not exactly:
                module.fold(half=half)
        elif type(module).forward is nn.Sequential.forward and not exactly:
            _fold_sequence(module, uses)
    if half:
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                _to_bf16(module)
    return network


def _fold_sequence(layers: nn.Module, uses: Mapping[int, int]) -> None:
    """Fold each BatchNorm into the layer just before it, unless that layer is used elsewhere too.

    Args:
        layers: called one after the other.
        uses: number of places of each module in the network, by its id.
    """
    for (_, layer), (name, norm) in pairwise(list(layers.named_children())):
        if uses[id(layer)] == 1 and fold_batch_norm(layer, norm):
            layers.add_module(name, nn.Identity())


def _to_bf16(layer: nn.Linear | nn.Conv2d) -> None:
    for name, value in layer.named_parameters(recurse=False):
        if value.dtype is torch.float32:
            setattr(layer, name, nn.Parameter(value.detach().bfloat16(), value.requires_grad))
