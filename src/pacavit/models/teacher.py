"""Teachers: networks beside the model that compute the clusters of its stages."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.clustering import Clustering
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.models.mixers import Mixer, Options, per_stage
from pacavit.types import Assignment
from pacavit.utils.layout import tokens_of

__all__ = ["ConvMixerTeacher", "Teacher", "TeacherOutput", "TeacherOutputs", "build_teacher"]


class TeacherOutput(NamedTuple):
    """The output of a teacher for one stage.

    Attributes:
        assignment: used by all blocks of the stage; None where the blocks need none.
        features: (B, C, H, W), added to the stage's tokens before its norm; None where the
            teacher's width differs from the stage's.
    """

    assignment: Assignment | None = None
    features: Tensor | None = None


class Teacher(nn.Module):
    """A network beside the model that computes the clusters of its stages from the stem's map."""

    def forward(self, stem_map: Tensor) -> list[TeacherOutput]:
        """(B, C, H, W) of the stem -> one output for each stage with a teacher, from the first."""
        raise NotImplementedError


class TeacherOutputs:
    """The outputs of a teacher in one forward pass, passed to one stage after the other.

    The teacher runs once, when the first stage has embedded the image.

    Args:
        teacher: of the model; None gives every stage an empty output.
    """

    def __init__(self, teacher: Teacher | None) -> None:
        self._teacher = teacher
        self._remaining: list[TeacherOutput] | None = None if teacher else []

    def next(self, embedded: Tensor) -> TeacherOutput:
        """The output for the next stage, with ``embedded`` (B, C, H, W) as its tokens' map."""
        if self._remaining is None:
            assert self._teacher is not None
            self._remaining = self._teacher(embedded)
        return self._remaining.pop(0) if self._remaining else TeacherOutput()


class ConvMixerTeacher(Teacher):
    """The paper's teacher, a ConvMixer with a feature pyramid: (B, C, H, W) -> teacher outputs.

    Grainger et al., "PaCa-ViT", CVPR 2023. Bottom-up, each stage has blocks at the resolution and
    width of the model's own stage; the model adds their maps to its tokens. Top-down, each stage
    mixes its own map with that of the coarser stage, and clusters the result.

    Args:
        clusterings: one for each stage with a teacher, from the first.
        depths: number of blocks, one for all of these stages or one per stage.
        kernel_size: side of the depthwise kernels in patches, odd; 7 in the paper.

    Raises:
        RecipeError: the number of depths is not that of the stages, or an option is out of range.
    """

    def __init__(
        self,
        clusterings: Sequence[Clustering],
        *,
        depths: int | Sequence[int] = 2,
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

    def forward(self, stem_map: Tensor) -> list[TeacherOutput]:
        """(B, C, H, W) of the stem -> the assignment and the features of each stage."""
        features, x = [], stem_map
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
            features.append(x)
        assignments = [self.clusterings[-1](*tokens_of(x))]
        finer_stages = zip(features, self.laterals, self.pyramid, self.clusterings, strict=False)
        for own, lateral, block, clustering in reversed(list(finer_stages)):
            x = block(own + lateral(x, own.shape[2:]))
            assignments.append(clustering(*tokens_of(x)))
        return [
            TeacherOutput(*output) for output in zip(reversed(assignments), features, strict=True)
        ]


def build_teacher(
    embed_dims: Sequence[int], mixers: Sequence[Mixer], options: Options | None
) -> ConvMixerTeacher | None:
    """The teacher of a model; None if no stage has the clustering "teacher".

    Args:
        embed_dims: channels C, per stage.
        mixers: of the model, per stage.
        options: named options of the teacher; depths one for all or one per stage of the model.

    Raises:
        RecipeError: a stage without the teacher comes before one with it, or there are options
            and no teacher.
        UnknownNameError: the teacher has no such option.
    """
    with_teacher = [mixer.uses_teacher for mixer in mixers]
    if not any(with_teacher):
        if options:
            raise RecipeError(f"teacher_options={dict(options)!r} has no effect in any stage")
        return None
    known = list(inspect.signature(ConvMixerTeacher).parameters)[1:]
    for name in options or ():
        if name not in known:
            raise UnknownNameError("option of the teacher", name, known)
    if not all(with_teacher[: sum(with_teacher)]):
        raise RecipeError(
            f"stage {with_teacher.index(False)} leaves out the teacher that coarser stages use; "
            'every stage before the last one with clustering "teacher" must have it too'
        )
    pairs = zip(mixers, embed_dims, strict=True)
    clusterings = [mixer.create_clustering(dim) for mixer, dim in pairs if mixer.uses_teacher]
    options = dict(options or {})
    if "depths" in options:
        depths = per_stage("depths of the teacher", options["depths"], len(mixers))
        options["depths"] = depths[: len(clusterings)]
    return ConvMixerTeacher(clusterings, **options)


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
        # Not in the state dict: it is the same in every model.
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
