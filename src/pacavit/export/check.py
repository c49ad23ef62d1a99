"""Compare an exported file with the network that it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pacavit.clustering import Clustering
from pacavit.data import Sample, SampleRandom, normalize
from pacavit.data.formats.image import resize_image
from pacavit.engine import LoadedModel
from pacavit.engine.exported.facts import Precision
from pacavit.errors import PacavitError
from pacavit.tasks.graph import Graph
from pacavit.utils.progress import progress

__all__ = ["BATCHES", "TOLERANCES", "Agreement", "check_sizes", "compare"]

TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
"""Largest difference of an output, as a fraction of the largest output, or of 1 if that is less."""
BATCHES = (1, 3)
_FACTORS = ((1.0, 1.0), (0.75, 1.0), (1.25, 1.5))  # of height and width


@dataclass(frozen=True)
class Agreement:
    """How well a file agrees with its network.

    Attributes:
        difference: largest difference of any output, as a fraction of the largest output (at
            least 1) in its batch.
        tolerance: the largest that is accepted.
        sizes: (height, width) of the images.
        pictures: where they come from.
    """

    difference: float
    tolerance: float
    sizes: tuple[tuple[int, int], ...]
    pictures: str

    def __str__(self) -> str:
        sizes = ", ".join(f"{height} x {width}" for height, width in self.sizes)
        batches = " and ".join(map(str, BATCHES))
        return (
            f"agrees with the network: largest difference {self.difference:.1e} of the largest "
            f"output, tolerance {self.tolerance:g}; {self.pictures} of {sizes} pixels, in batches "
            f"of {batches}"
        )


def check_sizes(usual: tuple[int, int], fixed: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Three sizes (height, width) around the usual one, or the only one that fits."""
    if fixed is not None:
        return [fixed]
    return [
        (max(1, math.ceil(usual[0] * rows)), max(1, math.ceil(usual[1] * columns)))
        for rows, columns in _FACTORS
    ]


@torch.no_grad()
def compare(
    model: LoadedModel,
    exported: LoadedModel,
    pictures: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    origin: str,
) -> Agreement:
    """Run the network and the file on the same images.

    Args:
        model: of torch, on the CPU.
        exported: the file, loaded.
        pictures: at least as many (3, H, W) uint8 images as the largest batch.
        sizes: that the pictures are resized to.
        origin: where they come from.

    Raises:
        PacavitError: the difference is above the tolerance.
    """
    assert exported.exported is not None
    facts, engine = exported.exported.facts, exported.exported.engine
    tolerance, worst = TOLERANCES[facts.precision], 0.0
    network = model.task.graph().eval()
    cases = list(_cases(sizes))
    for size, batch in progress(cases, "comparing with the network", len(cases)):
        resized = [resize_image(picture, size) for picture in pictures[:batch]]
        normalized = normalize(torch.stack(resized).float(), model.info)
        if facts.input == "float":
            expected = network(normalized)
        else:
            expected = _preprocessed(model, network, resized)
        for name, one, other in zip(facts.outputs, engine(normalized), expected, strict=True):
            difference = _difference(one, other.float())
            if not difference <= tolerance:
                raise PacavitError(
                    f"the exported file differs from the network by {difference:.2g} of its "
                    f"largest output ({name}), more than {tolerance:g}, for {batch} images of "
                    f"{size[0]} x {size[1]} pixels ({origin}); it was removed{_advice(network)}"
                )
            worst = max(worst, difference)
    return Agreement(worst, tolerance, tuple(sizes), origin)


def _advice(network: Graph) -> str:
    """What else to try, for networks whose engine may decide otherwise."""
    clusterings = [each for each in network.modules() if isinstance(each, Clustering)]
    if all(clustering.differentiable for clustering in clusterings):
        return ""
    return (
        "; rounding decides about the clusters of this network, and .pt2 files round as the "
        "network does"
    )


def _cases(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], int]]:
    for size in sizes:
        for batch in BATCHES:
            yield size, batch


def _preprocessed(
    model: LoadedModel, network: Graph, images: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The outputs for images (3, H, W) uint8 of one size, with the preprocessing of the task."""
    preprocess = model.preprocess()
    random = SampleRandom(seed=0, epoch=0, indices=torch.zeros(1, dtype=torch.int64))
    samples = [preprocess.sample(Sample(image, None, 0), random) for image in images]
    batch = preprocess.collate(samples)
    return network(
        preprocess.batch(batch, SampleRandom(seed=0, epoch=0, indices=batch.indices)).images
    )


def _difference(one: Tensor, other: Tensor) -> float:
    """Largest difference as a fraction of the largest value; infinite for other shapes, or NaN."""
    if one.shape != other.shape or not (one.isfinite().all() and other.isfinite().all()):
        return math.inf
    return float((one - other).abs().max() / other.abs().max().clamp(min=1))
