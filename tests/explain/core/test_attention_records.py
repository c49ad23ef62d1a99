"""Attentions of other formulas: their records are followed as dense matrices would be."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pacavit.attention import (
    Attention,
    LinformerAttention,
    LocalSubsampledAttention,
    PooledAttention,
    QkvAttention,
    SpatialReductionAttention,
    WindowAttention,
)
from pacavit.errors import PacavitError
from pacavit.explain import METHODS
from pacavit.explain.core import maps
from pacavit.explain.core.geometry import windows
from pacavit.explain.core.record import record
from pacavit.explain.core.rollout import relevance, rollout
from pacavit.models import PacaViT
from pacavit.testing import check_attention
from pacavit.types import AttentionRecord, Grid, StageState

MakeSmall = Callable[..., PacaViT]
SIDE = 2
SETTINGS: dict[str, Any] = {"num_clusters": None, "attention": "full", "depths": (2, 1, 1)}
PACKAGED = [
    LinformerAttention,
    LocalSubsampledAttention,
    PooledAttention,
    SpatialReductionAttention,
    WindowAttention,
]
IMAGES = torch.Generator().manual_seed(3)


class Windowed(Attention):
    """Two-headed attention inside of windows of 2 x 2 patches; no q, k, v or proj."""

    def __init__(self, dim: int, num_heads: int, *, stage: int, block: int) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        self.heads = num_heads
        self.logits = nn.Linear(dim, num_heads * SIDE * SIDE)
        self.mix = nn.Linear(dim, dim)

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        patches, inside = window_patches(grid)  # (N, K) each
        keys = patches.expand(len(x), -1, -1)
        allowed = inside.expand_as(keys)
        if patch_mask is not None:
            real = patch_mask.gather(1, keys.flatten(1)).view_as(keys)
            itself = keys == torch.arange(grid.num_patches)[:, None]
            allowed = allowed & (real | itself)
        scores = self.logits(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        weights = scores.masked_fill(~allowed[:, None], -torch.inf).softmax(3)
        values = self.mix(x).unflatten(2, (self.heads, -1))
        gathered = values[torch.arange(len(x))[:, None, None], keys]  # (B, N, K, h, d)
        tokens = torch.einsum("bhnk,bnkhd->bnhd", weights, gathered).flatten(2)
        return tokens, state, AttentionRecord(weights, keys)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        return self.recorded(x, grid, state, patch_mask)[:2]


class Pooled(QkvAttention):
    """Attention to the means of the image's rows: keys that stand for several patches."""

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        rows = torch.arange(grid.num_patches) // grid.width == torch.arange(grid.height)[:, None]
        real = torch.ones_like(x[..., 0], dtype=torch.bool) if patch_mask is None else patch_mask
        members = (rows & real[:, None]).to(x)
        keys = members / members.sum(2, keepdim=True).clamp(min=1)
        q, k, v = (
            layer(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.q, x), (self.k, keys @ x), (self.v, keys @ x))
        )
        used = members.any(2)[:, None, None]
        scores = (2 * q @ k.mT).masked_fill(~used, -torch.inf)  # not the usual scale
        weights = scores.softmax(3)
        tokens = self.proj((weights @ v).transpose(1, 2).flatten(2))
        return tokens, state, AttentionRecord(weights, keys)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        return self.recorded(x, grid, state, patch_mask)[:2]


class Averaging(Attention):
    """Tokens plus their mean, with no weights to record."""

    uses_clusters = True

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        return x + x.mean(1, keepdim=True), state


def window_patches(grid: Grid) -> tuple[Tensor, Tensor]:
    """The patches in the window of each patch (N, 4) and which of them lie in the image."""
    row, column = (torch.arange(n) for n in grid)
    corner = torch.cartesian_prod(row // SIDE * SIDE, column // SIDE * SIDE)
    steps = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))
    places = corner[:, None] + steps
    inside = (places < torch.tensor(grid)).all(2)
    places = places.minimum(torch.tensor(grid) - 1)
    return places[..., 0] * grid.width + places[..., 1], inside


