"""Attentions with a fixed spatial structure: windows, reduced and pooled maps, Linformer."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from timm.models import pvt_v2, swin_transformer, twins
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.attention import (
    ATTENTIONS,
    Attention,
    FullAttention,
    LinformerAttention,
    LocalSubsampledAttention,
    PooledAttention,
    SpatialReductionAttention,
    WindowAttention,
)
from pacavit.errors import RecipeError
from pacavit.models import PacaViT, count_macs
from pacavit.types import AttentionRecord, Grid, StageState

DIM, HEADS = 12, 3
NAMES = ("linformer", "local_subsampled", "pooled", "spatial_reduction", "windows")
ODD_GRIDS = [Grid(9, 13), Grid(1, 7), Grid(14, 3), Grid(7, 7)]


def build(cls: type[Attention], block: int = 0, **options: Any) -> Any:  # Any: not typed
    """An attention of stage 0 with random parameters, so that no term is hidden by a zero."""
    torch.manual_seed(0)
    module = cls(DIM, HEADS, stage=0, block=block, **options).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def tokens(grid: Grid, batch: int = 2) -> Tensor:
    return torch.randn(batch, grid.num_patches, DIM, dtype=torch.float64)


def run(module: Any, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
    found: Tensor = module(x, grid, StageState(), patch_mask)[0]
    return found


def full(module: Any, x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Full attention with the projections of another attention."""
    reference: Any = FullAttention(DIM, HEADS, stage=0, block=0).double()
    reference.load_state_dict({name: module.state_dict()[name] for name in reference.state_dict()})
    return run(reference, x, Grid(1, x.shape[1]), valid)


