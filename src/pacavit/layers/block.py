"""The block: norm, clustering, attention, norm, feed-forward."""

from __future__ import annotations

from timm.layers import DropPath
from torch import Tensor, nn

from pacavit.attention import Attention
from pacavit.clustering import Clustering
from pacavit.errors import RecipeError
from pacavit.layers.mlp import DepthwiseMlp
from pacavit.types import Grid, StageState
from pacavit.utils.folding import Foldable, fold_layer_norm

__all__ = ["Block"]


class Block(nn.Module, Foldable):
    """Pre-norm transformer block: (B, N, C) -> (B, N, C).

    Args:
        dim: channels C.
        attention: the token mixer.
        clustering: computes the assignment from this block's normalized tokens; None in a block
            that uses the assignment of an earlier one.
        mlp_ratio: hidden width of the feed-forward layers over C.
        act_layer: its activation.
        proj_drop: its dropout.
        drop_path: probability of skipping each residual branch in training.
    """

    def __init__(
        self,
        dim: int,
        attention: Attention,
        clustering: Clustering | None,
        *,
        mlp_ratio: float,
        act_layer: type[nn.Module] = nn.GELU,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= drop_path < 1:
            raise RecipeError(f"drop_path must be at least 0 and below 1, not {drop_path}")
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.clustering = clustering
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = DepthwiseMlp(dim, mlp_ratio, act_layer, proj_drop)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def fold(self, *, half: bool) -> None:
        """Fold the affine parts of the norms into the layers after them.

        That of the first norm stays where a clustering, or more of the attention than linear
        layers, reads the tokens.
        """
        if self.clustering is None:
            fold_layer_norm(self.norm1, self.attn.own_input_layers())
        fold_layer_norm(self.norm2, [self.mlp.fc1])

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C) and the state for the next block."""
        tokens = self.norm1(x)
        if self.clustering is not None:
            state = state._replace(assignment=self.clustering(tokens, grid, patch_mask))
        tokens, state = self.attn(tokens, grid, state, patch_mask)
        x = x + self.drop_path(tokens)
        del tokens  # as large as x; the feed-forward layers are where most memory is needed
        return x + self.drop_path(self.mlp(self.norm2(x), grid, patch_mask)), state
