"""Common corruptions of images, to measure how robust a classifier is.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, https://arxiv.org/abs/1903.12261: five of its kinds, one or two of each
of its groups (noise, blur, weather, digital), in five severities.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pacavit.data.base import LabeledImages, Sample
from pacavit.errors import UnknownNameError

__all__ = ["CORRUPTIONS", "SEVERITIES", "CorruptedImages", "corrupt", "corrupt_images"]

SEVERITIES = (1, 2, 3, 4, 5)
_ROUNDING = 1e-6
"""So that a whole number is not truncated to the one below because 1 / 255 is inexact."""
_SMALL_SIDE = 64
"""Up to this shorter side, images get the strengths of CIFAR-10-C, else those of ImageNet-C."""


def _gaussian_noise(x: Tensor, std: float, random: np.random.Generator) -> Tensor:
    """Independent noise of every value: (3, H, W) in 0..1 -> (3, H, W)."""
    return x + std * torch.from_numpy(random.standard_normal(x.shape))


def _defocus_blur(x: Tensor, strength: tuple[float, float], _: np.random.Generator) -> Tensor:
    """The mean over a disk of that radius, whose edge is smoothed: (3, H, W) -> (3, H, W)."""
    radius, edge = strength
    reach = max(8, int(radius))
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (place.square() + place[:, None].square() <= radius**2).double()
    half = 1 if radius <= 8 else 2
    bell = (-torch.arange(-half, half + 1, dtype=torch.float64).square() / (2 * edge**2)).exp()
    bell = bell / bell.sum()
    kernel = F.conv2d(
        _mirrored(disk[None, None] / disk.sum(), half), torch.outer(bell, bell)[None, None]
    )
    return F.conv2d(_mirrored(x[:, None], reach), kernel)[:, 0]


def _contrast(x: Tensor, factor: float, _: np.random.Generator) -> Tensor:
    """Closer to the mean of each channel: (3, H, W) -> (3, H, W)."""
    mean = x.mean((1, 2), keepdim=True)
    return (x - mean) * factor + mean


def _pixelate(x: Tensor, factor: float, _: np.random.Generator) -> Tensor:
    """Fewer pixels, enlarged again: (3, H, W) -> (3, H, W)."""
    image = _as_picture(x)
    small = [max(1, int(side * factor)) for side in image.size]
    return _from_picture(
        image.resize((small[0], small[1]), Image.Resampling.BOX).resize(
            image.size, Image.Resampling.BOX
        )
    )


def _jpeg(x: Tensor, quality: int, _: np.random.Generator) -> Tensor:
    """Compressed with that quality: (3, H, W) -> (3, H, W)."""
    stream = io.BytesIO()
    _as_picture(x).save(stream, "JPEG", quality=quality)
    return _from_picture(Image.open(stream))


@dataclass(frozen=True)
class _Kind:
    """A corruption, and its strengths by severity for small and for large images."""

    apply: Callable[[Tensor, Any, np.random.Generator], Tensor]
    small: tuple[Any, ...]
    large: tuple[Any, ...]


_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "gaussian_noise": _Kind(
            _gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)
        ),
        "defocus_blur": _Kind(
            _defocus_blur,
            ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
            ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ),
        "contrast": _Kind(_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
        "pixelate": _Kind(_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
        "jpeg": _Kind(_jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    }
)

CORRUPTIONS = tuple(_KINDS)


def corrupt(image: Tensor, name: str, severity: int, *, seed: int = 0, index: int = 0) -> Tensor:
    """Corrupt an image: (3, H, W) uint8 -> (3, H, W) uint8.

    Strengths are those of CIFAR-10-C for images whose shorter side is at most 64 pixels, and those
    of ImageNet-C for larger ones. Values are truncated to whole numbers, as there.

    Args:
        image: RGB.
        name: of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: of noise.
        index: position of the image in its set; with the seed, it determines the noise.

    Raises:
        UnknownNameError: there is no such corruption or severity.
    """
    if name not in _KINDS:
        raise UnknownNameError("corruption", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise UnknownNameError("severity", str(severity), [str(each) for each in SEVERITIES])
    kind = _KINDS[name]
    strengths = kind.small if min(image.shape[1:]) <= _SMALL_SIDE else kind.large
    random = np.random.default_rng([seed, index])
    changed = kind.apply(image.double() / 255, strengths[severity - 1], random)
    return (changed.clamp(0, 1) * 255 + _ROUNDING).to(torch.uint8)


@dataclass(frozen=True, eq=False)
class CorruptedImages(LabeledImages):
    """Labeled images, each corrupted when it is read.

    Attributes:
        source: the images as they are stored.
        name: of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: of noise.
    """

    source: LabeledImages
    name: str
    severity: int
    seed: int = 0

    @property
    def labels(self) -> Tensor:  # type: ignore[override]
        """Those of the source."""
        return self.source.labels

    @property
    def device(self) -> torch.device:
        """That of the source."""
        return self.source.device

    def __getitem__(self, index: int) -> Sample:
        """The corrupted image at a position; raises DataError if it is broken."""
        sample = self.source[index]
        return replace(sample, image=self._corrupt(sample.image, index))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) positions -> (B, 3, height, width) uint8 corrupted images and B rows of labels."""
        images, labels = self.source.batch(indices)
        pairs = zip(images, indices.tolist(), strict=True)
        return torch.stack([self._corrupt(image, index) for image, index in pairs]), labels

    def to(self, device: torch.device) -> CorruptedImages:
        """The same, with targets and batches on another device."""
        source = self.source.to(device)
        assert isinstance(source, LabeledImages)
        return replace(self, source=source)

    def file(self, index: int) -> Path | None:
        """That of the source."""
        return self.source.file(index)

    def location(self, index: int) -> str:
        """That of the source."""
        return self.source.location(index)

    def add_broken(self, broken: Mapping[str, str]) -> None:
        """Record images that could not be read with the source."""
        self.source.add_broken(broken)

    def _corrupt(self, image: Tensor, index: int) -> Tensor:
        changed = corrupt(image.cpu(), self.name, self.severity, seed=self.seed, index=index)
        return changed.to(image.device)


class _CorruptedFiles(CorruptedImages):
    """Corrupted images that are decoded when they are accessed."""

    in_files = True


def corrupt_images(
    images: LabeledImages, name: str, severity: int, *, seed: int = 0
) -> CorruptedImages:
    """A set of images with one corruption, see :func:`corrupt`.

    Args:
        images: in memory or in files.
        name: of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: of noise.
    """
    cls = _CorruptedFiles if images.in_files else CorruptedImages
    return cls(images, name, severity, seed)


def _mirrored(x: Tensor, reach: int) -> Tensor:
    """(B, C, H, W) -> the same with borders that mirror it, as often as its sides need."""
    rows, columns = (_mirrored_places(side, reach) for side in x.shape[2:])
    return x[:, :, rows][:, :, :, columns]


def _mirrored_places(side: int, reach: int) -> Tensor:
    """Places of an axis from ``-reach`` to beyond its end, mirrored at its first and last."""
    place = torch.arange(-reach, side + reach) % max(1, 2 * side - 2)
    return torch.minimum(place, (2 * side - 2) - place).clamp(min=0)


def _as_picture(x: Tensor) -> Image.Image:
    values = (x * 255).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).numpy())


def _from_picture(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).double() / 255
