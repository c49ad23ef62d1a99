"""Attentions: the second extension point, one file per method."""

from pacavit.attention.base import ATTENTIONS, Attention
from pacavit.attention.full import FullAttention
from pacavit.attention.linformer import LinformerAttention
from pacavit.attention.local_subsampled import LocalSubsampledAttention
from pacavit.attention.paca import PacaAttention
from pacavit.attention.pooled import PooledAttention
from pacavit.attention.qkv import QkvAttention
from pacavit.attention.spatial_reduction import SpatialReductionAttention
from pacavit.attention.windows import WindowAttention

__all__ = [
    "ATTENTIONS",
    "Attention",
    "FullAttention",
    "LinformerAttention",
    "LocalSubsampledAttention",
    "PacaAttention",
    "PooledAttention",
    "QkvAttention",
    "SpatialReductionAttention",
    "WindowAttention",
]
