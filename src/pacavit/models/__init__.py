"""The models. Importing this package registers them with timm."""

from pacavit.models import originals as _originals  # noqa: F401 (registers the original names)
from pacavit.models.macs import count_macs
from pacavit.models.pacavit import PacaViT
from pacavit.models.pyramid import Pyramid, build_pyramid
from pacavit.models.stage import Stage
from pacavit.models.teacher import ConvMixerTeacher, Teacher

__all__ = [
    "ConvMixerTeacher",
    "PacaViT",
    "Pyramid",
    "Stage",
    "Teacher",
    "build_pyramid",
    "count_macs",
]
