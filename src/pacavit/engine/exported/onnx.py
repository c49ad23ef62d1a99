"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from pacavit.engine.exported.base import READERS, Reader, library
from pacavit.engine.exported.facts import INPUT, METADATA_KEY
from pacavit.errors import CheckpointError
from pacavit.utils.text import one_line, shown

__all__ = ["OnnxReader"]


@READERS.register("onnx")
class OnnxReader(Reader):
    """An ONNX file on the CPU.

    Args:
        path: of the file.

    Raises:
        CheckpointError: the file is broken, or ONNX Runtime is not installed.
    """

    suffix = ".onnx"

    def __init__(self, path: Path) -> None:
        runtime = library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; warnings are of constants that it folds
        try:
            self.session = runtime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common class of their own
            raise CheckpointError(
                f"{shown(path)} is truncated or no ONNX file that ONNX Runtime "
                f"{runtime.__version__} can run ({one_line(error)[:160]}); export it again"
            ) from error
        self.text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self.inputs = {
            each.name: tuple(side if isinstance(side, int) else None for side in each.shape)
            for each in self.session.get_inputs()
        }

    def run(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs, in order."""
        found: list[NDArray[Any]] = self.session.run(None, {INPUT: images})
        return found
