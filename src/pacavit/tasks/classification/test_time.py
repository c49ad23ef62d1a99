"""Test-time augmentation: predict several views of each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

__all__ = ["TEST_TIME_VIEWS"]


def _flip(images: Tensor) -> Sequence[Tensor]:
    """The images and their mirror images."""
    return images, images.flip(3)


TEST_TIME_VIEWS: Mapping[str, Callable[[Tensor], Sequence[Tensor]]] = {"flip": _flip}
"""By name: (B, 3, height, width) network input -> views of it, of the same shape."""
