"""Checks of what works on tokens, exported: one program for any batch and grid."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from pacavit.testing.common import say
from pacavit.types import Assignment, Grid, StageState

__all__ = ["check_exported_attention", "check_exported_clustering", "export_programs"]

_DIM, _CLUSTERS, _HEADS = 12, 5, 3
_TRACED = (2, _DIM, 6, 8)
_SHAPES = ((1, _DIM, 7, 5), (3, _DIM, 3, 10), (2, _DIM, 19, 23))
"""Unlike the traced shape; the last has more patches than classic methods cluster unpooled."""

Program = Callable[[Tensor], Sequence[Tensor]]


def check_exported_clustering(
    cls: Callable[..., nn.Module], options: Mapping[str, Any] | None = None
) -> None:
    """Check that a clustering, exported, computes for other batches and grids what it computes.

    A clustering that refuses to be exported, see ``Clustering.export_refusal``, passes. The export
    to ONNX is checked where onnx, onnxscript and onnxruntime are installed.

    Args:
        cls: built as ``cls(dim, num_clusters, **options)``.
        options: named options to build it with.

    Raises:
        AssertionError: names the requirement that is violated.
    """
    torch.manual_seed(0)
    _check(_Clusters(cls(_DIM, _CLUSTERS, **dict(options or {}))))


def check_exported_attention(
    cls: Callable[..., nn.Module], options: Mapping[str, Any] | None = None, *, block: int = 1
) -> None:
    """Check that an attention, exported, computes for other batches and grids what it computes.

    An attention that refuses to be exported, see ``Attention.export_refusal``, passes. The export
    to ONNX is checked where onnx, onnxscript and onnxruntime are installed.

    Args:
        cls: built as ``cls(dim, num_heads, stage=..., block=..., **options)``.
        options: named options to build it with.
        block: index of the block in its stage.

    Raises:
        AssertionError: names the requirement that is violated.
    """
    torch.manual_seed(0)
    _check(_Mixed(cls(_DIM, _HEADS, stage=1, block=block, **dict(options or {}))))


def export_programs(module: nn.Module, example: Tensor) -> dict[str, Program]:
    """A module's exported programs by the name of their exporter, for any batch and size.

    Args:
        module: from a map (B, C, H, W) to a tuple of tensors; in evaluation mode.
        example: a map to trace with.
    """
    dynamic: Any = torch.export.Dim.DYNAMIC  # an error where tracing would fix the size
    axes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    with torch.no_grad():
        exported = torch.export.export(module, (example,), dynamic_shapes=axes)
    programs: dict[str, Program] = {"torch.export": exported.module()}
    if all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        programs["ONNX"] = _onnx(exported)
    return programs


def _onnx(exported: torch.export.ExportedProgram) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # the program's unused values are no news
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(exported, dynamo=True, opset_version=20, verbose=False)
        assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)
    (name,) = (each.name for each in session.get_inputs())

    def run(maps: Tensor) -> list[Tensor]:
        return [torch.from_numpy(found) for found in session.run(None, {name: maps.numpy()})]

    return run


class _Clusters(nn.Module):
    """A map (B, C, H, W) -> weights (B, M, N) and log_mass (B, M)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        found = self.inner(maps.flatten(2).transpose(1, 2), Grid(*maps.shape[2:]))
        return found.weights, found.log_mass


class _Mixed(nn.Module):
    """A map (B, C, H, W) -> tokens (B, N, C), with a state that follows from the map."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, maps: Tensor) -> tuple[Tensor]:
        x = maps.flatten(2).transpose(1, 2)
        scores = x[..., :_CLUSTERS].transpose(1, 2)
        state = StageState(Assignment(scores.softmax(2), scores.logsumexp(2)), scores.exp().sum(1))
        return (self.inner(x, Grid(*maps.shape[2:]), state)[0],)


def _check(module: nn.Module) -> None:
    module.eval()
    inner: Any = module.inner
    refusal = inner.export_refusal() if hasattr(inner, "export_refusal") else None
    if refusal is not None:
        return
    programs = export_programs(module, _map(_TRACED))
    for shape in _SHAPES:
        maps = _map(shape)
        with torch.no_grad():
            expected = module(maps)
            for name, program in programs.items():
                for found, right in zip(program(maps), expected, strict=True):
                    torch.testing.assert_close(
                        found,
                        right,
                        atol=1e-5,
                        rtol=1e-4,
                        msg=say(f"exported by {name}, another result for a map {shape}"),
                    )


def _map(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
