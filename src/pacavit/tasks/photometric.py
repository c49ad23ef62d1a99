"""Random changes of color, for images whose targets do not depend on it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision.transforms import v2

from pacavit.data import SampleRandom, seeded_generators

__all__ = ["PhotometricDistortion"]


class PhotometricDistortion:
    """(3, H, W) uint8 -> the same with other brightness, contrast, saturation and hue.

    Each changes in half of the images. Liu et al., "SSD: Single shot multibox detector", ECCV 2016;
    as in mmsegmentation, whose hue turns by up to 36 degrees instead of 18.

    Args:
        strength: 1 is that of mmsegmentation; 0 changes nothing.
    """

    def __init__(self, strength: float) -> None:
        self.distort = _distort(strength) if strength else None

    def __call__(self, image: Tensor, random: SampleRandom) -> Tensor:
        """The changed image."""
        if self.distort is None:
            return image
        with seeded_generators() as seed:
            seed(random.seeds("photometric")[0])
            distorted: Tensor = self.distort(image)
        return distorted


class _FixedChannels(v2.RandomPhotometricDistort):
    """The distortion without the permutation of channels."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The random parameters of an image."""
        return {**super().make_params(flat_inputs), "channel_permutation": None}


def _distort(strength: float) -> v2.Transform:
    brightness, factor, hue = 32 / 255 * strength, 0.5 * strength, 36 / 360 * strength
    return _FixedChannels(
        brightness=(1 - brightness, 1 + brightness),
        contrast=(1 - factor, 1 + factor),
        saturation=(1 - factor, 1 + factor),
        hue=(-hue, hue),
    )
