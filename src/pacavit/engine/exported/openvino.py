"""OpenVINO's files, an .xml with its .bin beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pacavit.engine.exported.base import READERS, Reader, library
from pacavit.engine.exported.facts import INPUT, METADATA_KEY, ExportFacts, Precision
from pacavit.errors import CheckpointError
from pacavit.utils.text import one_line, shown

__all__ = ["OpenvinoReader", "import_openvino"]

# Of what is not quantized, in an int8 file.
_HINTS: dict[Precision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


def import_openvino() -> ModuleType:
    """The library ``openvino``, without the telemetry that it otherwise sends when imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # blocks it
    return library("openvino")


@READERS.register("openvino")
class OpenvinoReader(Reader):
    """An OpenVINO file on the CPU.

    Args:
        path: of the .xml.

    Raises:
        CheckpointError: the file is broken, the .bin is missing, or OpenVINO is not installed.
    """

    suffix = ".xml"

    def __init__(self, path: Path) -> None:
        openvino = import_openvino()
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise CheckpointError(
                f"{shown(path)} needs {shown(weights.name)} beside it; copy both files"
            )
        self.core, self.path = openvino.Core(), path
        try:
            self.model = self.core.read_model(path, weights)
        except Exception as error:  # it raises RuntimeError for anything
            raise CheckpointError(
                f"{shown(path)} is truncated or no OpenVINO file ({one_line(error)[:160]}); "
                "export it again"
            ) from error
        key = [METADATA_KEY]
        self.text = self.model.get_rt_info(key).astype(str) if self.model.has_rt_info(key) else None
        self.inputs = {
            each.get_any_name(): tuple(
                None if side.is_dynamic else side.get_length() for side in each.get_partial_shape()
            )
            for each in self.model.inputs
        }

    def prepare(self, facts: ExportFacts) -> None:
        """Compile; by default OpenVINO would compute in bf16 where the CPU can."""
        super().prepare(facts)
        hints = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        try:
            self.compiled = self.core.compile_model(self.model, "CPU", hints)
        except Exception as error:
            raise CheckpointError(
                f"OpenVINO cannot compile {shown(self.path)} for this CPU in {facts.precision}: "
                f"{one_line(error)[:160]}"
            ) from error

    def run(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs, in order."""
        found = self.compiled({INPUT: images})
        # Copies: the arrays are overwritten by the next call.
        return [np.array(found[output]) for output in self.compiled.outputs]
