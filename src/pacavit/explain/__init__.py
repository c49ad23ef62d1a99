"""See inside: recordings of attention, cluster maps, masks, rollout."""

from pacavit.explain.geometry import Placement, Sampling, samplings, upsample
from pacavit.explain.maps import (
    attention_map,
    class_map,
    heatmaps,
    importance,
    partition,
    patch_attention,
    patch_map,
    received,
)
from pacavit.explain.masks import THRESHOLDS, binary_mask, keep, remove
from pacavit.explain.record import BlockRecord, Recording, record
from pacavit.explain.rollout import relevance, rollout

__all__ = [
    "THRESHOLDS",
    "BlockRecord",
    "Placement",
    "Recording",
    "Sampling",
    "attention_map",
    "binary_mask",
    "class_map",
    "heatmaps",
    "importance",
    "keep",
    "partition",
    "patch_attention",
    "patch_map",
    "received",
    "record",
    "relevance",
    "remove",
    "rollout",
    "samplings",
    "upsample",
]
