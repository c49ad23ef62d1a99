"""timm's augmentations of single images, with the random numbers of each sample."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing as TimmRandomErasing
from torch import Tensor

from pacavit.data import SampleRandom, seeded_generators

__all__ = ["RandAugment", "RandomErasing"]


class RandAugment:
    """Random changes of geometry and color: (B, 3, H, W) uint8 -> the same shape.

    Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space",
    NeurIPS 2020, as implemented in timm. Images are processed by Pillow on the CPU.

    Args:
        name: timm's configuration string, such as "rand-m9-n2-mstd0.5-inc1".
        mean: RGB in 0..1, fill color for areas from outside the image.
    """

    def __init__(self, name: str, mean: tuple[float, float, float]) -> None:
        self.name = name
        self.color = tuple(round(255 * channel) for channel in mean)

    def __call__(self, images: Tensor, random: SampleRandom) -> Tensor:
        """Change a batch with the random numbers of its samples."""
        options = {
            "img_mean": self.color,
            "interpolation": Image.Resampling.BICUBIC,
            "translate_const": int(0.45 * min(images.shape[2:])),  # as timm's create_transform
        }
        change = rand_augment_transform(self.name, options)
        pictures = images.permute(0, 2, 3, 1).cpu().numpy()
        changed = np.empty_like(pictures, order="C")
        with seeded_generators() as seed:
            for number, key in enumerate(random.seeds("rand augment")):
                seed(key)
                changed[number] = change(Image.fromarray(pictures[number]))
        return torch.from_numpy(changed).permute(0, 3, 1, 2).to(images.device)


class RandomErasing:
    """Replace a rectangle by normal noise: (B, 3, H, W) normalized float -> the same shape.

    Zhong et al., "Random erasing data augmentation", AAAI 2020, as implemented in timm: 2 to 33 %
    of the area.

    Args:
        probability: fraction of the images that are changed.
    """

    def __init__(self, probability: float) -> None:
        self.erase = TimmRandomErasing(probability, mode="pixel", device="cpu")

    def __call__(self, pixels: Tensor, random: SampleRandom) -> Tensor:
        """Erase in place with the random numbers of the samples; returns the same tensor."""
        with seeded_generators() as seed:
            for image, key in zip(pixels, random.seeds("random erasing"), strict=True):
                seed(key)
                self.erase(image)
        return pixels
