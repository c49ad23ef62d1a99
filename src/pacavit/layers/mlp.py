"""The feed-forward part of a block."""

from __future__ import annotations

import torch
from timm.layers import get_act_layer
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import RecipeError
from pacavit.types import Grid
from pacavit.utils.folding import Foldable
from pacavit.utils.layout import map_of, tokens_of
from pacavit.utils.linear import Linear, linear

__all__ = ["DepthwiseMlp"]

_LARGE = 1 << 23
"""Hidden values of a batch above which they are computed in slices."""
_GELU = (nn.GELU, get_act_layer("gelu"))
"""PyTorch's and timm's, which is what the name "gelu" stands for."""


class ShortcutDepthwise(nn.Conv2d):
    """Depthwise 3x3 convolution plus its input: (B, C, H, W) -> (B, C, H, W).

    The shortcut is added to the kernel, as a 1 in its middle, rather than to the map: that saves a
    pass over the largest tensors of the network. In half precision, where the sum would round the
    kernel, it is added to the map.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if x.dtype not in (torch.float32, torch.float64):
            return super().forward(x).add_(x)
        middle = torch.zeros_like(self.weight)
        middle[..., 1, 1] = 1
        return self._conv_forward(x, self.weight + middle, self.bias)

    def plain(self) -> nn.Conv2d:
        """A convolution without a shortcut that computes the same, with the sum as its kernel."""
        dim, weight = self.in_channels, self.weight.detach().clone()
        weight[..., 1, 1] += 1
        # Without initial weights, which would be drawn from the generator of the process.
        layer = nn.utils.skip_init(
            nn.Conv2d, dim, dim, 3, padding=1, groups=dim, device=weight.device, dtype=weight.dtype
        )
        layer.weight, layer.bias = nn.Parameter(weight), self.bias
        return layer.train(self.training)


class DepthwiseMlp(nn.Module, Foldable):
    """Linear, depthwise 3x3 with its own shortcut, activation, linear: (B, N, C) -> (B, N, C).

    The depthwise convolution is the only layer of a block that learns position.

    Args:
        dim: channels C.
        mlp_ratio: hidden width over C.
        act_layer: activation.
        drop: dropout after the activation and after the last layer.

    Attributes:
        slices: of a folded layer without gradients: many hidden values are computed C channels at
            a time, so that the largest tensors of the network are never whole. This rounds the
            sums of the last layer differently.
    """

    folds_exactly = True
    slices = False

    def __init__(
        self,
        dim: int,
        mlp_ratio: float = 4,
        act_layer: type[nn.Module] = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = round(dim * mlp_ratio)
        if hidden < 1:
            raise RecipeError(f"mlp_ratio {mlp_ratio} leaves no hidden layer of {dim} channels")
        self.fc1 = Linear(dim, hidden)
        self.depthwise: nn.Conv2d = ShortcutDepthwise(hidden)
        self.act = act_layer()
        self.drop = nn.Dropout(drop)
        self.fc2 = Linear(hidden, dim)
        self._folded = False

    def fold(self, *, half: bool) -> None:
        """Make the depthwise layer a plain convolution, and the activation one in place."""
        self._folded = True
        if not half and isinstance(self.depthwise, ShortcutDepthwise):
            self.depthwise = self.depthwise.plain()

    def forward(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); padding (mask False) is zero, as beyond the image's border."""
        in_place = not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling())
        in_place = in_place and self._folded
        if in_place and self.slices and x.shape[:-1].numel() * self.fc1.out_features > _LARGE:
            return self._in_slices(x, grid, patch_mask)
        x = _masked(self.fc1(x), patch_mask)
        x, _ = tokens_of(self.depthwise(map_of(x, grid)))
        x = self.drop(self._activate(x) if in_place else self.act(x))
        return self.drop(self.fc2(x))

    def _in_slices(self, x: Tensor, grid: Grid, patch_mask: Tensor | None) -> Tensor:
        """The result, a few hidden channels at a time: (B, N, C) -> (B, N, C)."""
        hidden, dim = self.fc1.weight.shape
        total = self._slice(x, slice(0, dim), grid, patch_mask)
        for start in range(dim, hidden, dim):
            total.add_(self._slice(x, slice(start, start + dim), grid, patch_mask))
        return total

    def _slice(self, x: Tensor, part: slice, grid: Grid, patch_mask: Tensor | None) -> Tensor:
        """What some of the hidden channels add to the result: (B, N, C) -> (B, N, C)."""
        tokens = _masked(linear(x, self.fc1.weight[part], self.fc1.bias[part]), patch_mask)
        tokens, _ = tokens_of(self._depthwise(map_of(tokens, grid), part))
        last = self.fc2.bias if part.start == 0 else None
        return linear(self._activate(tokens), self.fc2.weight[:, part], last)

    def _depthwise(self, image: Tensor, part: slice) -> Tensor:
        """Some channels of the depthwise layer: (B, c, H, W) -> (B, c, H, W)."""
        kernels, bias = self.depthwise.weight[part], self.depthwise.bias
        bias = None if bias is None else bias[part]
        found = F.conv2d(image, kernels, bias, padding=1, groups=len(kernels))
        return found.add_(image) if isinstance(self.depthwise, ShortcutDepthwise) else found

    def _activate(self, x: Tensor) -> Tensor:
        """The activation, in place where that is possible."""
        if isinstance(self.act, _GELU):
            approximate = getattr(self.act, "approximate", "none")
            found: Tensor = torch.ops.aten.gelu_(x, approximate=approximate)
            return found
        return x.relu_() if isinstance(self.act, nn.ReLU) else self.act(x)


def _masked(x: Tensor, patch_mask: Tensor | None) -> Tensor:
    """Zero where the mask (B, N) is False."""
    return x if patch_mask is None else x * patch_mask[..., None]
