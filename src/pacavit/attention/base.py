"""The base class of attentions: tokens and the state of the stage in, both of them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from pacavit.types import AttentionRecord, Grid, StageState
from pacavit.utils.folding import has_own
from pacavit.utils.registry import Registry

__all__ = ["ATTENTIONS", "Attention"]


class Attention(nn.Module):
    """(B, N, C) -> (B, N, C), by any formula. The second extension point.

    A subclass implements :meth:`forward`, and :meth:`recorded` if explanations shall use its
    weights. An attention with queries, keys, values and a softmax over all keys derives from
    :class:`~pacavit.attention.qkv.QkvAttention` instead, which needs no :meth:`recorded`. Register
    a class with ``@ATTENTIONS.register("name")`` and check it with
    :func:`pacavit.testing.check_attention`.

    A network builds it as ``cls(dim, num_heads, stage=..., block=..., **options)``.

    Args:
        dim: channels C.
        num_heads: heads h.
        stage: index of the stage the attention sits in, from 0.
        block: index of its block in the stage, from 0.

    Attributes:
        uses_clusters: the attention reads ``state.assignment``.
        exportable: ONNX and ``torch.export`` have one program of it for any batch and grid, see
            :meth:`export_refusal`.
    """

    uses_clusters: ClassVar[bool] = False
    exportable: ClassVar[bool] = True

    def __init__(self, dim: int, num_heads: int, *, stage: int, block: int) -> None:
        super().__init__()
        self.stage = stage
        self.block = block

    def input_layers(self) -> Sequence[nn.Linear]:
        """The linear layers that alone read the values of the tokens. Optional, for speed.

        They get tokens, or means of tokens with weights that sum to 1; nothing else does.
        :func:`pacavit.layers.optimize` folds the affine part of the norm before the attention into
        them. This counts for the class that defines it, not for subclasses, which may read the
        tokens otherwise. Default: none.
        """
        return ()

    def own_input_layers(self) -> Sequence[nn.Linear]:
        """Those of :meth:`input_layers`, if the class itself defines them and no base class."""
        return self.input_layers() if has_own(self, "input_layers") else ()

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C) and the state for the next block.

        Args:
            x: (B, N, C) normalized tokens.
            grid: their height and width.
            state: from earlier blocks of the stage.
            patch_mask: (B, N) bool, False where a patch is padding; nothing attends to padding.
        """
        raise NotImplementedError

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        """:meth:`forward` with the weights that it uses. Optional.

        While a network is recorded for an explanation, this runs instead of :meth:`forward`. The
        tokens must be computed from the returned weights, so that gradients reach the weights.

        Args:
            x: as for :meth:`forward`.
            grid: as for :meth:`forward`.
            state: as for :meth:`forward`.
            patch_mask: as for :meth:`forward`.

        Returns:
            Tokens and state as :meth:`forward` returns them, and the weights (B, h, N, K) with the
            patches that each key stands for.
        """
        raise NotImplementedError

    def export_refusal(self) -> str | None:
        """Why this attention cannot be exported to ONNX or by ``torch.export``; None: it can.

        Part of a sentence whose subject is the attention, with what to do instead. To be
        overridden where it depends on the options.
        """
        return None if self.exportable else "declares that it works for one size of images only"


ATTENTIONS: Registry[Attention] = Registry("attention")
