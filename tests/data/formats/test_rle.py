from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from pacavit.data.formats.rle import Rle, encode_masks, encode_part

SEEDS = range(60)


def random_mask(seed: int) -> Tensor:
    """(H, W) bool: noise of some density, all, or nothing."""
    generator = torch.Generator().manual_seed(seed)
    height, width = torch.randint(1, 90, (2,), generator=generator).tolist()
    density = {0: 0.0, 1: 1.0}.get(seed % 6, float(torch.rand(1, generator=generator)))
    return torch.rand(height, width, generator=generator) < density


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_are_written_and_read_as_coco_does(seed: int) -> None:
    mask = random_mask(seed)
    [found] = encode_masks(mask[None])
    original = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    assert found == Rle((mask.shape[0], mask.shape[1]), original["counts"])
    assert torch.equal(found.decode(), mask)
    assert found.area == int(mask.sum())
    x1, y1, x2, y2 = map(int, found.box)
    assert int(mask[y1:y2, x1:x2].sum()) == found.area
    if found.area:
        for edge in (mask[y1], mask[y2 - 1], mask[:, x1], mask[:, x2 - 1]):
            assert edge.any()


def test_large_runs_are_read() -> None:
    mask = torch.zeros(900, 1200, dtype=torch.bool)
    mask[100:700, 3:1100] = True
    mask[300, 500] = False
    [found] = encode_masks(mask[None])
    assert torch.equal(found.decode(), mask)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_part_of_a_mask_is_the_mask_with_it(seed: int) -> None:
    part = random_mask(seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    top, below, left, right = torch.randint(0, 5, (4,), generator=generator).tolist()
    whole = torch.zeros(top + part.shape[0] + below, left + part.shape[1] + right).bool()
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    size = (whole.shape[0], whole.shape[1])
    assert encode_part(part, (top, left), size) == encode_masks(whole[None])[0]


def test_no_masks() -> None:
    assert encode_masks(torch.zeros(0, 3, 4)) == ()
