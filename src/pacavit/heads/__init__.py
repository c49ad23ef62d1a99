"""Heads of dense tasks. Importing this package registers them."""

from pacavit.heads.base import HEADS, HeadAttention, HeadOutput, SegmentationHead
from pacavit.heads.paca import PacaHead
from pacavit.heads.upernet import UperNetHead

__all__ = [
    "HEADS",
    "HeadAttention",
    "HeadOutput",
    "PacaHead",
    "SegmentationHead",
    "UperNetHead",
]
