"""The interface of all explanation methods: images and classes in, maps out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import timm.layers
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import PacavitError
from pacavit.explain.core import maps
from pacavit.explain.core.geometry import find_pacavit, samplings, upsample
from pacavit.explain.core.record import (
    BlockRecord,
    check_weights,
    choose_stage,
    record,
    record_until,
    uncompiled,
)
from pacavit.explain.core.rollout import relevance, rollout
from pacavit.layers import evaluation_mode
from pacavit.models import PacaViT
from pacavit.tasks.graph import EngineClassifier, EngineHead
from pacavit.utils.registry import Registry

__all__ = [
    "METHODS",
    "AttentionMap",
    "ClassMap",
    "ClusterMethod",
    "Method",
    "Relevance",
    "Rollout",
    "class_scores",
    "frozen_eval",
    "holds_pacavit",
    "method_title",
    "prefix_tokens",
    "runs_file",
    "token_maps",
]


class Method(ABC):
    """Computes a map for an image and a class, which is high where the evidence for it lies.

    Args:
        model: a classifier, (B, 3, height, width) -> (B, num_classes).

    Attributes:
        class_specific: the map depends on the class.
        works_on: description of the networks that it can explain.
        sums_blocks: the map is a sum over the blocks of a stage.
        stages: the stages whose clusters make the map; empty for maps without clusters.
        needs_network: the method needs gradients, or what is inside of the network; if False, its
            outputs suffice, as exported files have them.

    Raises:
        PacavitError: the method cannot explain this network; one line says why.
    """

    class_specific: ClassVar[bool] = True
    needs_network: ClassVar[bool] = True
    works_on: ClassVar[str] = "any classifier"
    sums_blocks: ClassVar[bool] = False
    stages: Sequence[int] = ()

    def __init__(self, model: nn.Module) -> None:
        self.model = uncompiled(model)
        if self.needs_network and runs_file(self.model):
            able = [name for name in METHODS if not METHODS.get(name).needs_network]
            raise PacavitError(
                f"{type(self).__name__} needs gradients, which an exported file has not; choose "
                f"among {', '.join(able)}, or explain the run folder"
            )

    def __call__(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) normalized and (B,) int64 -> (B, height, width) finite fp32.

        Modes, gradients and hooks of the network are unchanged afterwards.
        """
        with frozen_eval(self.model), torch.enable_grad():
            found = self.explain(images.detach().clone().requires_grad_(), classes)
        return found.detach().float()

    @abstractmethod
    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """The map, called in evaluation mode; images require gradients, parameters do not."""


METHODS: Registry[Method] = Registry("explanation method")
_TITLES = {"d_rise": "D-RISE"}  # names that are not their words


def method_title(method: str, stages: Sequence[int] = ()) -> str:
    """The display name of a method, with the stages whose clusters make its map."""
    title = _TITLES.get(method, method.replace("_", " "))
    if not stages:
        return title
    kind = "stage" if len(stages) == 1 else "stages"
    return f"{title}, {kind} {' and '.join(map(str, stages))}"


