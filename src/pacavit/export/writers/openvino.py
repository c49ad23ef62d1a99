"""OpenVINO."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pacavit.engine.exported import METADATA_KEY
from pacavit.engine.exported.facts import Precision
from pacavit.engine.exported.model import OPENVINO_FILE
from pacavit.engine.exported.openvino import import_openvino
from pacavit.export.writers.base import WRITERS, Job, Writer
from pacavit.export.writers.onnx import write_onnx

__all__ = ["OpenvinoWriter"]


@WRITERS.register("openvino")
class OpenvinoWriter(Writer):
    """An .xml file with its .bin beside it, or a folder with both; made from ONNX."""

    suffix = ".xml"
    folder = OPENVINO_FILE
    # fp16 is the type of the stored weights, bf16 that of the arithmetic of CPUs that have it.
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
    libraries = ("onnx", "onnxscript", "openvino")

    def write(self, job: Job, target: Path) -> None:
        """Write the files."""
        openvino = import_openvino()
        path = target if target.suffix else target / OPENVINO_FILE
        path.parent.mkdir(exist_ok=True)
        between = path.with_suffix(".onnx")
        write_onnx(job, between)
        model = openvino.convert_model(os.fspath(between))
        between.unlink()
        model.set_rt_info(job.text, [METADATA_KEY])
        openvino.save_model(model, os.fspath(path), compress_to_fp16=job.facts.precision == "fp16")
