"""Checks of what works on tokens: clusterings and attentions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pacavit.testing.common import check_parameters, say
from pacavit.types import Assignment, AttentionRecord, Grid, StageState

__all__ = ["check_attention", "check_clustering"]

_DIM, _CLUSTERS = 12, 5
_GRIDS = (Grid(6, 6), Grid(5, 9), Grid(1, 7), Grid(1, 1), Grid(2, 2))


def check_clustering(
    cls: Callable[..., nn.Module], options: Mapping[str, Any] | None = None
) -> None:
    """Check that a class fulfills the contract of clusterings.

    Args:
        cls: built as ``cls(dim, num_clusters, **options)``.
        options: named options to build it with.

    Raises:
        AssertionError: names the requirement that is violated.
    """
    options = dict(options or {})
    torch.manual_seed(0)
    module = cls(_DIM, _CLUSTERS, **options).eval()
    for grid in _GRIDS:
        _check_assignment(module, grid)
        _check_alone_equals_batch(module, grid)
        _check_padding(module, grid)
    if getattr(module, "order_free", False):
        _check_permutation(module)
    _check_differentiable(module)
    _check_degenerate_input(module)
    _check_precision(module)
    _check_clustering_gradients(module)


def check_attention(
    cls: Callable[..., nn.Module], options: Mapping[str, Any] | None = None
) -> None:
    """Check that a class fulfills the contract of attentions.

    Args:
        cls: built as ``cls(dim, num_heads, stage=..., block=..., **options)``.
        options: named options to build it with.

    Raises:
        AssertionError: names the requirement that is violated.
    """
    torch.manual_seed(0)
    module = cls(_DIM, 3, stage=1, block=2, **dict(options or {})).double().eval()
    for grid in _GRIDS:
        x, state = _tokens(3, grid), _random_state(3, grid)
        out, _ = module(x, grid, state)
        assert out.shape == x.shape, f"{tuple(x.shape)} became {tuple(out.shape)}"
        assert out.isfinite().all(), "output is not finite"
        first, _ = module(x[:1], grid, _first_image(state))
        torch.testing.assert_close(first, out[:1], msg=say("an image depends on its batch"))
        if grid.num_patches > 1:
            mask = _padding(3, grid)
            state = _random_state(3, grid, mask)
            kept, _ = module(x, grid, state, mask)
            moved, _ = module(torch.where(mask[..., None], x, x + 100), grid, state, mask)
            torch.testing.assert_close(
                moved[mask], kept[mask], msg=say("padded patches influence others")
            )
        _check_record(module, grid)
    x = _tokens(2, _GRIDS[0]).requires_grad_()
    module.train()(x, _GRIDS[0], _random_state(2, _GRIDS[0]))[0].square().sum().backward()
    _check_gradients(module, x)


def _check_record(module: Any, grid: Grid) -> None:
    """If a module implements ``recorded``, it equals ``forward`` and returns valid weights."""
    if not hasattr(module, "recorded"):
        return
    masks = (None, _padding(3, grid)) if grid.num_patches > 1 else (None,)
    for mask in masks:
        x, state = _tokens(3, grid), _random_state(3, grid, mask)
        try:
            tokens, _, found = module.recorded(x, grid, state, mask)
        except NotImplementedError:
            return
        assert isinstance(found, AttentionRecord), (
            f"recorded {type(found).__name__}, not AttentionRecord"
        )
        real = slice(None) if mask is None else mask
        expected, _ = module(x, grid, state, mask)
        torch.testing.assert_close(
            tokens[real], expected[real], msg=say("recorded tokens are not those of forward")
        )
        fault = found.fault()
        assert fault is None, f"recorded {fault}"
        assert found.weights.shape[2] == grid.num_patches, "not one row of weights per patch"
        assert found.weights.requires_grad, "recorded weights are not in the graph of the tokens"
        (gradient,) = torch.autograd.grad(tokens[real].sum(), found.weights, allow_unused=True)
        assert gradient is not None, "recorded tokens are not computed from the recorded weights"
        if mask is not None:
            uniform = mask / mask.sum(1, keepdim=True)
            reached = found.to_patches(uniform.to(found.weights), found.weights.mean(1))
            assert (reached[~mask] == 0).all(), "recorded weights go to padded patches"


def _check_assignment(module: nn.Module, grid: Grid) -> None:
    answer = module(_tokens(3, grid).float(), grid)
    assert isinstance(answer, Assignment), f"returned {type(answer).__name__}, not Assignment"
    weights, log_mass, valid = answer
    shape = (3, _CLUSTERS, grid.num_patches)
    assert weights.shape == shape, f"weights are {tuple(weights.shape)}, not {shape}"
    assert log_mass.shape == shape[:2], f"log_mass is {tuple(log_mass.shape)}"
    assert weights.isfinite().all(), "weights are not finite"
    assert log_mass.isfinite().all(), "log_mass is not finite"
    assert (weights >= 0).all(), "weights are negative"
    if valid is None:
        valid = torch.ones(shape[:2], dtype=torch.bool)
    assert valid.any(1).all(), "an image has no valid cluster"
    sums = weights.sum(2)
    torch.testing.assert_close(
        sums, valid.to(sums.dtype), msg=say("valid rows must sum to 1 over N, invalid ones to 0")
    )
    if answer.valid is not None:
        assert (valid.sum(1) <= grid.num_patches).all(), "more valid clusters than patches"


def _check_alone_equals_batch(module: nn.Module, grid: Grid) -> None:
    module = module.double()
    x = _tokens(3, grid)
    together, alone = module(x, grid), module(x[1:2], grid)
    torch.testing.assert_close(
        alone.weights,
        together.weights[1:2],
        atol=1e-10,
        rtol=0,
        msg=say("an image depends on its batch"),
    )
    module.float()


def _check_padding(module: nn.Module, grid: Grid) -> None:
    if grid.num_patches == 1:
        return
    module = module.double()
    mask, x = _padding(3, grid), _tokens(3, grid)
    before = module(x, grid, mask)
    after = module(torch.where(mask[..., None], x, x + 100), grid, mask)
    outside = before.weights.masked_select(~mask[:, None].expand_as(before.weights))
    assert (outside == 0).all(), "padded patches have weight"
    torch.testing.assert_close(
        after.weights, before.weights, msg=say("padded patches influence the assignment")
    )
    module.float()


def _check_permutation(module: nn.Module) -> None:
    grid = Grid(1, 36)
    module = module.double()
    x = _tokens(2, grid)
    order = torch.randperm(36)
    torch.testing.assert_close(
        module(x[:, order], grid).weights,
        module(x, grid).weights[:, :, order],
        msg=say("declares order_free, yet depends on the order of patches"),
    )
    module.float()


def _check_differentiable(module: nn.Module) -> None:
    x = _tokens(2, _GRIDS[0]).float().requires_grad_()
    weights = module(x, _GRIDS[0]).weights
    claimed = bool(getattr(module, "differentiable", True))
    assert weights.requires_grad == claimed, (
        f"declares differentiable={claimed}, yet its weights carry "
        + ("a gradient" if weights.requires_grad else "no gradient")
    )


def _check_degenerate_input(module: nn.Module) -> None:
    grid = _GRIDS[0]
    for x in (torch.zeros(2, 36, _DIM), torch.full((2, 36, _DIM), 1e4)):
        answer = module(x, grid)
        assert answer.weights.isfinite().all(), "constant tokens give weights that are not finite"
        valid = answer.valid
        assert valid is None or valid.any(1).all(), "constant tokens leave no valid cluster"


def _check_precision(module: nn.Module) -> None:
    x = _tokens(2, _GRIDS[0]).float()
    with torch.autocast("cpu", torch.bfloat16):
        weights = module(x, _GRIDS[0]).weights
    assert weights.dtype == torch.float32, f"weights under autocast are {weights.dtype}, not fp32"
    torch.testing.assert_close(
        weights.sum(2).round(decimals=4),
        (weights.sum(2) > 0).float(),
        msg=say("rows under autocast do not sum to 1"),
    )


def _check_clustering_gradients(module: nn.Module) -> None:
    grid = _GRIDS[0]
    x = _tokens(2, grid).float().requires_grad_()
    weights = module.train()(x, grid).weights
    clusters = torch.bmm(weights, x)
    (clusters * torch.randn_like(clusters)).sum().backward()
    _check_gradients(module, x)


def _check_gradients(module: nn.Module, x: Tensor) -> None:
    assert x.grad is not None, "no gradient reaches the tokens"
    assert x.grad.isfinite().all(), "gradient of the tokens is not finite"
    check_parameters(module)


def _tokens(batch: int, grid: Grid) -> Tensor:
    generator = torch.Generator().manual_seed(grid.height * 1000 + grid.width)
    return torch.randn(batch, grid.num_patches, _DIM, generator=generator, dtype=torch.float64)


def _padding(batch: int, grid: Grid) -> Tensor:
    """A mask: no padding in the last image, a padded last column or row in all others."""
    mask = torch.ones(batch, *grid, dtype=torch.bool)
    if grid.width > 1:
        mask[:-1, :, -1] = False
    else:
        mask[:-1, -1] = False
    return mask.flatten(1)


def _random_state(batch: int, grid: Grid, mask: Tensor | None = None) -> StageState:
    """A state with a random assignment whose last cluster is invalid in the first image."""
    generator = torch.Generator().manual_seed(7)
    scores = torch.randn(
        batch, _CLUSTERS, grid.num_patches, generator=generator, dtype=torch.float64
    )
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], -torch.inf)
    valid = torch.ones(batch, _CLUSTERS, dtype=torch.bool)
    valid[0, -1] = False
    weights = scores.softmax(2) * valid[..., None]
    importance = weights.sum(1)
    return StageState(Assignment(weights, scores.logsumexp(2), valid), importance)


def _first_image(state: StageState) -> StageState:
    assignment, importance = state.assignment, state.importance
    assert assignment is not None
    assert assignment.valid is not None
    assert importance is not None
    return StageState(
        Assignment(assignment.weights[:1], assignment.log_mass[:1], assignment.valid[:1]),
        importance[:1],
    )
