"""The conformance checks notice what they promise to notice."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from pacavit.attention import Attention, QkvAttention
from pacavit.clustering import Clustering
from pacavit.detectors import Detected, Detector, Target
from pacavit.heads import HeadOutput, SegmentationHead
from pacavit.testing import check_attention, check_clustering, check_detector, check_head
from pacavit.types import Assignment, AttentionRecord, Grid, StageState


class OverBatch(Clustering):
    """Scores that depend on the other images."""

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        return (x - x.mean(0))[..., : self.num_clusters].transpose(1, 2)


class OverClusters(Clustering):
    """A softmax over clusters instead of patches."""

    def forward(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Assignment:
        weights = x[..., : self.num_clusters].softmax(2).transpose(1, 2)
        return Assignment(weights, weights.sum(2))


class Unused(Clustering):
    """A parameter without a gradient."""

    def __init__(self, dim: int, num_clusters: int) -> None:
        super().__init__(dim, num_clusters)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        return x[..., : self.num_clusters].transpose(1, 2)


class FalselyOrderFree(Clustering):
    """Claims to ignore the order of patches, and does not."""

    order_free = True

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        return x.cumsum(1)[..., : self.num_clusters].transpose(1, 2)


class IgnoresMask(QkvAttention):
    """Attends to padding."""

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        return self.attend(x, x, None), state


class Recorder(Attention):
    """Uniform attention to the patches that are not padding; records it as ``fault`` wants."""

    fault: ClassVar[str] = ""

    def __init__(self, dim: int, num_heads: int, *, stage: int, block: int) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        self.mix = torch.nn.Linear(dim, dim)

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        real = torch.ones_like(x[..., 0]) if patch_mask is None else patch_mask.to(x)
        logits = 0 * self.mix(x).sum(2)[:, None] + real.log()[:, None]
        weights = logits.softmax(2).expand(-1, x.shape[1], -1)[:, None]
        tokens = weights[:, 0] @ self.mix(x)
        if self.fault == "other tokens":
            tokens = 2 * tokens
        elif self.fault == "detached":
            weights = weights.detach()
        elif self.fault == "computed again":
            weights = weights * 1
        elif self.fault == "sums":
            weights = weights / 2
        elif self.fault == "padding":
            uniform = torch.full_like(weights, 1 / x.shape[1])
            tokens = tokens + (weights @ x[:, None])[:, 0] * 0
            weights = uniform + weights * 0
            tokens = tokens + (weights[:, 0] @ x) * 0
        return tokens, state, AttentionRecord(weights)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        real = torch.ones_like(x[..., 0]) if patch_mask is None else patch_mask.to(x)
        mean = (real / real.sum(1, keepdim=True))[:, None] @ self.mix(x)
        return mean.expand_as(x), state


@pytest.mark.parametrize(
    ("cls", "promise"),
    [
        (OverBatch, "depends on its batch"),
        (OverClusters, "sum to 1"),
        (Unused, "gets no gradient"),
        (FalselyOrderFree, "order_free"),
    ],
)
def test_broken_clustering_is_noticed(cls: type[Clustering], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_clustering(cls)


def test_broken_attention_is_noticed() -> None:
    with pytest.raises(AssertionError, match="padded patches"):
        check_attention(IgnoresMask)


def test_a_sound_record_is_accepted() -> None:
    check_attention(Recorder)


@pytest.mark.parametrize(
    ("fault", "promise"),
    [
        ("other tokens", "recorded tokens are not those of forward"),
        ("detached", "not in the graph"),
        ("computed again", "not computed from the recorded weights"),
        ("sums", "do not sum to 1"),
        ("padding", "go to padded patches"),
    ],
)
def test_broken_records_are_noticed(fault: str, promise: str) -> None:
    broken = type("Broken", (Recorder,), {"fault": fault})
    with pytest.raises(AssertionError, match=promise):
        check_attention(broken)


class Linear1x1(SegmentationHead):
    """One convolution of the finest map, and one of each coarser map; wrong as ``fault`` wants."""

    fault: ClassVar[str] = ""
    loss_weights: ClassVar[Mapping[str, float]] = {"coarse": 1.0}

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], num_classes: int
    ) -> None:
        super().__init__(in_channels, strides, num_classes)
        self.layers = nn.ModuleList(nn.Conv2d(number, num_classes, 1) for number in in_channels)
        if self.fault == "unused":
            self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        if self.fault == "map":
            maps = [each.detach() for each in maps]
        finest, middle, coarsest = (
            layer(each) for layer, each in zip(self.layers, maps, strict=True)
        )
        axes = (0, 2, 3) if self.fault == "batch" else (2, 3)
        logits = finest + middle.mean(axes, keepdim=True)
        if self.fault == "shape":
            logits = logits.flatten(2)
        name = "unknown" if self.fault == "weight" else "coarse"
        return HeadOutput(logits, {name: coarsest})

    def classifiers(self) -> Sequence[nn.Module]:
        return list(self.layers)


def test_a_sound_head_is_accepted() -> None:
    check_head(Linear1x1)


@pytest.mark.parametrize(
    ("fault", "promise"),
    [
        ("batch", "depends on its batch"),
        ("shape", "logits are"),
        ("weight", "no factor for 'unknown'"),
        ("map", "no gradient reaches a map"),
        ("unused", "gets no gradient"),
    ],
)
def test_broken_heads_are_noticed(fault: str, promise: str) -> None:
    broken = type("Broken", (Linear1x1,), {"fault": fault})
    with pytest.raises(AssertionError, match=promise):
        check_head(broken)


class Centers(Detector):
    """A box of fixed size at the most likely position; ``fault`` names the promise it breaks."""

    has_masks, loss_names = False, ("classes", "boxes")
    fault = ""

    def __init__(self, backbone: Any, num_classes: int) -> None:
        super().__init__(backbone, num_classes)
        self.classes = nn.Conv2d(backbone.channels[-1], num_classes, 1)
        self.sides = nn.Conv2d(backbone.channels[-1], 2, 1)

    def losses(
        self, images: Tensor, targets: Sequence[Target], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        x = self.backbone(images)[-1]
        x = x.detach() if self.fault == "map" else x
        number = sum(len(target.labels) for target in targets)
        losses = {
            "classes": self.classes(x).square().sum() / (number if self.fault == "nan" else 1),
            "boxes": self.sides(x).square().mean(),
        }
        return losses | ({"more": losses["boxes"]} if self.fault == "names" else {})

    def forward(self, images: Tensor) -> list[Detected]:
        x = self.backbone(images)[-1]
        logits = self.classes(x).amax((2, 3))
        if self.fault == "batch":
            logits = logits - logits.mean(0)
        scores, labels = logits.sigmoid().sort(dim=1, descending=self.fault != "order")
        scores = scores if self.fault == "half" else scores.float()
        box = torch.tensor([0.0, 0, 400 if self.fault == "outside" else 8, 8])
        boxes = box.expand(len(scores[0]), 4)
        return [Detected(boxes, *each) for each in zip(labels, scores, strict=True)]

    def class_logits(self, maps: Sequence[Tensor], size: tuple[int, int], boxes: Tensor) -> Tensor:
        x = maps[-1].detach() if self.fault == "detached" else maps[-1]
        logits: Tensor = self.classes(x).mean((2, 3)).float() + 0 * maps[-1].sum()
        return logits

    def classifiers(self) -> Sequence[nn.Module]:
        return () if self.fault == "classifiers" else (self.classes,)


def test_a_sound_detector_is_accepted() -> None:
    check_detector(Centers)


@pytest.mark.parametrize(
    ("fault", "promise"),
    [
        ("map", "backbone.*gets no gradient"),
        ("nan", "'classes' of images without objects is not finite"),
        ("names", "loss_names are"),
        ("batch", "of an image depend on its batch"),
        ("order", "scores do not fall"),
        ("half", "scores are torch.bfloat16, not fp32"),
        ("outside", "boxes are not inside"),
        ("detached", "no gradient of class_logits reaches the image"),
        ("classifiers", "classes.weight depends on the number of classes"),
    ],
)
def test_broken_detectors_are_noticed(fault: str, promise: str) -> None:
    broken = type("Broken", (Centers,), {"fault": fault})
    with pytest.raises(AssertionError, match=promise):
        check_detector(broken)
