"""A network and images for runs that take about a second; a plugin, for other processes as well."""

from __future__ import annotations

from typing import ClassVar

import torch
from timm.models import register_model
from torch import Tensor, nn

from pacavit.data import DATASETS, DataInfo, DataSource, MemoryImages, Split


class TinyNet(nn.Module):
    """(B, 3, 8, 8) -> logits; with BatchNorm and dropout, so that buffers and generators count."""

    def __init__(self, num_classes: int, width: int, drop: float, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.drop = nn.Dropout(drop)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.norm(self.conv(x)).relu()
        return self.head(self.drop(maps.mean((2, 3)) + maps.amax((2, 3))))


@register_model
def tiny_net(
    pretrained: bool = False,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
    num_classes: int = 3,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    width: int = 8,
    drop: float = 0.2,
    norm: bool = True,
) -> TinyNet:
    assert in_chans == 3
    return TinyNet(num_classes, width, drop, norm)


@DATASETS.register("tiny-stripes")
class Stripes(DataSource):
    """Three classes of 8 x 8 noise with a bright row, column or neither."""

    default_val_size: ClassVar[int] = 12

    @property
    def info(self) -> DataInfo:
        half = (0.5, 0.5, 0.5)
        return DataInfo(
            "tiny-stripes", "made by the tests", ("row", "column", "none"), (8, 8), half, half
        )

    def load(self, split: Split) -> MemoryImages:
        num = {"train": 50, "val": self.val_size, "test": 30}[split]
        generator = torch.Generator().manual_seed(len(split))
        images = torch.randint(0, 120, (num, 3, 8, 8), generator=generator, dtype=torch.uint8)
        labels = torch.arange(num) % 3
        images[labels == 0, :, 3] = 255
        images[labels == 1, :, :, 3] = 255
        return MemoryImages(images, labels)
