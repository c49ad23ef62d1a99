"""Start the first convolution of a network from whitening filters of the training images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.data import DataInfo, ImageSet
from pacavit.engine import build
from pacavit.engine.freezing import first_convolution
from pacavit.errors import RecipeError
from pacavit.recipes.schema import Recipe

__all__ = ["check_whitening", "patch_covariance", "whiten", "whitening_filters"]

NUM_IMAGES = 5000
_EPSILON = 5e-4


def check_whitening(model: nn.Module) -> None:
    """Raise RecipeError unless the first convolution has at most two filters per eigenvector."""
    name, conv = first_convolution(model)
    rows, columns = conv.kernel_size
    most = 2 * 3 * rows * columns
    if conv.out_channels > most:
        raise RecipeError(
            f"train.whitening: {name} has {conv.out_channels} filters, and patches of "
            f"{rows} x {columns} pixels give at most {most}; leave it out"
        )


@torch.no_grad()
def whiten(models: Sequence[nn.Module], recipe: Recipe, images: ImageSet, info: DataInfo) -> str:
    """Set the weights of the first convolution to whitening filters; a bias becomes 0.

    Keller Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, arXiv:2404.00498.

    Args:
        models: copies of the network, on any device.
        recipe: of the run.
        images: the training split. Up to 5,000 images are used, without augmentation and in a fixed
            random order.
        info: of their data.

    Returns:
        A line that says so.
    """
    found = [first_convolution(model) for model in models]
    name, conv = found[0]
    covariance, count = torch.zeros(()), 0
    for batch in build.eval_loader(recipe, images, info, shuffle=True).epoch(0):
        pixels = batch.images[: NUM_IMAGES - count]
        covariance = covariance + len(pixels) * patch_covariance(pixels, conv)
        count += len(pixels)
        if count >= NUM_IMAGES:
            break
    for _, each in found:
        each.weight.copy_(whitening_filters(covariance / count, each))
        if each.bias is not None:
            each.bias.zero_()
    return f"{name} starts as {conv.out_channels} whitening filters of {count:,} training images"


def patch_covariance(images: Tensor, conv: nn.Conv2d) -> Tensor:
    """(B, 3, H, W) -> (D, D) float64: mean outer product of patches of D = 3 * kernel numbers.

    Normalized images have a mean near 0, so patches are not centered. Patches at the edges, which
    the convolution pads, are left out.
    """
    patches = F.unfold(images.double(), conv.kernel_size, dilation=conv.dilation)
    return torch.einsum("bdn,ben->de", patches, patches) / (patches.shape[0] * patches.shape[2])


def whitening_filters(covariance: Tensor, conv: nn.Conv2d) -> Tensor:
    """(D, D) -> (filters, 3, rows, columns): eigenvectors over the roots of their eigenvalues.

    The first half has the largest eigenvalues, in descending order; the second half is the first
    with the other sign, since an activation would discard one of them. So the outputs of each half
    are uncorrelated and have a variance of 1, except for eigenvalues near 0.
    """
    values, vectors = torch.linalg.eigh(covariance)
    # The sign of an eigenvector is arbitrary; its largest number becomes positive.
    peaks = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    filters = (vectors * peaks.sign() / (values.clamp_min(0) + _EPSILON).sqrt()).T.flip(0)
    half = filters[: (conv.out_channels + 1) // 2]
    both = torch.cat([half, -half])[: conv.out_channels]
    return both.reshape(conv.weight.shape).to(conv.weight)
