"""The base class of clusterings: from N patches to an assignment of patches to M clusters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import RecipeError
from pacavit.types import Assignment, Grid
from pacavit.utils.precision import at_least_fp32
from pacavit.utils.registry import Registry, rename_options

__all__ = ["CLUSTERINGS", "Clustering"]


class Clustering(nn.Module):
    """(B, N, C) -> Assignment of weights (B, M, N). The first extension point.

    A method implements :meth:`scores` (soft) or :meth:`labels` (hard); one that implements both
    selects one by its attribute ``hard``. This class turns either into an
    :class:`~pacavit.types.Assignment`, and handles normalization, masks, precision and empty
    clusters. Register a method with ``@CLUSTERINGS.register("name")`` and check it with
    :func:`pacavit.testing.check_clustering`.

    Args:
        dim: channels C of the tokens.
        num_clusters: M, at least 1.

    Attributes:
        differentiable: gradients flow from the weights to the tokens.
        order_free: permuting the patches permutes the weights and changes nothing else.
        spatial: the weights depend on the positions of the patches on the grid.
        exportable: ONNX and ``torch.export`` have one program of it for any batch and grid, see
            :meth:`export_refusal`.
        masked: scores and labels take ``patch_mask`` (B, N) as a third argument; without it they
            see padding as zeros.
        hard: a method that implements both uses its labels.
        stable: changes of the tokens by rounding change the assignment by rounding, but for rare
            ties. Networks with methods of which that is not true are optimized for predictions only
            as far as no bit changes.
        max_tokens: the method sees at most this many tokens; larger grids are average-pooled
            first, and a patch gets the cluster of its cell. None is no limit. In an exported
            program it sees this many cells in one row, the last ones masked.
        position_weight: weight of a patch's position beside its channels, for methods that work
            with any number of channels: a distance of half the image's longer side counts as much
            as a difference of ``position_weight`` in every channel. Above 0 the method is given two
            more channels.
        renamed_options: old names of constructor options and their new names. An old name is
            accepted with a FutureWarning.
    """

    differentiable: bool = True
    order_free: ClassVar[bool] = False
    spatial: ClassVar[bool] = True
    exportable: ClassVar[bool] = True
    masked: ClassVar[bool] = False
    max_tokens: ClassVar[int | None] = None
    hard: bool = False
    stable: ClassVar[bool] = True
    position_weight: float = 0.0
    renamed_options: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "place" in vars(cls):  # the old name of position_weight, in a class body
            _warn_of_place(cls)
            cls.position_weight = vars(cls)["place"]
            del cls.place
        if "__init__" in vars(cls):
            cls.__init__ = _with_old_options(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, dim: int, num_clusters: int) -> None:
        super().__init__()
        if num_clusters < 1:
            raise RecipeError(f"num_clusters must be at least 1 to cluster, not {num_clusters}")
        self.dim = dim
        self.num_clusters = num_clusters

    @property
    def place(self) -> float:
        """The old name of ``position_weight``, until the next release."""
        return self.position_weight

    @place.setter
    def place(self, value: float) -> None:
        _warn_of_place(type(self))
        self.position_weight = value

    @property
    def soft(self) -> bool:
        """Whether a patch may belong to several clusters."""
        return type(self).scores is not Clustering.scores and not self.hard

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, N, C) -> logits (B, M, N) of a soft method; a softmax over N follows."""
        raise NotImplementedError

    def labels(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, N, C) -> (B, N) int64 clusters 0..M-1 of a hard method; -1 marks noise."""
        raise NotImplementedError

    def forward(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Assignment:
        """(B, N, C) -> Assignment with weights (B, M, N).

        Args:
            x: (B, N, C) tokens; a block passes them normalized.
            grid: their height and width.
            patch_mask: (B, N) bool, False where a patch is padding; padding has weight 0.
        """
        if x.shape[1] != grid.num_patches:
            raise ValueError(f"{x.shape[1]} tokens do not fill a grid of {grid}")
        if patch_mask is not None:
            x = x * patch_mask[..., None]
        cell_of_patch, mask = None, patch_mask
        columns: int | Tensor = grid.width
        limit = self.max_tokens
        if limit is not None and (torch.compiler.is_exporting() or grid.num_patches > limit):
            cells = _pool(at_least_fp32(x), grid, limit, patch_mask)
            x, grid, columns, cell_of_patch, mask = cells
        if self.position_weight:
            x = _with_positions(at_least_fp32(x), columns, mask, self.position_weight)
        inputs: tuple[Any, ...] = (x, grid, mask) if self.masked else (x, grid)
        if self.soft:
            scores = self.scores(*inputs)
            if cell_of_patch is not None:
                scores = scores[..., cell_of_patch]
            return _soft_assignment(scores, patch_mask)
        labels = self.labels(*inputs)
        if cell_of_patch is not None:
            labels = labels[:, cell_of_patch]
        return _hard_assignment(labels, self.num_clusters, patch_mask, x.dtype)

    def export_refusal(self) -> str | None:
        """Why this clustering cannot be exported to ONNX or by ``torch.export``; None: it can.

        Part of a sentence whose subject is the clustering, with what to do instead. To be
        overridden where it depends on the options.
        """
        if not self.exportable:
            return "declares that it works for one size of images only"
        if self.max_tokens is not None and not self.masked:
            return "has max_tokens and takes no mask, which exported programs need"
        return None

    def init_weights(self) -> None:
        """Initialize own layers, after the network's general initialization; default: nothing."""

    def last_layer(self) -> nn.Module | None:
        """The layer that computes a score per cluster; default: None, there is none."""
        return None

    def extra_repr(self) -> str:
        """Width and number of clusters, for ``print(model)``."""
        return f"dim={self.dim}, num_clusters={self.num_clusters}"


