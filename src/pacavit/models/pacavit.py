"""PaCa-ViT: a pyramid vision transformer with patch-to-cluster attention.

Grainger et al., "PaCa-ViT: Learning Patch-to-Cluster Attention in Vision Transformers", CVPR
2023, https://arxiv.org/abs/2203.11987.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from timm.layers import calculate_drop_path_rates, get_act_layer
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from pacavit.errors import RecipeError
from pacavit.layers import (
    Block,
    ConvStem,
    PatchStem,
    PoolTransition,
    Transition,
    fill_padding,
    init_weights,
    reduce_mask,
)
from pacavit.models.mixers import (
    Options,
    PerStage,
    per_stage,
    plan_mixers,
)
from pacavit.models.stage import Stage
from pacavit.models.teacher import TeacherOutputs, build_teacher
from pacavit.types import StageOutput

__all__ = ["PacaViT"]


class PacaViT(nn.Module):
    """PaCa-ViT: (B, in_chans, height, width) -> (B, num_classes). Any input size.

    Arguments described as "per stage" take one value for all stages, or a sequence with one value
    per stage; ``embed_dims``, ``depths`` and ``num_heads`` take sequences.

    Args:
        in_chans: channels of the image.
        num_classes: classes; 0 leaves the head out.
        global_pool: "avg" (mean over patches), or "" (no pooling) where there is no head.
        embed_dims: channels C of each stage.
        depths: number of blocks of each stage.
        num_heads: attention heads of each stage.
        mlp_ratios: hidden width of the feed-forward layers over C, per stage.
        clustering: registered name, per stage; None is "conv" wherever the attention uses
            clusters. Naming one while no attention uses clusters raises RecipeError. With
            "teacher" a network beside the model computes the clusters; every stage before the
            last such stage must have it too.
        num_clusters: M, per stage; 0 means plain full self-attention in that stage, None is 100
            wherever the attention uses clusters.
        clustering_options: further named options of the clustering, per stage.
        clustering_defaults: options by the name of a clustering, used where
            ``clustering_options`` do not set them.
        recluster_every: 0: the first block of a stage computes the assignment and the others
            share it; k: every k-th block computes a new one. Per stage.
        teacher_options: named options of the teacher (``depths``, per stage, and
            ``kernel_size``), see :class:`~pacavit.models.teacher.ConvMixerTeacher`.
        attention: registered name, per stage.
        attention_options: further named options of the attention, per stage.
        stem_dims: widths of the inner convolutions of a dense stem for small images, with
            patches of 2 x 2 pixels; empty for the paper's stem, with patches of 4 x 4.
        stem_stride: side of a patch in pixels. None is the stem's own; a dense stem may have 2 or
            4, with the same weights, so that a network for small images fits larger ones.
        transition_convs: dense convolutions in each transition, the first with max-pooling; 0
            is the paper's single strided convolution.
        act_layer: activation of feed-forward layers and dense convolutions; class or timm's name.
        drop_rate: dropout before the head.
        proj_drop_rate: dropout in the feed-forward layers.
        drop_path_rate: stochastic depth at the last block, rising linearly from 0.

    Attributes:
        mixers: attention and clustering of each stage.
        teacher: the network that clusters for the first stages, or None.
        settings: arguments that rebuild the model by its registered name, stored with its
            weights; empty if the model was not built by name.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dims: Sequence[int] = (96, 192, 320, 384),
        depths: Sequence[int] = (2, 2, 4, 2),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        mlp_ratios: PerStage[float] = 4,
        clustering: PerStage[str] | None = None,
        num_clusters: PerStage[int] | None = None,
        clustering_options: PerStage[Options] | None = None,
        clustering_defaults: Mapping[str, Options] = MappingProxyType({}),
        recluster_every: PerStage[int] = 0,
        teacher_options: Options | None = None,
        attention: PerStage[str] = "paca",
        attention_options: PerStage[Options] | None = None,
        stem_dims: Sequence[int] = (),
        stem_stride: int | None = None,
        transition_convs: int = 0,
        act_layer: str | type[nn.Module] = "gelu",
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        num_stages = len(embed_dims)
        if not num_stages:
            raise RecipeError("embed_dims is empty; give the channels of at least one stage")
        self.mixers = mixers = plan_mixers(
            num_stages,
            attention,
            attention_options,
            clustering,
            clustering_options,
            clustering_defaults,
            num_clusters,
            recluster_every,
        )
        depths = per_stage("depths", depths, num_stages)
        num_heads = per_stage("num_heads", num_heads, num_stages)
        mlp_ratios = per_stage("mlp_ratios", mlp_ratios, num_stages)
        activation = get_act_layer(act_layer)
        rates: Any = iter(calculate_drop_path_rates(drop_path_rate, sum(depths)))

        self.settings: dict[str, Any] = {}
        self.clustering_defaults = dict(clustering_defaults)
        self.teacher_options = dict(teacher_options or {})
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.feature_info: list[dict[str, Any]] = []
        self.stages = nn.ModuleList()
        for index, dim in enumerate(embed_dims):
            blocks = [
                Block(
                    dim,
                    mixers[index].build_attention(dim, num_heads[index], index, block),
                    mixers[index].build_clustering(dim, block),
                    mlp_ratio=mlp_ratios[index],
                    act_layer=activation,
                    proj_drop=proj_drop_rate,
                    drop_path=next(rates),
                )
                for block in range(depths[index])
            ]
            if index:
                embed = _transition(embed_dims[index - 1], dim, transition_convs, activation)
            else:
                embed = stem = _stem(in_chans, dim, stem_dims, stem_stride, activation)
            self.stages.append(Stage(embed, blocks, dim))
            self.feature_info.append(
                {"num_chs": dim, "reduction": stem.stride * 2**index, "module": f"stages.{index}"}
            )
        self.teacher = build_teacher(embed_dims, mixers, self.teacher_options)
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        self.apply(init_weights)
        self.to(memory_format=torch.channels_last)

    def with_clustering(
        self,
        clustering: PerStage[str],
        num_clusters: PerStage[int] | None = None,
        **options: Any,
    ) -> PacaViT:
        """A copy with the same weights and another clustering; new clustering layers are fresh.

        Args:
            clustering: registered name, per stage; ignored in stages without clusters.
            num_clusters: M, per stage; None keeps each stage's own.
            **options: named options of the clustering, checked against its signature.
        """
        names = per_stage("clustering", clustering, len(self.stages))
        numbers = per_stage("num_clusters", num_clusters, len(self.stages))
        model = copy.deepcopy(self)
        model.mixers = [
            mixer.replace_clustering(
                name, {**self.clustering_defaults.get(name, {}), **options}, number
            )
            for mixer, name, number in zip(self.mixers, names, numbers, strict=True)
        ]
        dims = [info["num_chs"] for info in self.feature_info[: len(names)]]
        fresh = nn.ModuleList()
        stages: Any = model.stages
        for mixer, dim, stage in zip(model.mixers, dims, stages, strict=True):
            for index, block in enumerate(stage.blocks):
                block.clustering = mixer.build_clustering(dim, index)
                fresh.extend([] if block.clustering is None else [block.clustering])
        options_of_teacher = (
            self.teacher_options if any(mixer.uses_teacher for mixer in model.mixers) else None
        )
        model.teacher = build_teacher(dims, model.mixers, options_of_teacher)
        fresh.extend([] if model.teacher is None else [model.teacher])
        fresh.apply(init_weights).to(next(self.parameters())).train(self.training)
        if self.settings and any(mixer.num_clusters for mixer in model.mixers):
            in_blocks = any(mixer.num_clusters and not mixer.uses_teacher for mixer in model.mixers)
            model.settings = {
                **self.settings,
                "recluster_every": [
                    mixer.recluster_every if in_blocks else 0 for mixer in model.mixers
                ],
                "clustering": names,
                "num_clusters": [mixer.num_clusters for mixer in model.mixers],
                "clustering_options": options,
                "teacher_options": options_of_teacher,
            }
        return model.to(memory_format=torch.channels_last)

    def forward_features(self, x: Tensor, pixel_mask: Tensor | None = None) -> Tensor:
        """(B, in_chans, height, width) -> (B, C, H, W) of the last stage, channels-last."""
        teacher_outputs = TeacherOutputs(self.teacher)
        for stage, mask in zip(self.stages, self._input_masks(x, pixel_mask), strict=True):
            x = stage(x, mask, teacher_outputs)
        return x

    def forward_stages(self, x: Tensor, pixel_mask: Tensor | None = None) -> list[StageOutput]:
        """(B, in_chans, height, width) -> the map (B, C, H, W) and the last state of each stage.

        For heads that need the assignments besides the maps of ``forward_intermediates``.
        """
        teacher_outputs, outputs = TeacherOutputs(self.teacher), []
        for stage, mask in zip(self.stages, self._input_masks(x, pixel_mask), strict=True):
            outputs.append(stage(x, mask, teacher_outputs, return_state=True))
            x = outputs[-1].features
        return outputs

    def forward_head(
        self, x: Tensor, pre_logits: bool = False, patch_mask: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) -> (B, num_classes), or the pooled features with ``pre_logits``.

        Patches where ``patch_mask`` (B, H, W) is False are left out of the mean.
        """
        if self.global_pool and patch_mask is not None:
            x = fill_padding(x, patch_mask).sum((2, 3)) / patch_mask.sum((1, 2))[:, None]
        elif self.global_pool:
            x = x.mean((2, 3))
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor, pixel_mask: Tensor | None = None) -> Tensor:
        """(B, in_chans, height, width) -> (B, num_classes).

        Args:
            x: images; those of different sizes are padded, right and below, to one canvas.
            pixel_mask: (B, height, width) bool, False where a pixel is padding; None is no
                padding. Each image needs at least one pixel. Padding has no influence: an image has
                the same features as without it, unless its clusters are cells of the canvas
                (``grid``, ``random``).
        """
        features = self.forward_features(x, pixel_mask)
        patch_mask = None if pixel_mask is None else self.patch_masks(pixel_mask)[-1]
        return self.forward_head(features, patch_mask=patch_mask)

    def patch_masks(self, pixel_mask: Tensor) -> list[Tensor]:
        """(B, height, width) bool -> for each stage (B, H, W), False where a patch is padding."""
        infos = self.feature_info[: len(self.stages)]
        return [reduce_mask(pixel_mask, info["reduction"]) for info in infos]

    def _input_masks(self, x: Tensor, pixel_mask: Tensor | None) -> Sequence[Tensor | None]:
        """The mask of each stage's input; a mask of the wrong kind or shape raises ValueError."""
        if pixel_mask is None:
            return [None] * len(self.stages)
        if self.teacher is not None:
            raise ValueError(
                "teachers do not support padding; call a model with a teacher without pixel_mask"
            )
        if pixel_mask.dtype != torch.bool or pixel_mask.shape != (x.shape[0], *x.shape[2:]):
            raise ValueError(
                f"pixel_mask must be bool of shape {(x.shape[0], *x.shape[2:])}, "
                f"not {pixel_mask.dtype} of {tuple(pixel_mask.shape)}"
            )
        return [pixel_mask, *self.patch_masks(pixel_mask)[:-1]]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        pixel_mask: Tensor | None = None,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps (B, C, H, W) of chosen stages, after their LayerNorm, in the stages' order.

        Args:
            x: (B, in_chans, height, width).
            indices: n for the last n stages, a list of stage indices, or None for all.
            norm: without effect, part of timm's interface; the maps always follow a LayerNorm.
            stop_early: skip stages after the last chosen one.
            output_fmt: "NCHW".
            intermediates_only: return the list without the final features.
            pixel_mask: (B, height, width) bool, False where a pixel is padding.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', not {output_fmt!r}")
        chosen, last = feature_take_indices(len(self.stages), indices)
        intermediates = []
        masks = self._input_masks(x, pixel_mask)
        teacher_outputs = TeacherOutputs(self.teacher)
        for index, (stage, mask) in enumerate(zip(self.stages, masks, strict=True)):
            if stop_early and index > last:
                break
            x = stage(x, mask, teacher_outputs)
            if index in chosen:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the stages after the last chosen one; the head too if asked for, or if any goes."""
        chosen, last = feature_take_indices(len(self.stages), indices)
        cut = last < len(self.stages) - 1
        self.stages, self.mixers = self.stages[: last + 1], self.mixers[: last + 1]
        if cut:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.settings = {}  # no arguments build what is left
        if prune_head or cut:
            self.reset_classifier(0, "")
        return list(chosen)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a fresh one for another number of classes; 0 removes it.

        The new head has the device and the precision of the network.
        """
        if global_pool is not None:
            if global_pool not in ("avg", ""):
                raise RecipeError(f"global_pool must be 'avg' or '', not {global_pool!r}")
            self.global_pool = global_pool
        if num_classes and not self.global_pool:
            raise RecipeError("a classifier needs pooled features: global_pool='avg'")
        self.num_classes = num_classes
        norm: Any = self.stages[-1].norm
        like = {"device": norm.weight.device, "dtype": norm.weight.dtype}
        self.head = (
            nn.Linear(self.num_features, num_classes, **like) if num_classes else nn.Identity()
        )
        self.head.apply(init_weights).train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        stages: Any = self.stages
        for stage in stages:
            stage.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of parameter groups for layer-wise learning-rate decay."""
        return {
            "stem": r"^stages\.0\.embed",
            "blocks": r"^(?:stages|teacher\.\w+)\.(\d+)"
            if coarse
            else [
                (r"^stages\.(\d+)\.embed", (-1,)),
                (r"^teacher\.\w+\.(\d+)", (-0.5,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^stages\.(\d+)\.norm", (99999,)),
            ],
        }

    def no_weight_decay(self) -> set[str]:
        """Names without weight decay beside norms and biases: tables of position biases."""
        names = (name for name, _ in self.named_parameters())
        return {name for name in names if name.endswith(".relative_position_bias")}


def _stem(
    in_chans: int,
    dim: int,
    stem_dims: Sequence[int],
    stride: int | None,
    act_layer: type[nn.Module],
) -> ConvStem | PatchStem:
    if stem_dims:
        return ConvStem(in_chans, (*stem_dims, dim), act_layer, 2 if stride is None else stride)
    if stride not in (None, PatchStem.stride):
        raise RecipeError(
            f"stem_stride of the paper's stem must be {PatchStem.stride}, not {stride}"
        )
    return PatchStem(in_chans, dim)


def _transition(in_chans: int, dim: int, convs: int, act_layer: type[nn.Module]) -> nn.Module:
    if convs < 0:
        raise RecipeError(f"transition_convs must be 0 or more, not {convs}")
    if convs:
        return PoolTransition(in_chans, dim, convs, act_layer)
    return Transition(in_chans, dim)
