"""Explanations: recorded attention, maps and masks of clusters, rollout, and other methods.

Importing this package registers the methods.
"""

from pacavit.data.placement import Placement
from pacavit.explain.choice import MapChoice, choose_maps, default_method
from pacavit.explain.core.geometry import Sampling, samplings, upsample
from pacavit.explain.core.maps import (
    attention_map,
    class_map,
    heatmaps,
    importance,
    partition,
    patch_attention,
    patch_map,
    received,
)
from pacavit.explain.core.masks import (
    THRESHOLDS,
    binary_mask,
    keep,
    mask_area,
    remove,
    restored_mask,
)
from pacavit.explain.core.record import BlockRecord, Recording, record
from pacavit.explain.core.rollout import relevance, rollout
from pacavit.explain.images import (
    FailedImage,
    ImageExplanation,
    StageClusters,
    cluster_mask,
    explain_images,
    explain_split,
    find_class,
    has_clusters,
)
from pacavit.explain.methods import METHODS, Method, baselines, contributions, method_title

__all__ = [
    "METHODS",
    "THRESHOLDS",
    "BlockRecord",
    "FailedImage",
    "ImageExplanation",
    "MapChoice",
    "Method",
    "Placement",
    "Recording",
    "Sampling",
    "StageClusters",
    "attention_map",
    "baselines",
    "binary_mask",
    "choose_maps",
    "class_map",
    "cluster_mask",
    "contributions",
    "default_method",
    "explain_images",
    "explain_split",
    "find_class",
    "has_clusters",
    "heatmaps",
    "importance",
    "keep",
    "mask_area",
    "method_title",
    "partition",
    "patch_attention",
    "patch_map",
    "received",
    "record",
    "relevance",
    "remove",
    "restored_mask",
    "rollout",
    "samplings",
    "upsample",
]
