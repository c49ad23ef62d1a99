"""Attentions: the second extension point, one file per method."""

from pacavit.attention.agent import AgentAttention
from pacavit.attention.base import ATTENTIONS, Attention
from pacavit.attention.big_bird import BigBirdAttention
from pacavit.attention.context_cluster import ContextClusterAttention
from pacavit.attention.full import FullAttention
from pacavit.attention.lsh import LshAttention
from pacavit.attention.paca import PacaAttention
from pacavit.attention.qkv import QkvAttention
from pacavit.attention.slow_fast import SlowFastAttention

__all__ = [
    "ATTENTIONS",
    "AgentAttention",
    "Attention",
    "BigBirdAttention",
    "ContextClusterAttention",
    "FullAttention",
    "LshAttention",
    "PacaAttention",
    "QkvAttention",
    "SlowFastAttention",
]
