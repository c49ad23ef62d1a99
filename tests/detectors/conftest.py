"""A small backbone, and images with objects."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pacavit.detectors import Target
from pacavit.models import Pyramid, build_pyramid

SIZE = (64, 96)


@pytest.fixture
def backbone() -> Pyramid:
    torch.manual_seed(0)
    widths = {"embed_dims": (16, 24, 32), "stem_dims": (8, 16), "num_heads": (2, 2, 2)}
    return build_pyramid("pacavit_nano", stem_stride=4, **widths)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def targets() -> list[Target]:
    """Two objects in the first image and one in the second, which are bright in no image."""
    boxes = torch.tensor([[8.0, 8, 40, 40], [30, 20, 92, 60], [2, 30, 22, 54]])
    masks = torch.zeros(3, *SIZE, dtype=torch.bool)
    for row, (left, top, right, bottom) in enumerate(boxes.int().tolist()):
        masks[row, top + 2 : bottom, left : right - 3] = True
    labels = torch.tensor([0, 2, 1])
    return [Target(boxes[rows], labels[rows], masks[rows]) for rows in (slice(0, 2), slice(2, 3))]
