"""A classifier that sees brightness, made by hand, and pictures with one bright square."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit import recipes
from pacavit.clustering.base import Clustering
from pacavit.data import DataInfo
from pacavit.engine.weights.load import LoadedModel
from pacavit.models import PacaViT
from pacavit.tasks import ClassificationTask
from pacavit.tasks.classification.config import ClassificationConfig, CropConfig
from pacavit.types import Grid

INFO = DataInfo("made", "by hand", ("dark", "bright"), (32, 32), (0.5,) * 3, (0.5,) * 3)

MakeModel = Callable[..., LoadedModel]
DrawSquare = Callable[[tuple[int, int], tuple[int, int, int, int]], Path]
MakeSmall = Callable[..., PacaViT]
SpellOut = Callable[[nn.Module, Tensor, int], list[Tensor]]


class Brightness(Clustering):
    """Cluster 0 gathers bright patches, cluster 1 dark ones."""

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        return torch.stack([8 * x[..., 0], -8 * x[..., 0]], 1)


@pytest.fixture
def small() -> MakeSmall:
    """Three stages, the last without clusters; keyword arguments replace settings."""

    def make(**settings: Any) -> PacaViT:
        defaults: dict[str, Any] = {
            "embed_dims": (8, 12, 16),
            "depths": (2, 2, 1),
            "num_heads": (2, 2, 4),
            "num_clusters": (5, 3, 0),
            "num_classes": 3,
        }
        return PacaViT(**defaults | settings)

    return make


@pytest.fixture
def spell_out(monkeypatch: pytest.MonkeyPatch) -> SpellOut:
    """The attentions (B, h, N, K) of a pass, and by autograd their gradients for a class."""

    def spelled_out(model: nn.Module, images: Tensor, label: int) -> list[Tensor]:
        attentions: list[Tensor] = []

        def attend(
            q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **_: Any
        ) -> Tensor:
            scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
            if attn_mask is not None:
                scores = scores.masked_fill(~attn_mask, -torch.inf)
            attentions.append(scores.softmax(3))
            attentions[-1].retain_grad()
            return attentions[-1] @ v

        with monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", attend)
            model(images)[:, label].sum().backward()
        return attentions

    return spelled_out


@pytest.fixture
def bright_model() -> MakeModel:
    """Channel 0 of a token is the brightness of its patch, and decides the class."""

    def make(
        *,
        paper_stem: bool = False,
        crop: bool = False,
        clusters: int = 2,
        depths: tuple[int, ...] = (1,),
        image_size: int = 32,
    ) -> LoadedModel:
        network: Any = PacaViT(
            embed_dims=(8,) * len(depths),
            depths=depths,
            num_heads=(1,) * len(depths),
            num_classes=2,
            num_clusters=clusters,
            stem_dims=() if paper_stem else (8,),
            act_layer=nn.Identity,
        )
        with torch.no_grad():
            for stage in network.stages:
                _carry_brightness(stage.embed)
            for block in (block for stage in network.stages for block in stage.blocks):
                for layer in (block.attn.q, block.attn.k, block.mlp.fc2):
                    layer.weight.zero_()
                for layer in (block.attn.v, block.attn.proj):
                    layer.weight.copy_(torch.eye(8))
                if clusters == 2:
                    block.clustering = Brightness(8, 2)
            network.head.weight.zero_()
            network.head.weight[0, 0], network.head.weight[1, 0] = -1, 1
        config = ClassificationConfig(image_size=image_size, crop=CropConfig() if crop else None)
        recipe = recipes.load("digits").model_copy(update={"task": config})
        task = ClassificationTask(network, config, 2).eval()
        info = replace(INFO, image_size=(image_size, image_size))
        return LoadedModel(task, recipe, info, {}, Path("made.safetensors"))

    return make


def _carry_brightness(embed: nn.Module) -> None:
    for module in embed.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            module.weight[0, : 3 if module.in_channels == 3 else 1, 1, 1] = 1 / 3
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and module.bias is not None:
            module.bias.zero_()
            module.bias[1] = 1 / 3  # so that norms keep what is bright


@pytest.fixture
def draw_square(tmp_path: Path) -> DrawSquare:
    """A dark picture of (height, width) with a white box (top, left, bottom, right), as a file."""

    def draw(size: tuple[int, int], box: tuple[int, int, int, int]) -> Path:
        image = torch.full((*size, 3), 20, dtype=torch.uint8)
        top, left, bottom, right = box
        image[top:bottom, left:right] = 255
        path = tmp_path / f"square-{size[0]}-{size[1]}.png"
        Image.fromarray(image.numpy()).save(path)
        return path

    return draw
