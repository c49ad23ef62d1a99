"""A network, images and a task for runs of about a second; a plugin, also in subprocesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from timm.models import register_model
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from pacavit.data import (
    DATASETS,
    Batch,
    DataInfo,
    DataSource,
    MemoryImages,
    Placement,
    Preprocess,
    Region,
    Sample,
    SampleRandom,
    Split,
    fit_image,
)
from pacavit.tasks import TASKS, NetworkFactory, Task, TaskConfig
from pacavit.tasks.classification.transforms import EvalTransform


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


class GuessConfig(TaskConfig):
    """Settings of the task."""

    name: Literal["guess"]
    scale: float


class GuessPreprocess(Preprocess):
    """Normalized images, never augmented."""

    def __init__(self, info: DataInfo, image_size: int | None) -> None:
        self.stored_size, self.transform = info.image_size, EvalTransform(info, image_size)

    def sample(self, sample: Sample, random: SampleRandom) -> tuple[Sample, Placement]:
        size = sample.image.shape[1], sample.image.shape[2]
        image = fit_image(sample.image, self.stored_size)
        placement = Placement(size, Region(0, 0, *size), self.transform.size)
        return replace(sample, image=image), placement

    def batch(self, batch: Batch, random: SampleRandom) -> Batch:
        return replace(batch, images=self.transform(batch.images))


class Closeness(Metric):
    """1 for exact guesses, nearer 0 the further off."""

    full_state_update = False
    off: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("off", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, guesses: Sequence[float], labels: Tensor) -> None:
        self.off += (torch.tensor(guesses) - labels).abs().sum()
        self.count += len(labels)

    def compute(self) -> Tensor:
        return 1 / (1 + self.off / self.count)


@TASKS.register("guess")
class Guess(Task):
    """Takes labels for numbers; losses are means over pixels, and not all pixels are labeled."""

    config_type = GuessConfig
    main_metric = "closeness"
    target = "label"

    def __init__(self, model: nn.Module, config: GuessConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    @classmethod
    def build(cls, config: GuessConfig, info: DataInfo, network: NetworkFactory) -> Guess:
        return cls(network(num_classes=4), config)

    @classmethod
    def preprocess(
        cls,
        config: GuessConfig,
        info: DataInfo,
        *,
        training: bool,
        image_size: int | None = None,
        epochs: int = 1,
    ) -> Preprocess:
        return GuessPreprocess(info, image_size or config.image_size)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        pixels, guesses = labeled_pixels(batch), self._guess(batch)
        total = pixels.sum().clamp_min(1)
        square = (guesses - batch.targets).square()
        return {
            "square": (pixels * square).sum() / total,
            "size": (pixels * guesses**2).sum() / total,
        }

    def loss_weight(self, batch: Batch) -> Tensor:
        return labeled_pixels(batch).sum().double()

    @torch.no_grad()
    def predict(self, batch: Batch) -> list[float]:
        return self._guess(batch).tolist()

    def metrics(self) -> MetricCollection:
        metrics: Any = {"closeness": Closeness()}
        return MetricCollection(metrics)

    def _guess(self, batch: Batch) -> Tensor:
        return self.config.scale * self.model(batch.images).float().mean(1)


def labeled_pixels(batch: Batch) -> Tensor:
    """(B,): how many pixels of each image are labeled; none in images of the third class."""
    bright = (batch.images[:, 0] > -0.2).sum((1, 2))
    return bright * (batch.targets < 2)