def with_attention(small: MakeSmall, cls: type[Attention]) -> PacaViT:
    """A network with the attention in every block."""
    torch.manual_seed(5)
    model: Any = small(**SETTINGS)
    for index, (stage, heads) in enumerate(zip(model.stages, (2, 2, 4), strict=True)):
        for number, block in enumerate(stage.blocks):
            dim = model.feature_info[index]["num_chs"]
            block.attn = cls(dim, heads, stage=index, block=number)
            for parameter in block.attn.parameters():
                nn.init.normal_(parameter)
    return model.double().eval()


def dense(found: AttentionRecord, flow: Tensor) -> Tensor:
    """(B, h, N, K) -> (B, h, N, N), entry by entry: the independent reference."""
    assert found.keys is not None
    batch, heads, patches, num_keys = flow.shape
    matrix = flow.new_zeros(batch, heads, patches, patches)
    if found.keys.is_floating_point():
        return flow @ found.keys[:, None]
    keys = found.keys.expand(batch, -1, -1)
    for image in range(batch):
        for patch in range(patches):
            for key in range(num_keys):
                target = int(keys[image, patch, key])
                matrix[image, :, patch, target] += flow[image, :, patch, key]
    return matrix


def between_stages(model: Any, stage: int, fine: Grid, coarse: Grid) -> Tensor:
    """Which patches of the finer grid a coarse patch reads, (coarse N, fine N), rows sum to 1."""
    kernel, stride, padding, _ = windows(model.stages[stage].embed)[0]
    assert (kernel, stride, padding) == (3, 2, 1)
    found = torch.zeros(coarse.num_patches, *fine, dtype=torch.float64)
    for row in range(coarse.height):
        for column in range(coarse.width):
            rows = slice(max(0, 2 * row - 1), 2 * row + 2)
            columns = slice(max(0, 2 * column - 1), 2 * column + 2)
            found[row * coarse.width + column, rows, columns] = 1
    found = found.flatten(1)
    return found / found.sum(1, keepdim=True)


@pytest.mark.parametrize("cls", [Windowed, Pooled])
def test_toys_keep_the_contract(cls: type[Attention]) -> None:
    check_attention(cls)