CLUSTERINGS: Registry[Clustering] = Registry("clustering")


def _warn_of_place(cls: type[Clustering]) -> None:
    warnings.warn(
        f"the attribute 'place' of {cls.__name__} is now called 'position_weight'; the old name"
        " will be removed in the next release",
        FutureWarning,
    )


def _with_old_options(construct: Callable[..., None]) -> Callable[..., None]:
    """A constructor that also accepts the old names of its class's renamed options."""

    @wraps(construct)
    def wrapped(self: Clustering, *args: Any, **options: Any) -> None:
        construct(self, *args, **rename_options(type(self), options, construct))

    return wrapped


def _soft_assignment(scores: Tensor, patch_mask: Tensor | None) -> Assignment:
    """Logits (B, M, N) -> softmax over N, computed in at least fp32."""
    scores = at_least_fp32(scores)
    if patch_mask is not None:
        scores = scores.masked_fill(~patch_mask[:, None], -math.inf)
    # Linear layers return (B, N, M); a softmax along its middle axis avoids the copy that one
    # along the last axis of the transposed view would make.
    by_patch = scores.transpose(1, 2)
    if by_patch.is_contiguous():
        weights = F.softmax(by_patch, dim=1).transpose(1, 2)
    else:
        weights = F.softmax(scores, dim=2)
    with torch.no_grad():
        log_mass = scores.amax(2) - weights.amax(2).log()
    return Assignment(weights, log_mass)


def _hard_assignment(
    labels: Tensor, num_clusters: int, patch_mask: Tensor | None, dtype: torch.dtype
) -> Assignment:
    """Labels (B, N) -> clusters that are means of their members; an empty cluster is invalid."""
    if patch_mask is not None:
        labels = labels.masked_fill(~patch_mask, -1)
    # An image of nothing but noise gets one cluster of all its patches.
    all_noise = (labels < 0).all(1, keepdim=True)
    real = torch.ones_like(labels, dtype=torch.bool) if patch_mask is None else patch_mask
    labels = torch.where(all_noise & real, 0, labels)
    index = torch.arange(num_clusters, device=labels.device)
    members = (labels[:, None] == index[:, None]).to(
        torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    )
    size = members.sum(2)
    mass = size.clamp(min=1)
    return Assignment(members / mass[..., None], mass.log(), size > 0)


def _with_positions(x: Tensor, columns: int | Tensor, mask: Tensor | None, weight: float) -> Tensor:
    """(B, N, C) -> (B, N, C + 2): row and column appended, scaled to the image without padding.

    Args:
        x: tokens.
        columns: width of their grid.
        mask: (B, N) bool, False at padding, which is on the right and below; None is no padding.
        weight: as ``Clustering.position_weight``.
    """
    if mask is None:
        mask = x.new_ones((), dtype=torch.bool).expand(x.shape[:2])
    place = torch.arange(x.shape[1], device=x.device)
    columns = torch.as_tensor(columns, device=x.device)
    positions = torch.stack([place // columns, place % columns], 1) * mask[..., None]
    longer = positions.amax((1, 2)) + 1
    unit = weight * x.shape[2] ** 0.5 * 2 / longer.to(x.dtype)
    return torch.cat([x, positions * unit[:, None, None]], 2)


class _Cells(NamedTuple):
    """Cells of a grid.

    Attributes:
        x: (B, K, C), means of their patches.
        grid: height and width; in exported programs one row.
        columns: number of cells in a row.
        cell_of_patch: (N,) int64.
        mask: (B, K) bool, False for cells without patches; None if all have some.
    """

    x: Tensor
    grid: Grid
    columns: int | Tensor
    cell_of_patch: Tensor
    mask: Tensor | None


def _pool(x: Tensor, grid: Grid, max_tokens: int, patch_mask: Tensor | None) -> _Cells:
    """Average-pool tokens to at most ``max_tokens`` square cells, without their padding."""
    side: int | Tensor
    columns: int | Tensor
    if torch.compiler.is_exporting():
        # The side of a cell is a value of the program, so the number of cells cannot be a shape:
        # there are always ``max_tokens``, the last ones without patches.
        sides = torch.arange(1, grid.height + grid.width, device=x.device)
        height, width = ((length + sides - 1) // sides for length in grid)
        side = (height * width > max_tokens).sum() + 1
        columns = (grid.width + side - 1) // side
        cells = Grid(1, max_tokens)
    else:
        side = 1
        while math.ceil(grid.height / side) * math.ceil(grid.width / side) > max_tokens:
            side += 1
        cells = Grid(math.ceil(grid.height / side), math.ceil(grid.width / side))
        columns = cells.width
    row = torch.arange(grid.height, device=x.device) // side
    column = torch.arange(grid.width, device=x.device) // side
    cell_of_patch = (row[:, None] * columns + column).flatten()
    mask = x.new_ones(x.shape[:2]) if patch_mask is None else patch_mask.to(x.dtype)
    count = x.new_zeros(x.shape[0], cells.num_patches).index_add(1, cell_of_patch, mask)
    total = x.new_zeros(x.shape[0], cells.num_patches, x.shape[2]).index_add(1, cell_of_patch, x)
    all_filled = patch_mask is None and not torch.compiler.is_exporting()
    return _Cells(
        total / count.clamp(min=1)[..., None],
        cells,
        columns,
        cell_of_patch,
        None if all_filled else count > 0,
    )