def attend_to(module: Any, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain attention of tokens to keys and values (B, K, C), head by head."""
    heads = []
    for q, key, value in zip(*(each.chunk(HEADS, 2) for each in (module.q(x), k, v)), strict=True):
        heads.append((q @ key.mT / q.shape[2] ** 0.5).softmax(2) @ value)
    found: Tensor = module.proj(torch.cat(heads, 2))
    return found


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("grid", [Grid(5, 7), Grid(1, 1), Grid(3, 1)])
def test_one_window_without_bias_is_full_attention(grid: Grid, block: int) -> None:
    module = build(WindowAttention, block, window_size=7)
    nn.init.zeros_(module.relative_position_bias)
    x = tokens(grid)
    torch.testing.assert_close(run(module, x, grid), full(module, x))


def test_local_attention_in_one_window_is_full_attention() -> None:
    module, x = build(LocalSubsampledAttention, 0), tokens(Grid(5, 7))
    torch.testing.assert_close(run(module, x, Grid(5, 7)), full(module, x))


@pytest.mark.parametrize(
    ("cls", "block"), [(SpatialReductionAttention, 0), (LocalSubsampledAttention, 1)]
)
def test_reduction_by_1_is_full_attention(cls: type[Attention], block: int) -> None:
    module, x = build(cls, block, sr_ratio=1), tokens(Grid(5, 7))
    mask = torch.ones(2, 35, dtype=torch.bool)
    mask[0, 20:] = False
    torch.testing.assert_close(run(module, x, Grid(5, 7)), full(module, x))
    torch.testing.assert_close(run(module, x, Grid(5, 7), mask), full(module, x, mask))


def test_linformer_with_identities_is_full_attention() -> None:
    module = build(LinformerAttention, num_keys=36, base_size=6)
    for parameter in (module.project_k, module.project_v):
        parameter.data = torch.eye(36, dtype=torch.float64).view(36, 6, 6)
    x = tokens(Grid(6, 6))
    torch.testing.assert_close(run(module, x, Grid(6, 6)), full(module, x))


@pytest.mark.parametrize("num_keys", [5, 200])
@pytest.mark.parametrize("grid", ODD_GRIDS)
def test_linformer_interpolates_its_projections(grid: Grid, num_keys: int) -> None:
    module, x = build(LinformerAttention, num_keys=num_keys, base_size=6), tokens(grid)
    e, f = (
        F.interpolate(each[None], tuple(grid), mode="bilinear", antialias=True)[0]
        .flatten(1)[: grid.num_patches]
        .mul(36 / grid.num_patches)
        for each in (module.project_k, module.project_v)
    )
    expected = attend_to(module, x, e @ module.k(x), f @ module.v(x))
    torch.testing.assert_close(run(module, x, grid), expected)


def test_pooled_attention_on_49_patches_pools_nothing() -> None:
    module, x = build(PooledAttention), tokens(Grid(7, 7))
    context = F.gelu(module.norm(module.reduce(x)))
    expected = attend_to(module, x, module.k(context), module.v(context))
    torch.testing.assert_close(run(module, x, Grid(7, 7)), expected)


def same_window(grid: Grid, size: int, shift: int) -> Tensor:
    """(N, N) bool, from the layout without wrapping: a first window of ``shift`` patches."""
    places = list(itertools.product(range(grid.height), range(grid.width)))
    moves = [size - shift if shift and side > size else 0 for side in grid]
    window = [
        tuple((place + move) // size for place, move in zip(at, moves, strict=True))
        for at in places
    ]
    return torch.tensor([[one == other for other in window] for one in window])


def dense(found: AttentionRecord) -> Tensor:
    """A record as (B, h, N, N)."""
    assert found.keys is not None
    batch, heads, patches, _ = found.weights.shape
    matrix = found.weights.new_zeros(batch, heads, patches, patches)
    index = found.keys[:, None].expand_as(found.weights)
    return matrix.scatter_add(3, index, found.weights)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("grid", ODD_GRIDS)
def test_windows_are_a_masked_dense_attention(grid: Grid, block: int, padded: bool) -> None:
    size = 4
    module, x = build(WindowAttention, block, window_size=size), tokens(grid)
    allowed, mask = same_window(grid, size, 2 * block)[None, None], None
    if padded:
        mask = torch.ones(2, *grid, dtype=torch.bool)
        mask[0, :, -1] = False
        mask = mask.flatten(1)
        allowed = allowed & mask[:, None, None]
    bias = torch.zeros(HEADS, grid.num_patches, grid.num_patches, dtype=torch.float64)
    for query, key in allowed[-1, 0].nonzero().tolist():
        down, right = (
            a - b for a, b in zip(*(divmod(each, grid.width) for each in (query, key)), strict=True)
        )
        row = (down + size - 1) * (2 * size - 1) + right + size - 1
        bias[:, query, key] = module.relative_position_bias[row]
    q, k, v = (
        layer(x).unflatten(2, (HEADS, -1)).transpose(1, 2)
        for layer in (module.q, module.k, module.v)
    )
    scores = q @ k.mT / (DIM // HEADS) ** 0.5 + bias
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(3)
    expected = module.proj((weights @ v).transpose(1, 2).flatten(2))
    real = slice(None) if mask is None else mask
    torch.testing.assert_close(run(module, x, grid, mask)[real], expected[real])
    _, _, found = module.recorded(x, grid, StageState(), mask)
    torch.testing.assert_close(dense(found).transpose(1, 2)[real], weights.transpose(1, 2)[real])


def copy_linear(module: Any, **sources: nn.Linear) -> None:
    """Copy layers of timm; a name such as ``q_k_v`` is for a layer that is these in one."""
    for names, source in sources.items():
        parts = names.split("_")
        assert source.bias is not None
        for name, weight, bias in zip(
            parts, source.weight.chunk(len(parts)), source.bias.chunk(len(parts)), strict=True
        ):
            layer = getattr(module, name)
            layer.weight.data, layer.bias.data = weight.data, bias.data


def randomized(module: nn.Module) -> Any:  # Any: attributes of timm's modules are not typed
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("grid", [Grid(14, 21), Grid(7, 14), Grid(7, 7)])
def test_windows_agree_with_timms_swin(grid: Grid, block: int) -> None:
    swin = swin_transformer.SwinTransformerBlock(
        DIM, (grid.height, grid.width), HEADS, window_size=7, shift_size=3 * block
    )
    reference, module, x = randomized(swin), build(WindowAttention, block), tokens(grid)
    copy_linear(module, q_k_v=reference.attn.qkv, proj=reference.attn.proj)
    module.relative_position_bias.data = reference.attn.relative_position_bias_table.data
    if block:
        # timm's mask is -100 instead of -inf, which large scores would show.
        module.q.weight.data *= 0.1
        reference.attn.qkv.weight.data[:DIM] *= 0.1
    expected = reference._attn(x.unflatten(1, grid)).flatten(1, 2)
    torch.testing.assert_close(run(module, x, grid), expected)


def test_a_map_smaller_than_the_window_agrees_with_timms_swin() -> None:
    grid = Grid(5, 14)
    swin = swin_transformer.SwinTransformerBlock(
        DIM, (grid.height, grid.width), HEADS, window_size=7
    )
    reference, module, x = randomized(swin), build(WindowAttention), tokens(grid)
    copy_linear(module, q_k_v=reference.attn.qkv, proj=reference.attn.proj)
    table = reference.attn.relative_position_bias_table.data
    module.relative_position_bias.data.view(13, 13, HEADS)[2:-2] = table.view(9, 13, HEADS)
    expected = reference._attn(x.unflatten(1, grid)).flatten(1, 2)
    torch.testing.assert_close(run(module, x, grid), expected)


def test_local_attention_agrees_with_timms_twins() -> None:
    reference = randomized(twins.LocallyGroupedAttn(DIM, HEADS, ws=7))
    module, x = build(LocalSubsampledAttention, 0), tokens(Grid(14, 21))
    copy_linear(module, q_k_v=reference.qkv, proj=reference.proj)
    torch.testing.assert_close(run(module, x, Grid(14, 21)), reference(x, (14, 21)))


@pytest.mark.parametrize("source", [twins.GlobalSubSampleAttn, pvt_v2.Attention])
@pytest.mark.parametrize(
    ("cls", "block"), [(SpatialReductionAttention, 0), (LocalSubsampledAttention, 1)]
)
def test_spatial_reduction_agrees_with_timm(
    source: type[nn.Module], cls: type[Attention], block: int
) -> None:
    reference = randomized(source(DIM, HEADS, sr_ratio=4))
    module, x = build(cls, block, sr_ratio=4), tokens(Grid(8, 12))
    copy_linear(module, q=reference.q, k_v=reference.kv, proj=reference.proj)
    module.reduction.conv.load_state_dict(reference.sr.state_dict())
    module.reduction.norm.load_state_dict(reference.norm.state_dict())
    torch.testing.assert_close(run(module, x, Grid(8, 12)), reference(x, (8, 12)))


def test_maps_that_do_not_divide_are_filled_up_with_zeros() -> None:
    module, x = build(SpatialReductionAttention, sr_ratio=4), tokens(Grid(9, 5))
    cells = F.pad(x.mT.unflatten(2, (9, 5)), (0, 3, 0, 3))
    context = module.reduction.norm(module.reduction.conv(cells).flatten(2).mT)
    expected = attend_to(module, x, module.k(context), module.v(context))
    torch.testing.assert_close(run(module, x, Grid(9, 5)), expected)


@pytest.mark.parametrize("grid", [*ODD_GRIDS, Grid(20, 31)])
def test_pooled_attention_agrees_with_timms_pvt_v2_li(grid: Grid) -> None:
    reference = randomized(pvt_v2.Attention(DIM, HEADS, linear_attn=True))
    module, x = build(PooledAttention), tokens(grid)
    copy_linear(module, q=reference.q, k_v=reference.kv, proj=reference.proj)
    module.reduce.weight.data = reference.sr.weight.data[..., 0, 0]
    module.reduce.bias.data = reference.sr.bias.data
    module.norm.load_state_dict(reference.norm.state_dict())
    torch.testing.assert_close(run(module, x, grid), reference(x, list(grid)))


def test_ratios_follow_the_stage() -> None:
    for cls in (SpatialReductionAttention, LocalSubsampledAttention):
        modules: list[Any] = [cls(DIM, HEADS, stage=stage, block=1) for stage in range(5)]
        assert [module.reduction.ratio for module in modules] == [8, 4, 2, 1, 1]


def test_options_may_differ_between_stages() -> None:
    model: Any = PacaViT(
        embed_dims=(8, 12),
        depths=(2, 2),
        num_heads=(2, 2),
        attention=("spatial_reduction", "windows"),
        attention_options=({"sr_ratio": 2}, {"window_size": 4}),
    )
    assert [block.attn.reduction.ratio for block in model.stages[0].blocks] == [2, 2]
    assert [block.attn.shift_size for block in model.stages[1].blocks] == [0, 2]
    assert model.no_weight_decay() == {
        f"stages.1.blocks.{block}.attn.relative_position_bias" for block in (0, 1)
    }


class Map(nn.Module):
    """An attention on the pixels of an image."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        grid = Grid(x.shape[2], x.shape[3])
        found: Tensor = self.attention(x.flatten(2).mT, grid, StageState())[0]
        return found


def macs(name: str, side: int, block: int = 0, **options: Any) -> int:
    """Multiply-accumulates on side x side patches beyond the four projections of N tokens."""
    module = ATTENTIONS.create(name, DIM, HEADS, options=options, stage=0, block=block)
    all_of_them = count_macs(Map(module), (side, side), in_chans=DIM)
    return all_of_them - 4 * side**2 * DIM**2


@pytest.mark.parametrize("block", [0, 1])
def test_cost_of_windows(block: int) -> None:
    for name in ("windows", *(["local_subsampled"] if not block else [])):
        for side in (14, 28, 56):
            assert macs(name, side, block) == 2 * 49 * side**2 * DIM


def test_cost_of_spatial_reduction() -> None:
    for side in (8, 16, 64):
        patches, keys = side**2, (side // 8) ** 2
        own = macs("spatial_reduction", side)
        reduced = patches * DIM**2  # the convolution
        saved = 2 * (patches - keys) * DIM**2  # keys and values of fewer tokens
        assert own == 2 * patches * keys * DIM + reduced - saved
        assert macs("local_subsampled", side, block=1) == own


def test_cost_of_pooled_attention_and_of_linformer_is_linear() -> None:
    for name in ("pooled", "linformer"):
        costs = [macs(name, side) + 2 * side**2 * DIM**2 for side in (32, 64, 128, 256)]
        growth = [after / before for before, after in itertools.pairwise(costs)]
        assert all(3.5 < each < 4.3 for each in growth), (name, growth)
    assert macs("full", 32) * 16 == macs("full", 64)


@pytest.mark.parametrize("name", NAMES)
def test_training_and_evaluation_agree(name: str) -> None:
    for block in (0, 1):
        module, x = build(ATTENTIONS.get(name), block), tokens(Grid(9, 5))
        assert torch.equal(run(module.train(), x, Grid(9, 5)), run(module.eval(), x, Grid(9, 5)))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_close(name: str) -> None:
    grid, mask = Grid(9, 5), torch.ones(2, 45, dtype=torch.bool)
    mask[0, 40:] = False
    for block in (0, 1):
        module = ATTENTIONS.create(name, DIM, HEADS, options={}, stage=0, block=block)
        x = tokens(grid).float().requires_grad_()
        expected = run(module, x, grid, mask)
        with torch.autocast("cpu", torch.bfloat16):
            found = run(module, x, grid, mask)
            _, _, record = module.recorded(x, grid, StageState(), mask)
        torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
        assert record.fault() is None
        found.square().sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("windows", {"window_size": 0}, "window_size must be {} of at least 1, not 0"),
        ("windows", {"window_size": 3.5}, "window_size must be {} of at least 1, not 3.5"),
        ("windows", {"shift_size": 7}, "shift_size must be {} in 0..6, not 7"),
        ("spatial_reduction", {"sr_ratio": -1}, "sr_ratio must be {} of at least 1, not -1"),
        ("local_subsampled", {"sr_ratio": 0}, "sr_ratio must be {} of at least 1, not 0"),
        ("local_subsampled", {"window_size": "7"}, "window_size must be {} of at least 1, not '7'"),
        ("pooled", {"pool_size": True}, "pool_size must be {} of at least 1, not True"),
        ("linformer", {"num_keys": 0}, "num_keys must be {} of at least 1, not 0"),
        ("linformer", {"base_size": 0}, "base_size must be {} of at least 1, not 0"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        ATTENTIONS.create(name, DIM, HEADS, options=options, stage=0, block=0)
    assert str(caught.value) == message.format("a whole number")
