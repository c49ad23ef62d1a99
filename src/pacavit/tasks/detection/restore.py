"""From a detector's boxes and masks in the network's input to those in the original image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.data import Placement, Rle
from pacavit.data.formats.rle import encode_part
from pacavit.detectors import Detected
from pacavit.tasks.detection.predictions import Detections

__all__ = ["paste_mask", "restore_objects"]

_INSIDE = 0.5  # of a mask: probability from which a pixel belongs to the object


def restore_objects(found: Detected, placement: Placement) -> Detections:
    """The objects in the pixels of the original, on the CPU.

    Boxes are clipped to the image. Objects of which nothing is left are left out.
    """
    size, (top, left, height, width) = placement.image_size, placement.region
    rows, columns = height / placement.input_size[0], width / placement.input_size[1]
    boxes = found.boxes.detach().cpu().float() * torch.tensor([columns, rows, columns, rows])
    boxes += torch.tensor([left, top, left, top])
    masks = _masks(found, boxes, placement)
    boxes = boxes.clamp_min(0).minimum(torch.tensor([size[1], size[0]] * 2))
    # Written so that numbers that are not finite stay, and are reported.
    kept = ~((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    if masks is not None:
        kept &= torch.tensor([mask is not None for mask in masks], dtype=torch.bool)
    return Detections(
        boxes[kept],
        found.labels.cpu()[kept],
        found.scores.cpu()[kept].float(),
        size,
        None
        if masks is None
        else tuple(mask for mask, keep in zip(masks, kept.tolist(), strict=True) if keep and mask),
    )


def _masks(found: Detected, boxes: Tensor, placement: Placement) -> list[Rle | None] | None:
    """The mask of each object in the original, None where it has no pixel; None without masks."""
    if found.box_masks is not None:
        return [
            paste_mask(mask, box, placement.image_size)
            for mask, box in zip(found.box_masks.cpu().float(), boxes.tolist(), strict=True)
        ]
    if found.instances is not None:
        return _from_map(found.instances.cpu(), len(boxes), placement)
    return None


def paste_mask(mask: Tensor, box: list[float], size: tuple[int, int]) -> Rle | None:
    """(side, side) probabilities over a box -> the mask of an image, bilinearly.

    A pixel belongs to the object if the probability at its center is at least 0.5. He et al.,
    "Mask R-CNN", ICCV 2017.

    Args:
        mask: of the object.
        box: x1 y1 x2 y2 in pixels of the image; it may extend beyond the edge.
        size: (height, width) of the image.

    Returns:
        The mask; None if it has no pixel, or the box is not finite.
    """
    if not all(math.isfinite(value) for value in box):
        return None
    x1, y1, x2, y2 = box
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    columns = torch.arange(left, min(size[1], math.ceil(x2)), dtype=torch.float32) + 0.5
    rows = torch.arange(top, min(size[0], math.ceil(y2)), dtype=torch.float32) + 0.5
    if not (len(columns) and len(rows) and x2 > x1 and y2 > y1):
        return None
    x = (columns - x1) / (x2 - x1) * 2 - 1
    y = (rows - y1) / (y2 - y1) * 2 - 1
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
    pasted = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0] >= _INSIDE
    return encode_part(pasted, (top, left), size) if bool(pasted.any()) else None


def _from_map(instances: Tensor, number: int, placement: Placement) -> list[Rle | None]:
    """Masks from a map (height, width) of the input with k + 1 at the pixels of object k."""
    # SciPy is needed for these detectors only.
    from scipy import ndimage

    rows, columns = (
        position.round().long().clamp(0, cells - 1)
        for (position, _), cells in zip(
            placement.input_positions(), placement.input_size, strict=True
        )
    )
    pixels = instances[rows][:, columns].numpy()
    masks: list[Rle | None] = [None] * number
    for k, found in enumerate(ndimage.find_objects(pixels, max_label=number)):
        if found is not None:
            part = torch.from_numpy(np.equal(pixels[found], k + 1))
            masks[k] = encode_part(part, (found[0].start, found[1].start), placement.image_size)
    return masks
