"""The feed-forward part of a block."""

from __future__ import annotations

from torch import Tensor, nn

from pacavit.errors import RecipeError
from pacavit.types import Grid

__all__ = ["DepthwiseMlp"]


class DepthwiseMlp(nn.Module):
    """Linear, depthwise 3x3 with its own shortcut, activation, linear: (B, N, C) -> (B, N, C).

    The depthwise convolution is where PaCa-ViT learns position.

    Args:
        dim: channels C.
        mlp_ratio: hidden width over C.
        act_layer: activation.
        drop: dropout after the activation and after the last layer.
    """

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
        self.fc1 = nn.Linear(dim, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = act_layer()
        self.drop = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); padded patches (mask False) look like the image's border."""
        x = self.fc1(x)
        if patch_mask is not None:
            x = x * patch_mask[..., None]
        neighbours = self.depthwise(x.transpose(1, 2).unflatten(2, grid))
        x = x + neighbours.flatten(2).transpose(1, 2)
        x = self.drop(self.act(x))
        return self.drop(self.fc2(x))
