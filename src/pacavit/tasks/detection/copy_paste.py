"""Objects of one image pasted into another.

Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation",
CVPR 2021; without its blurred edges, which its authors found to make no difference.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pacavit.data import Batch, SampleRandom
from pacavit.tasks.detection.config import ObjectAugmentConfig
from pacavit.tasks.detection.window import boxes_of, count_pixels

__all__ = ["copy_paste"]


def copy_paste(batch: Batch, augment: ObjectAugmentConfig, random: SampleRandom) -> Batch:
    """Paste a random half of the objects of each image into its neighbor, for some images.

    The images of a batch are pairs: the first and the second, the third and the fourth, and so on;
    a last one without a partner stays as it is. Objects that are covered lose pixels, and are left
    out if less than ``min_visible`` of them is left.

    Args:
        batch: uint8 images and targets with masks, see ``DetectionPreprocess``.
        augment: with ``copy_paste``, the fraction of the images.
        random: of the samples of the batch.
    """
    images, targets = batch.images.clone(), list(batch.targets or ())
    wanted = (random.uniform("paste")[:, 0] < augment.copy_paste).tolist()
    for own in range(len(batch) - len(batch) % 2):
        other = own ^ 1
        if not wanted[own] or not len(batch.targets[other]["labels"]):
            continue
        height, width = batch.placements[own].input_size
        source = batch.targets[other]
        draws = random.sample(own).uniform("pasted objects", len(source["labels"]))[0]
        pasted = {
            name: values[draws <= max(0.5, float(draws.min()))] for name, values in source.items()
        }
        # Padding stays padding.
        masks = pasted["masks"].clone()
        masks[:, height:], masks[:, :, width:] = False, False
        cover = masks.any(0)
        images[own] = torch.where(cover, batch.images[other], batch.images[own])
        covered = _with_masks(batch.targets[own], batch.targets[own]["masks"] & ~cover, augment)
        added = _with_masks(pasted, masks, augment)
        targets[own] = {name: torch.cat([covered[name], added[name]]) for name in covered}
    return replace(batch, images=images, targets=targets if batch.targets is not None else None)


def _with_masks(
    target: dict[str, Tensor], masks: Tensor, augment: ObjectAugmentConfig
) -> dict[str, Tensor]:
    """A target whose masks have lost pixels: with new boxes, without what is hardly visible."""
    before, after = count_pixels(target["masks"]), count_pixels(masks)
    changed = after < before
    boxes = torch.where(changed[:, None], boxes_of(masks), target["boxes"])
    kept = (after > 0) & (after >= augment.min_visible * before)
    return {"boxes": boxes[kept], "labels": target["labels"][kept], "masks": masks[kept]}
