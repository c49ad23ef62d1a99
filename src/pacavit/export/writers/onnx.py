"""ONNX."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import torch

from pacavit.engine.exported import INPUT, METADATA_KEY
from pacavit.engine.exported.facts import Precision
from pacavit.errors import PacavitError
from pacavit.export.program import quiet
from pacavit.export.writers.base import WRITERS, Job, Writer
from pacavit.utils.text import one_line

__all__ = ["OPSET", "OnnxWriter", "write_onnx"]

OPSET = 20
"""Of the operators; the first with GELU."""


@WRITERS.register("onnx")
class OnnxWriter(Writer):
    """One .onnx file with the weights inside."""

    suffix = ".onnx"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")
    casts: ClassVar[tuple[Precision, ...]] = ("fp16",)
    libraries = ("onnx", "onnxscript", "onnxruntime")

    def write(self, job: Job, target: Path) -> None:
        """Write the file."""
        write_onnx(job, target)


def write_onnx(job: Job, target: Path) -> None:
    """Write an ONNX file.

    Raises:
        PacavitError: an operation has no counterpart in ONNX.
    """
    if job.quantized is not None:
        _write_quantized(job.quantized, job, target)
        return
    with quiet(), torch.no_grad():
        try:
            made: Any = torch.onnx.export(
                job.program,
                (job.example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(job.facts.outputs),
                verbose=False,
            )
        except Exception as error:  # its errors have no common class
            raise PacavitError(f"not expressible in ONNX: {one_line(error)[:300]}") from error
        _name_axes(made.model, job)
        made.model.metadata_props[METADATA_KEY] = job.text
        made.save(os.fspath(target), external_data=False)


def _write_quantized(quantized: Path, job: Job, target: Path) -> None:
    """Write an int8 file with the description of a job."""
    import onnx

    model = onnx.load(quantized)
    onnx.helper.set_model_props(model, {METADATA_KEY: job.text})
    model.producer_name, model.producer_version = "pacavit", job.facts.pacavit_version
    onnx.save(model, target)


def _name_axes(model: Any, job: Job) -> None:
    """Name the axes that fit any length, and drop what tells where the source lies."""
    names = {0: "batch"}
    names |= {1: "height", 2: "width"} if job.facts.input == "uint8" else {2: "height", 3: "width"}
    symbols = {}
    for axis, side in enumerate(model.graph.inputs[0].shape):
        if not isinstance(side, int):
            symbols[side.value] = names.get(axis, side.value)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    model.producer_name, model.producer_version = "pacavit", job.facts.pacavit_version
    for value in (*model.graph.inputs, *model.graph.outputs):
        for axis, side in enumerate(value.shape):
            if not isinstance(side, int) and side.value in symbols:
                value.shape[axis] = symbols[side.value]