@contextmanager
def frozen_eval(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and frozen parameters inside; modes, flags and ``.grad`` are restored."""
    before = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(False)
        with evaluation_mode(model):
            yield
    finally:
        for parameter, requires_grad, gradient in before:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


def runs_file(model: nn.Module) -> bool:
    """Whether an engine runs a network, or a part of it, from an exported file."""
    return any(isinstance(module, EngineClassifier | EngineHead) for module in model.modules())


def holds_pacavit(model: nn.Module) -> bool:
    """Whether a network is, or contains, one of this package."""
    return any(isinstance(module, PacaViT) for module in model.modules())


class ClusterMethod(Method):
    """A map made of the clusters of a stage.

    Args:
        model: a PacaViT with clusters in some stage.
        stage: whose clusters; None is the last stage with clusters.

    Attributes:
        clustered: the stages that have clusters.
        stage: the chosen one.
        stages: the chosen one; subclasses may combine several.
    """

    works_on = "models of this package with clusters"

    def __init__(self, model: nn.Module, *, stage: int | None = None) -> None:
        super().__init__(model)
        mixers = find_pacavit(self.model).mixers
        self.clustered = [index for index, mixer in enumerate(mixers) if mixer.num_clusters]
        self.stage = choose_stage(self.clustered, stage)
        self.stages = (self.stage,)
        check_weights(self.model)
        self.sampling = samplings(self.model)[self.stage]


@METHODS.register("class_map")
class ClassMap(ClusterMethod):
    """Cluster heatmaps, weighted by gradient x attention of the class.

    Args:
        model: a PacaViT with clusters in some stage.
        stage: whose clusters; None is the last stage with clusters.
    """

    sums_blocks = True

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        with record(self.model) as recording:
            recording.backward(class_scores(self.model, images, classes), stage=self.stage)
        return upsample(maps.class_map(recording, self.stage), self.sampling, _size(images))


@METHODS.register("attention_map")
class AttentionMap(ClusterMethod):
    """Cluster heatmaps, weighted by the attention that the clusters receive; for any class.

    Args:
        model: a PacaViT with clusters in some stage.
        stage: whose clusters; None is the last stage with clusters.
    """

    class_specific = False
    sums_blocks = True

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        recording = record_until(self.model, images, self.stage)
        return upsample(maps.attention_map(recording, self.stage), self.sampling, _size(images))


class _FlowMethod(Method):
    """Attention followed through all blocks."""

    works_on = "models of this package, and timm's plain vision transformers"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.ours = holds_pacavit(self.model)
        if not self.ours:
            prefix_tokens(self.model)
        check_weights(self.model)


@METHODS.register("rollout")
class Rollout(_FlowMethod):
    """Attention rollout: attention propagated from the head back through all blocks.

    Abnar and Zuidema, "Quantifying attention flow in transformers", ACL 2020; see
    :mod:`pacavit.explain.core.rollout` for networks without a class token.

    Args:
        model: of this package, or one of timm's plain vision transformers.
    """

    class_specific = False

    @torch.no_grad()
    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        with record(self.model) as recording:
            self.model(images)
        if self.ours:
            found = rollout(recording, self.model)
            return upsample(found, samplings(self.model)[0], _size(images))
        steps = [block.attention().mean(1) for block in recording.blocks]
        identity = torch.eye(steps[0].shape[1], device=images.device)
        flow = identity
        for step in steps:
            flow = (step + identity) / 2 @ flow
        return token_maps(self.model, _to_head(self.model, flow), _size(images))


@METHODS.register("relevance")
class Relevance(_FlowMethod):
    """Gradient-weighted relevance: attention times its gradient, back through all blocks.

    Chefer et al., "Generic attention-model explainability for interpreting bi-modal and
    encoder-decoder transformers", ICCV 2021; for networks without a class token the class-specific
    form of rollout, see :func:`pacavit.explain.core.rollout.relevance`.

    Args:
        model: of this package, or one of timm's plain vision transformers.
    """

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        with record(self.model) as recording:
            recording.backward(class_scores(self.model, images, classes))
        if self.ours:
            found = relevance(recording, self.model)
            return upsample(found, samplings(self.model)[0], _size(images))
        steps = [_chefer(block) for block in recording.blocks]
        identity = torch.eye(steps[0].shape[1], device=images.device)
        flow = torch.zeros_like(identity)  # without the path through shortcuts alone
        for step in steps:
            flow = flow + step @ (identity + flow)
        return token_maps(self.model, _to_head(self.model, flow), _size(images))


def _chefer(block: BlockRecord) -> Tensor:
    """Positive part of attention times its gradient, averaged over heads: (B, N, N)."""
    return (block.attention() * block.attention_gradient()).clamp(min=0).mean(1)


def class_scores(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """The logits of the classes: (B,)."""
    logits: Tensor = model(images)
    return logits.gather(1, classes[:, None])[:, 0]


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def prefix_tokens(model: nn.Module) -> int:
    """The number of tokens of a plain vision transformer of timm that are not patches.

    Raises:
        PacavitError: the network is no plain vision transformer.
    """
    plain = any(isinstance(module, timm.layers.Attention) for module in model.modules())
    number = getattr(model, "num_prefix_tokens", None)
    if not plain or not isinstance(number, int):
        raise PacavitError(
            f"attention cannot be followed through {type(model).__name__}, which is neither a "
            "model of this package nor a plain vision transformer; choose a method for any "
            "classifier, such as grad_cam"
        )
    return number


def token_maps(model: nn.Module, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Values of all tokens (B, N) -> maps of the image (B, height, width), without the prefix."""
    embed: Any = model.patch_embed
    height, width = embed.dynamic_feat_size(size)
    patches = values[:, prefix_tokens(model) :].unflatten(1, (height, width))
    return F.interpolate(patches[:, None], size=size, mode="bilinear")[:, 0]


def _to_head(model: nn.Module, flow: Tensor) -> Tensor:
    """The flow from each token to the tokens that the head reads: (B, N, N) -> (B, N)."""
    prefix = prefix_tokens(model)
    reads_class_token = getattr(model, "global_pool", "") == "token" and prefix
    return flow[:, 0] if reads_class_token else flow[:, prefix:].mean(1)
