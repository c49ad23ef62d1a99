"""The interface of preprocessing: from stored images to a network's input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pacavit.data.base import Batch, DataInfo, ImageSet, Sample
from pacavit.data.placement import Placement
from pacavit.data.random import SampleRandom

__all__ = ["Preprocess", "mean_color", "normalize", "pad_image", "pad_images"]


class Preprocess(ABC):
    """From samples to the batches of a network: ``sample``, then ``collate``, then ``batch``.

    Training, evaluation, prediction, explanation and the demo all use it. A task builds one with
    augmentation for training, and one without for everything else. All random numbers come from the
    ``SampleRandom`` of the call, so an object has no state and can be shared by threads.

    Attributes:
        per_sample: images that are already in memory need ``sample`` too. If False, they have the
            size of a batch, and a whole batch of them is passed to ``batch`` at once.
        unit: number of consecutive images that belong together: 2 if ``batch`` mixes pairs. A batch
            is split into shards at multiples of it.
    """

    per_sample: bool = False
    unit: int = 1

    def groups(self, images: ImageSet) -> Tensor | None:
        """Which images share batches, and which are left out; None: any may share one, and all do.

        Returns:
            (num,) int64, the group of each image. Batches hold images of one group, as far as
            possible; images of group -1 are left out.
        """
        return None

    @abstractmethod
    def sample(self, sample: Sample, random: SampleRandom) -> tuple[Sample, Placement]:
        """Resize or crop one image of any size, together with its target.

        Args:
            sample: as it is stored.
            random: the random numbers of this sample.

        Returns:
            The sample that ``collate`` takes, and where the original image lies in it.
        """

    def collate(self, samples: Sequence[tuple[Sample, Placement]]) -> Batch:
        """Samples of one size -> a batch of uint8 images (B, 3, height, width), on the CPU.

        Targets are stacked if they are numbers or tensors of one shape; otherwise they become a
        list. A task whose samples differ in size overrides this method and pads them.
        """
        chosen = [sample for sample, _ in samples]
        return Batch(
            torch.stack([sample.image for sample in chosen]),
            _stack_targets([sample.target for sample in chosen]),
            torch.tensor([sample.index for sample in chosen]),
            placements=[placement for _, placement in samples],
        )

    @abstractmethod
    def batch(self, batch: Batch, random: SampleRandom) -> Batch:
        """Augment and normalize a whole batch: uint8 images -> the network's input.

        Args:
            batch: (B, 3, height, width) uint8 images on any device; B may be 0.
            random: the random numbers of its samples.
        """


def normalize(pixels: Tensor, info: DataInfo) -> Tensor:
    """(B, 3, height, width) float in 0..255 -> normalized by the mean and std of the data."""
    mean, std = (
        torch.tensor(values, device=pixels.device)[:, None, None]
        for values in (info.mean, info.std)
    )
    return torch.addcmul(-mean / std, pixels, 1 / (255 * std))


def mean_color(info: DataInfo) -> Tensor:
    """(3, 1, 1) uint8: the color that becomes 0 when it is normalized, up to rounding."""
    return torch.tensor(info.mean).mul(255).round().to(torch.uint8)[:, None, None]


def pad_image(image: Tensor, size: tuple[int, int], fill: Tensor) -> Tensor:
    """(3, H, W) uint8 -> (3, height, width) with a color (3, 1, 1) right and below."""
    if tuple(image.shape[1:]) == size:
        return image
    canvas = fill.to(image.device).expand(3, *size).clone()
    canvas[:, : image.shape[1], : image.shape[2]] = image
    return canvas


def pad_images(images: Sequence[Tensor], fill: Tensor) -> Tensor:
    """Images (3, H, W) uint8 -> (B, 3, height, width), padded to the largest sides."""
    height, width = (max(image.shape[side] for image in images) for side in (1, 2))
    return torch.stack([pad_image(image, (height, width), fill) for image in images])


def _stack_targets(targets: list[object]) -> Tensor | list[object] | None:
    if all(target is None for target in targets):
        return None
    if all(isinstance(target, int) for target in targets):
        return torch.tensor(targets)
    tensors = [target for target in targets if isinstance(target, Tensor)]
    if len(tensors) == len(targets) and len({tensor.shape for tensor in tensors}) == 1:
        return torch.stack(tensors)
    return targets
