"""T2T-ViT_t: Yuan et al., ICCV 2021, https://arxiv.org/abs/2101.11986."""

from __future__ import annotations

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["T2tVit", "TokenTransformer", "sinusoids"]

_WIDTH = 64  # of tokens while they are merged


class TokenTransformer(nn.Module):
    """A block of one head that changes the width of tokens: (B, N, dim) -> (B, N, 64).

    The shortcut around the attention starts at the values, because the widths differ.

    Args:
        dim: channels of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * _WIDTH, bias=False)
        self.proj = nn.Linear(_WIDTH, _WIDTH)
        self.norm2 = nn.LayerNorm(_WIDTH)
        self.mlp = Mlp(_WIDTH)
        self.scale = dim**-0.5  # of the input's width, as published, not of the head's

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, 64)."""
        q, k, v = self.qkv(self.norm1(x))[:, None].chunk(3, -1)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        y = (v + self.proj(mixed)).squeeze(1)
        out: Tensor = y + self.mlp(self.norm2(y))
        return out


class T2tVit(nn.Module):
    """T2T-ViT with transformers in its stem: (B, 3, size, size) -> (B, 1000).

    Args:
        dim: channels of the blocks.
        depth: number of blocks.
        num_heads: attention heads of a block.
        size: side of the images in pixels, which positions are made for.
    """

    positions: Tensor

    def __init__(self, dim: int, depth: int, num_heads: int, size: int) -> None:
        super().__init__()
        self.first, self.second = TokenTransformer(3 * 49), TokenTransformer(9 * _WIDTH)
        self.project = nn.Linear(9 * _WIDTH, dim)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        side = ((size - 3) // 4 + 1 + 3) // 4  # after the strides 4, 2 and 2
        self.register_buffer("positions", sinusoids(1 + side**2, dim), persistent=False)
        self.blocks = nn.Sequential(
            *(
                Block(dim, num_heads, mlp_ratio=3, norm_layer=nn.LayerNorm, qkv_bias=False)
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, 1000)."""
        x = F.unfold(images, 7, stride=4, padding=2).transpose(1, 2)
        for transformer in (self.first, self.second):
            x = transformer(x)
            side = round(x.shape[1] ** 0.5)
            x = x.transpose(1, 2).unflatten(2, (side, side))
            x = F.unfold(x, 3, stride=2, padding=1).transpose(1, 2)
        tokens = self.project(x)
        x = torch.cat((self.class_token.expand(len(tokens), -1, -1), tokens), 1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


def sinusoids(num: int, dim: int) -> Tensor:
    """Fixed positions of Vaswani et al. 2017: (1, num, dim), sines and cosines in turns."""
    frequency = 10000 ** (-torch.arange(0, dim, 2) / dim)
    angle = torch.arange(num)[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), 2).flatten(1)[None]
