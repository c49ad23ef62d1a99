"""Heads of dense tasks. Importing this package registers them."""

from pacavit.heads.base import HEADS, HeadOutput, SegmentationHead

__all__ = ["HEADS", "HeadOutput", "SegmentationHead"]
