"""Attentions: the second extension point, one file a method."""

from pacavit.attention.base import ATTENTIONS, Attention
from pacavit.attention.full import FullAttention
from pacavit.attention.paca import PacaAttention

__all__ = ["ATTENTIONS", "Attention", "FullAttention", "PacaAttention"]
