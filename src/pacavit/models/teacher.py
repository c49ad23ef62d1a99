"""Teachers: networks beside the model that cluster for its stages."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.clustering import Clustering
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.layers.embed import tokens_of
from pacavit.models.mixers import Mixer, Options, PerStage, per_stage
from pacavit.types import Assignment

__all__ = ["ConvMixerTeacher", "Lesson", "Lessons", "Teacher", "build_teacher"]

Lesson: TypeAlias = tuple[Assignment | None, Tensor | None]


class Teacher(nn.Module):
    """External clustering: one answer a stage, from the map that the model's stem gives."""

    def forward(self, stem_map: Tensor) -> list[Lesson]:
        """(B, C, H, W) of the stem -> a lesson for each taught stage, from the first.

        A lesson is an assignment (B, M, N), which all blocks of the stage use, and a map
        (B, C, H, W) to add to its tokens at its end, before the norm. None stands for the
        assignment where the blocks do without, and for the map where the widths differ.
        """
        raise NotImplementedError


class Lessons:
    """What a teacher says in one forward pass: asked once, at the stem, read stage by stage.

    Args:
        teacher: whom to ask; None says nothing.
    """

    def __init__(self, teacher: Teacher | None) -> None:
        self._teacher = teacher
        self._untold: list[Lesson] | None = None if teacher else []

    def next(self, embedded: Tensor) -> Lesson:
        """The lesson of the next stage, whose embedding gave ``embedded`` (B, C, H, W)."""
        if self._untold is None:
            assert self._teacher is not None
            self._untold = self._teacher(embedded)
        return self._untold.pop(0) if self._untold else (None, None)


class ConvMixerTeacher(Teacher):
    """The paper's teacher, a ConvMixer with a feature pyramid: (B, C, H, W) -> lessons.

    Grainger et al., "PaCa-ViT", CVPR 2023. Bottom-up, each stage has blocks at the resolution and
    width of the model's own stage; what they give is what the model adds to its tokens. Top-down,
    each stage mixes that with what the coarser one found, and clusters.

    Args:
        clusterings: one for each taught stage, from the first.
        depths: number of blocks, one for all stages or one a taught stage.
        kernel_size: side of the depthwise kernels in patches, odd; 7 in the paper.

    Raises:
        RecipeError: the depths are not one a taught stage, or an option is out of range.
    """

    def __init__(
        self,
        clusterings: Sequence[Clustering],
        *,
        depths: PerStage[int] = 2,
        kernel_size: int = 7,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise RecipeError(f"kernel_size must be odd and positive, not {kernel_size}")
        dims = [clustering.dim for clustering in clusterings]
        depths = per_stage("depths of the teacher", depths, len(dims))
        if min(depths) < 1:
            raise RecipeError(f"depths of the teacher must be 1 or more, not {min(depths)}")
        finer_and_coarser = list(pairwise(dims))
        self.downs = nn.ModuleList(
            [nn.Identity(), *(_BlurDown(finer, coarser) for finer, coarser in finer_and_coarser)]
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(_ConvMixerBlock(dim, kernel_size) for _ in range(depth)))
            for dim, depth in zip(dims, depths, strict=True)
        )
        self.laterals = nn.ModuleList(
            _Lateral(coarser, finer) for finer, coarser in finer_and_coarser
        )
        self.pyramid = nn.ModuleList(_ConvMixerBlock(dim, kernel_size) for dim in dims[:-1])
        self.clusterings = nn.ModuleList(clusterings)

    def forward(self, stem_map: Tensor) -> list[Lesson]:
        """(B, C, H, W) of the stem -> the assignment and the features of each taught stage."""
        features, x = [], stem_map
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
            features.append(x)
        assignments = [self.clusterings[-1](*tokens_of(x))]
        finer_stages = zip(features, self.laterals, self.pyramid, self.clusterings, strict=False)
        for own, lateral, block, clustering in reversed(list(finer_stages)):
            x = block(own + lateral(x, own.shape[2:]))
            assignments.append(clustering(*tokens_of(x)))
        return list(zip(reversed(assignments), features, strict=True))


def build_teacher(
    embed_dims: Sequence[int], mixers: Sequence[Mixer], options: Options | None
) -> ConvMixerTeacher | None:
    """The teacher of a model, where one of its stages has the clustering "teacher".

    Args:
        embed_dims: channels C, one a stage.
        mixers: of the model, one a stage.
        options: named options of the teacher.

    Raises:
        RecipeError: the teacher would have to leave out a stage on its way to a coarser one, or
            there are options and no teacher.
        UnknownNameError: the teacher has no such option.
    """
    taught = [mixer.taught for mixer in mixers]
    if not any(taught):
        if options:
            raise RecipeError(f"teacher_options={dict(options)!r} has no effect in any stage")
        return None
    known = list(inspect.signature(ConvMixerTeacher).parameters)[1:]
    for name in options or ():
        if name not in known:
            raise UnknownNameError("option of the teacher", name, known)
    if not all(taught[: sum(taught)]):
        raise RecipeError(
            f"stage {taught.index(False)} leaves out the teacher that coarser stages use; "
            "it must teach all stages from the first to its last"
        )
    pairs = zip(mixers, embed_dims, strict=True)
    clusterings = [mixer.create_clustering(dim) for mixer, dim in pairs if mixer.taught]
    return ConvMixerTeacher(clusterings, **(options or {}))


class _ConvMixerBlock(nn.Module):
    """Depthwise convolution with a shortcut, pointwise convolution: (B, C, H, W) -> (B, C, H, W).

    Trockman and Kolter, "Patches Are All You Need?", 2022, https://arxiv.org/abs/2201.09792.
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm1 = nn.BatchNorm2d(dim)
        self.pointwise = nn.Conv2d(dim, dim, 1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x + self.norm1(self.act(self.depthwise(x)))
        return self.norm2(self.act(self.pointwise(x)))


class _BlurDown(nn.Module):
    """Fixed 3x3 blur, 3x3 stride-2 convolution: (B, C0, H, W) -> (B, C, H / 2, W / 2), rounded up.

    Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019.
    """

    blur: Tensor

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        # Not in the state: it is the same in every model.
        self.register_buffer("blur", torch.outer(row, row).repeat(in_chans, 1, 1, 1), False)
        self.conv = nn.Conv2d(in_chans, dim, 3, stride=2, padding=1)
        self.act = nn.GELU()
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C0, H, W) -> (B, C, ceil(H / 2), ceil(W / 2))."""
        x = F.conv2d(x, self.blur, padding=1, groups=x.shape[1])
        return self.norm(self.act(self.conv(x)))


class _Lateral(nn.Module):
    """A coarser map at a finer size, bilinearly, and a 1x1 convolution: -> (B, C, H, W)."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, dim, 1)
        self.act = nn.GELU()
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(B, C0, H0, W0) and (H, W) -> (B, C, H, W)."""
        x = F.interpolate(x, size=list(size), mode="bilinear")
        return self.norm(self.act(self.conv(x)))
