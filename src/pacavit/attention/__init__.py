"""Attentions: the second extension point, one file per method."""

from pacavit.attention.base import ATTENTIONS, Attention
from pacavit.attention.full import FullAttention
from pacavit.attention.paca import PacaAttention
from pacavit.attention.qkv import QkvAttention

__all__ = ["ATTENTIONS", "Attention", "FullAttention", "PacaAttention", "QkvAttention"]
