"""The models. Importing this package registers them with timm."""

from pacavit.models.pacavit import PacaViT, Stage

__all__ = ["PacaViT", "Stage"]
