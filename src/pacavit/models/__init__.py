"""The models. Importing this package registers them with timm."""

from pacavit.models.pacavit import PacaViT
from pacavit.models.stage import Stage

__all__ = ["PacaViT", "Stage"]