@pytest.mark.parametrize(
    ("cls", "checkpointing"),
    [
        *itertools.product((Windowed, Pooled), (False, True)),
        *((packaged, False) for packaged in PACKAGED),
    ],
)
def test_rollout_and_relevance_are_those_of_dense_matrices(
    small: MakeSmall, cls: type[Attention], checkpointing: bool
) -> None:
    model = with_attention(small, cls)
    model.set_grad_checkpointing(checkpointing)
    if checkpointing:
        model.train()
    images = torch.randn(2, 3, 40, 28, dtype=torch.float64, generator=IMAGES)
    with record(model) as recording:
        recording.backward(model(images)[:, 1])
    blocks = recording.blocks
    steps = [dense(block.record(), block.attention()).mean(1) for block in blocks]
    products = [block.attention() * block.attention_gradient().clamp(min=0) for block in blocks]
    gains = [
        dense(block.record(), product).mean(1)
        for block, product in zip(blocks, products, strict=True)
    ]
    grids = [block.grid for block in blocks]
    assert grids == [(10, 7), (10, 7), (5, 4), (3, 2)]
    r = torch.full((2, 6), 1 / 6, dtype=torch.float64)
    passed, gained = r, torch.zeros_like(r)
    for index in (3, 2, 1, 0):
        identity = torch.eye(steps[index].shape[1], dtype=torch.float64)
        r = torch.einsum("bn,bnm->bm", r, (steps[index] + identity) / 2)
        gained = gained + torch.einsum("bn,bnm->bm", passed + gained, gains[index])
        if index in (3, 2):
            fine, coarse = grids[index - 1], grids[index]
            assert fine is not None
            assert coarse is not None
            reads = between_stages(model, index - 1, fine, coarse)
            r, passed, gained = r @ reads, passed @ reads, gained @ reads
    expected = gained / gained.sum(1, keepdim=True)
    found, other = rollout(recording, model), relevance(recording, model)
    torch.testing.assert_close(found.flatten(1).double(), r, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(other.flatten(1).double(), expected, atol=1e-6, rtol=1e-4)
    seen = maps.patch_map(blocks[1], 9, 2)
    torch.testing.assert_close(seen.flatten(1), steps[1][:, 9 * 7 + 2])


@pytest.mark.parametrize("cls", [Windowed, Pooled])
def test_gradients_at_the_weights_are_finite_differences(
    small: MakeSmall, cls: type[Attention], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = with_attention(small, cls)
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64, generator=IMAGES)
    with record(model) as recording:
        recording.backward(model(images)[:, 1])
    gradient = recording.blocks[-1].attention_gradient()
    softmax, step = Tensor.softmax, torch.zeros_like(gradient)
    step[0, 1, 2, 0] = 1e-6
    scores = []
    for sign in (1, -1):
        with monkeypatch.context() as patch, torch.no_grad():
            patch.setattr(
                Tensor,
                "softmax",
                lambda x, dim, sign=sign: (
                    softmax(x, dim) + sign * step if x.shape == step.shape else softmax(x, dim)
                ),
            )
            scores.append(model(images)[0, 1])
    torch.testing.assert_close(gradient[0, 1, 2, 0], (scores[0] - scores[1]) / 2e-6)


@pytest.mark.parametrize("name", ["rollout", "relevance"])
def test_methods_explain_a_windowed_network_and_leave_it(small: MakeSmall, name: str) -> None:
    model: Any = with_attention(small, Windowed).float()
    images = torch.randn(2, 3, 32, 32)
    before = model(images)
    found = METHODS.create(name, model, options={})(images, torch.tensor([0, 2]))
    assert found.isfinite().all()
    assert found.max() > found.min()
    assert "forward" not in vars(model.stages[0].blocks[0].attn)
    assert torch.equal(model(images), before)


def test_what_records_nothing_is_refused_in_one_line(small: MakeSmall) -> None:
    model: Any = with_attention(small, Windowed).float()
    model.stages[1].blocks[0].attn = Averaging(12, 2, stage=1, block=0)
    images, classes = torch.randn(1, 3, 32, 32), torch.tensor([1])
    for name in ("rollout", "relevance"):
        with pytest.raises(PacavitError) as caught:
            METHODS.create(name, model, options={})(images, classes)
        assert str(caught.value) == (
            "the weights of the attention stages.1.blocks.0.attn are not known, because Averaging "
            "does not implement Attention.recorded; choose a method that needs no attention, such "
            "as grad_cam"
        )
    assert METHODS.create("grad_cam", model, options={})(images, classes).isfinite().all()


def test_clusters_of_an_attention_that_records_nothing_are_seen(small: MakeSmall) -> None:
    model: Any = small().eval()
    model.stages[1].blocks[0].attn = Averaging(12, 2, stage=1, block=0)
    with record(model) as recording:
        recording.backward(model(torch.randn(1, 3, 32, 32))[:, 0])
    first, second = recording.stage(1)
    assert maps.partition(first).shape == maps.partition(second).shape == (1, 4, 4)
    with pytest.raises(PacavitError, match="Averaging does not implement"):
        maps.received(first)
    with pytest.raises(PacavitError, match="Averaging does not implement"):
        first.attention_gradient()
    assert maps.importance(second).isfinite().all()


def test_keys_that_are_not_the_clusters_are_recognized(small: MakeSmall) -> None:
    class Reading(Windowed):
        uses_clusters = True

    model: Any = small().eval()
    model.stages[1].blocks[0].attn = Reading(12, 2, stage=1, block=0)
    with record(model) as recording:
        model(torch.randn(1, 3, 32, 32))
    with pytest.raises(PacavitError, match="are not the clusters of its stage"):
        maps.attention_map(recording, 1)
    assert rollout(recording, model).sum().item() == pytest.approx(1)
