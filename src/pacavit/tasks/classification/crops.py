"""Crop and resize single images of any size to the size of the network's input."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_interp_mode
from torch import Tensor
from torchvision.transforms import CenterCrop as TorchCenterCrop
from torchvision.transforms import Compose, Resize
from torchvision.transforms.functional import resized_crop

from pacavit.data import SampleRandom, seeded_generators
from pacavit.data.placement import Region
from pacavit.tasks.classification.config import CropConfig

__all__ = ["CenterCrop", "RandomCrop"]


class RandomCrop:
    """(3, H, W) uint8 -> (3, size, size) uint8: a random crop, resized by Pillow.

    Szegedy et al., "Going deeper with convolutions", CVPR 2015, as implemented in timm.

    Args:
        config: area and aspect ratio of the crop, and the interpolation.
        size: height and width of the result in pixels.
    """

    def __init__(self, config: CropConfig, size: int) -> None:
        self.crop = RandomResizedCropAndInterpolation(
            size, scale=config.scale, ratio=config.ratio, interpolation=config.interpolation
        )

    def __call__(self, image: Tensor, random: SampleRandom) -> tuple[Tensor, Region]:
        """Crop an image with the random numbers of its sample; also returns the cropped region."""
        picture, crop = _to_pillow(image), self.crop
        with seeded_generators() as seed:
            seed(random.seeds("crop")[0])
            top, left, height, width = crop.get_params(picture, crop.scale, crop.ratio)
        part = resized_crop(picture, top, left, height, width, crop.size, crop.interpolation)
        return _to_tensor(part), Region(top, left, height, width)


class CenterCrop:
    """(3, H, W) uint8 -> (3, size, size) uint8: resized by Pillow, then center-cropped.

    Args:
        config: fraction of the shorter side that is kept, and the interpolation.
        size: height and width of the result in pixels.
    """

    def __init__(self, config: CropConfig, size: int) -> None:
        mode = str_to_interp_mode(config.interpolation)
        self.size, self.interpolation = size, config.interpolation
        self.shorter_side = math.floor(size / config.eval_part)
        self.crop = Compose([Resize(self.shorter_side, interpolation=mode), TorchCenterCrop(size)])

    def __call__(self, image: Tensor, random: SampleRandom | None = None) -> tuple[Tensor, Region]:
        """Crop an image; ``random`` is ignored. Also returns the cropped region."""
        height, width = image.shape[1:]
        return _to_tensor(self.crop(_to_pillow(image))), self._region((height, width))

    def _region(self, image_size: tuple[int, int]) -> Region:
        """The center crop of an image of (H, W) pixels."""
        # The arithmetic of torchvision's Resize and CenterCrop.
        shorter = min(image_size)
        height, width = (int(self.shorter_side * side / shorter) for side in image_size)
        top, left = round((height - self.size) / 2.0), round((width - self.size) / 2.0)
        whole = Region(0, 0, *image_size)
        return Region(top, left, self.size, self.size).inside(whole, (height, width))


def _to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).cpu().numpy())


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
