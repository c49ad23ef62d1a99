"""Attentions: the second extension point, one file per method."""

from pacavit.attention.agent import AgentAttention
from pacavit.attention.base import ATTENTIONS, Attention
from pacavit.attention.big_bird import BigBirdAttention
from pacavit.attention.context_cluster import ContextClusterAttention
from pacavit.attention.full import FullAttention
from pacavit.attention.linformer import LinformerAttention
from pacavit.attention.local_subsampled import LocalSubsampledAttention
from pacavit.attention.lsh import LshAttention
from pacavit.attention.paca import PacaAttention
from pacavit.attention.pooled import PooledAttention
from pacavit.attention.qkv import QkvAttention
from pacavit.attention.slow_fast import SlowFastAttention
from pacavit.attention.spatial_reduction import SpatialReductionAttention
from pacavit.attention.windows import WindowAttention

__all__ = [
    "ATTENTIONS",
    "AgentAttention",
    "Attention",
    "BigBirdAttention",
    "ContextClusterAttention",
    "FullAttention",
    "LinformerAttention",
    "LocalSubsampledAttention",
    "LshAttention",
    "PacaAttention",
    "PooledAttention",
    "QkvAttention",
    "SlowFastAttention",
    "SpatialReductionAttention",
    "WindowAttention",
]
