"""Explanations: recorded attention, maps and masks of clusters, rollout, and other methods.

Importing this package registers the methods.
"""

from pacavit.data.placement import Placement
from pacavit.explain.boxes import BoxScores
from pacavit.explain.choice import MapChoice, choose_maps, default_method
from pacavit.explain.classification import (
    ImageExplanation,
    StageClusters,
    cluster_mask,
    explain_split,
    has_clusters,
)
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
from pacavit.explain.detection import BoxExplanation, DetectionExplanation
from pacavit.explain.explainer import ExplainOptions, Explanation, FailedImage, find_class
from pacavit.explain.images import explain_images, explainer_of
from pacavit.explain.methods import METHODS, Method, baselines, contributions, method_title
from pacavit.explain.regions import RegionScores, connected_region, input_region
from pacavit.explain.segmentation import (
    HeadClusters,
    RegionExplanation,
    SegmentationExplanation,
)

__all__ = [
    "METHODS",
    "THRESHOLDS",
    "BlockRecord",
    "BoxExplanation",
    "BoxScores",
    "DetectionExplanation",
    "ExplainOptions",
    "Explanation",
    "FailedImage",
    "HeadClusters",
    "ImageExplanation",
    "MapChoice",
    "Method",
    "Placement",
    "Recording",
    "RegionExplanation",
    "RegionScores",
    "Sampling",
    "SegmentationExplanation",
    "StageClusters",
    "attention_map",
    "baselines",
    "binary_mask",
    "choose_maps",
    "class_map",
    "cluster_mask",
    "connected_region",
    "contributions",
    "default_method",
    "explain_images",
    "explain_split",
    "explainer_of",
    "find_class",
    "has_clusters",
    "heatmaps",
    "importance",
    "input_region",
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
