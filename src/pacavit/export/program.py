"""From a graph of modules to a program of ``torch.export``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pacavit.engine.exported import INPUT
from pacavit.engine.exported.facts import Precision
from pacavit.errors import PacavitError
from pacavit.tasks.graph import Graph
from pacavit.utils.text import one_line

__all__ = ["CastGraph", "make_program", "quiet"]

_TYPES: Mapping[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class CastGraph(Graph):
    """A graph that computes in another precision; inputs and outputs stay as they are.

    Args:
        graph: fp32; its parameters are changed.
        precision: of the arithmetic.
    """

    def __init__(self, graph: Graph, precision: Precision) -> None:
        super().__init__()
        self.dtype = _TYPES[precision]
        self.inner = graph.to(self.dtype)
        self.outputs, self.channels, self.strides = graph.outputs, graph.channels, graph.strides

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs, fp32."""
        return tuple(each.float() for each in self.inner(images.to(self.dtype)))


def make_program(graph: Graph, example: Tensor, *, any_size: bool) -> ExportedProgram:
    """Trace a graph for any number of images.

    Args:
        graph: in evaluation mode.
        example: input, of at least two images.
        any_size: for images of any size too; otherwise for that of the example.

    Raises:
        PacavitError: ``torch.export`` cannot trace it.
    """
    sides = (1, 2) if example.dtype == torch.uint8 else (2, 3)
    shape: dict[int, Any] = {0: Dim.DYNAMIC}
    if any_size:
        shape |= dict.fromkeys(sides, Dim.DYNAMIC)
    with quiet(), torch.no_grad():
        try:
            program = torch.export.export(
                _Named(graph), (example,), dynamic_shapes={INPUT: shape}, strict=False
            )
        except Exception as error:  # torch raises errors of many classes
            raise PacavitError(f"torch.export cannot trace it: {one_line(error)[:300]}") from error
    for node in program.graph.nodes:
        # Where on this machine the source of the network lies is nobody's business.
        node.meta.pop("stack_trace", None)
    return program


class _Named(nn.Module):
    """A graph whose input has the name of the field in ``torch.export``."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.inner = graph

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs."""
        found: tuple[Tensor, ...] = self.inner(images)
        return found


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and the log of exporters, which are for their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
