"""From stored images to the network's input: whole batches as tensors, on any device.

All random numbers come from a ``SampleRandom``, so the augmentation of an image depends on the
seed, the epoch and its position in the split alone.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pacavit.data import DataInfo, SampleRandom, crop_center, normalize
from pacavit.errors import RecipeError
from pacavit.tasks.classification.augment import RandAugment, RandomErasing
from pacavit.tasks.classification.config import AugmentConfig, ImageConfig

__all__ = ["EvalTransform", "TrainTransform"]


class EvalTransform:
    """(B, 3, H, W) uint8 of any size -> (B, 3, height, width) normalized float32, channels-last.

    Images of another aspect ratio are center-cropped first. Then they are resized bilinearly, with
    antialiasing; images that have the size already are only normalized.

    Args:
        info: of the data the network was trained on; gives mean, std and the default size.
        image_size: height and width of the result in pixels; None for those of the data.
    """

    def __init__(self, info: DataInfo, image_size: int | None = None) -> None:
        self.size, self.info = _target_size(info, image_size), info

    def __call__(self, images: Tensor, random: SampleRandom | None = None) -> Tensor:
        """Transform a batch; ``random`` is ignored, and only there for a common signature."""
        pixels = _resize(_to_float(crop_center(images, self.size)), self.size)
        return normalize(pixels, self.info)


class TrainTransform:
    """(B, 3, H, W) uint8 -> (B, 3, height, width) augmented, normalized float32, channels-last.

    The order is: flip and shift, RandAugment, rotation and scale, brightness and contrast,
    normalization, cutout, random erasing, resizing as in ``EvalTransform``. Because resizing comes
    last, a lower resolution shows the same pictures. Lengths are in pixels of the input images,
    which are the stored ones, or the crops of ``config.crop``. Brightness and contrast do not clip.

    Args:
        config: of the task.
        info: of the data.
        image_size: height and width of the result in pixels, for training that changes them between
            epochs; None for those of ``config``, or of the data if it has none.

    Raises:
        RecipeError: the shift is not smaller than the images.
    """

    def __init__(self, config: ImageConfig, info: DataInfo, image_size: int | None = None) -> None:
        size = config.image_size if image_size is None else image_size
        # As ClassificationPreprocess crops them.
        side = size or min(info.image_size)
        height, width = (side, side) if config.crop else info.image_size
        if config.augment.shift >= min(height, width):
            raise RecipeError(
                f"augment.shift {config.augment.shift} must be smaller than the images, which "
                f"have {height} x {width} pixels"
            )
        self.augment = augment = config.augment
        name, chance = augment.rand_augment, augment.random_erasing
        self.rand_augment = RandAugment(name, info.mean) if name else None
        self.random_erasing = RandomErasing(chance) if chance else None
        self.size = _target_size(info, size)
        self.mean, self.std = torch.tensor(info.mean), torch.tensor(info.std)

    def __call__(self, images: Tensor, random: SampleRandom) -> Tensor:
        """Transform a batch with the random numbers of its samples."""
        augment = self.augment
        if augment.flip != "none" or augment.shift:
            images = _flip_and_shift(images, augment, random)
        if self.rand_augment is not None:
            images = self.rand_augment(images, random)
        pixels = _to_float(images)
        if augment.rotate or augment.scale:
            pixels = _rotate_and_scale(pixels, augment, random)
        pixels = self._color(pixels, random)
        if augment.cutout:
            pixels.masked_fill_(_cutout_mask(pixels, augment.cutout, random), 0.0)
        if self.random_erasing is not None:
            pixels = self.random_erasing(pixels, random)
        return _resize(crop_center(pixels, self.size), self.size)

    def _color(self, pixels: Tensor, random: SampleRandom) -> Tensor:
        """Brightness, contrast and normalization of pixels 0..255, as one linear map per image."""
        mean, std = (_per_channel(fact).to(pixels.device) for fact in (self.mean, self.std))
        factor, offset = 1 / (255 * std), -mean / std
        if self.augment.brightness:
            factor = factor * _factors(random, "brightness", self.augment.brightness)
        if self.augment.contrast:
            # p -> m + c (p - m) with the image's own mean m, as torchvision's jitter does.
            contrast = _factors(random, "contrast", self.augment.contrast)
            offset = offset + factor * (1 - contrast) * pixels.mean((1, 2, 3), keepdim=True)
            factor = factor * contrast
        return torch.addcmul(offset, pixels, factor)


def _target_size(info: DataInfo, image_size: int | None) -> tuple[int, int]:
    return info.image_size if image_size is None else (image_size, image_size)


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def _to_float(images: Tensor) -> Tensor:
    """uint8 -> float32 in 0..255, channels-last."""
    return images.contiguous(memory_format=torch.channels_last).float()


def _resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) float -> (B, 3, height, width), channels-last."""
    if tuple(pixels.shape[2:]) != size:
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return pixels.contiguous(memory_format=torch.channels_last)


