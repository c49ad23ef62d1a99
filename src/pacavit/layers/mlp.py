"""The feed-forward part of a block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pacavit.errors import RecipeError
from pacavit.types import Grid
from pacavit.utils.folding import Foldable
from pacavit.utils.layout import map_of, tokens_of
from pacavit.utils.linear import Linear

__all__ = ["DepthwiseMlp"]


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
    """

    folds_exactly = True

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

    def fold(self, *, half: bool) -> None:
        """Make the depthwise layer a plain convolution."""
        if not half and isinstance(self.depthwise, ShortcutDepthwise):
            self.depthwise = self.depthwise.plain()

    def forward(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); padding (mask False) is zero, as beyond the image's border."""
        x = self.fc1(x)
        if patch_mask is not None:
            x = x * patch_mask[..., None]
        x, _ = tokens_of(self.depthwise(map_of(x, grid)))
        x = self.drop(self.act(x))
        return self.drop(self.fc2(x))
