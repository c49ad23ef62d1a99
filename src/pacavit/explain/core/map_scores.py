"""Networks of dense tasks as networks that give an image a score for each class."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pacavit.models import Pyramid

__all__ = ["MapScores", "copies_of"]


class MapScores(nn.Module):
    """Base of networks (B, 3, height, width) -> (B, classes) around a backbone of a dense task.

    All methods of :mod:`pacavit.explain.methods` explain such a network. The maps of the backbone
    pass through ``maps``, identities, so that methods that explain a layer find them: the last one
    is the coarsest.

    Args:
        backbone: shared with the caller.

    Attributes:
        feature_info: of the maps, as timm's networks have it.
    """

    def __init__(self, backbone: Pyramid) -> None:
        super().__init__()
        self.backbone = backbone
        self.maps = nn.ModuleList(nn.Identity() for _ in backbone.strides)
        self.feature_info: list[dict[str, Any]] = [
            {"module": f"maps.{index}", "reduction": stride}
            for index, stride in enumerate(backbone.strides)
        ]

    def maps_of(self, images: Tensor) -> list[Tensor]:
        """The maps of the backbone, finest first."""
        return [keep(x) for keep, x in zip(self.maps, self.backbone(images), strict=True)]


def copies_of(images: Tensor, number: int) -> int:
    """How often a batch of ``number`` images is repeated in ``images``.

    Methods that alter images send several copies of the whole batch.
    """
    copies, rest = divmod(len(images), number)
    if rest:
        raise ValueError(f"{len(images)} images are no copies of {number}")
    return copies