def _factors(random: SampleRandom, stream: str, amplitude: float) -> Tensor:
    """(B, 1, 1, 1), uniform between 1 - amplitude and 1 + amplitude."""
    return 1 + amplitude * (2 * random.uniform(stream)[:, :, None, None] - 1)


def _flip_and_shift(images: Tensor, augment: AugmentConfig, random: SampleRandom) -> Tensor:
    """(B, 3, H, W) uint8 -> the same shape; one gather does both."""
    batch, channels, height, width = images.shape
    rows = _shifted(height, augment.shift, "shift rows", random)
    columns = _shifted(width, augment.shift, "shift columns", random)
    flipped = _flips(augment.flip, random)
    if flipped is not None:
        columns = torch.where(flipped, width - 1 - columns, columns)
    source = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, height * width)
    planes = images.reshape(batch, channels, height * width)
    return planes.gather(2, source.expand(-1, channels, -1)).view_as(images)


def _shifted(length: int, shift: int, stream: str, random: SampleRandom) -> Tensor:
    """(B, length): source positions along one axis, reflected at the edges."""
    positions = torch.arange(length, device=random.indices.device)
    if shift:
        positions = (positions + random.integers(stream, -shift, shift + 1)).abs()
        last = length - 1
        return last - (last - positions).abs()
    return positions.expand(len(random.indices), -1)


def _flips(flip: str, random: SampleRandom) -> Tensor | None:
    """(B, 1) bool: which images to flip; None for none."""
    if flip == "random":
        return random.uniform("flip") < 0.5
    if flip == "alternate":
        # Keller Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024.
        return (random.at_epoch(0).uniform("flip") < 0.5) ^ (random.epoch % 2 == 1)
    return None


def _rotate_and_scale(pixels: Tensor, augment: AugmentConfig, random: SampleRandom) -> Tensor:
    """(B, 3, H, W) float -> the same shape, rotated and scaled, with reflection at the edges."""
    height, width = pixels.shape[2:]
    turns = (2 * random.uniform("rotate")[:, 0] - 1) * math.radians(augment.rotate)
    zoom = _factors(random, "scale", augment.scale).flatten()
    # The grid maps results to sources in units of half a side, hence the inverse of the zoom and
    # the aspect.
    cos, sin, zero = turns.cos() / zoom, turns.sin() / zoom, torch.zeros_like(turns)
    theta = torch.stack(
        [
            torch.stack([cos, -sin * (height / width), zero], dim=1),
            torch.stack([sin * (width / height), cos, zero], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    turned = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    return turned.contiguous(memory_format=torch.channels_last)


def _cutout_mask(pixels: Tensor, side: int, random: SampleRandom) -> Tensor:
    """(B, 1, H, W) bool: a square around a random pixel, which may extend beyond the edge.

    DeVries, Taylor: "Improved regularization of convolutional neural networks with cutout", 2017.
    """
    height, width = pixels.shape[2:]
    inside = []
    for length, stream in ((height, "cutout rows"), (width, "cutout columns")):
        first = random.integers(stream, 0, length) - side // 2
        positions = torch.arange(length, device=pixels.device)
        inside.append((positions >= first) & (positions < first + side))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]
