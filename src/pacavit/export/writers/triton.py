"""A model folder for NVIDIA Triton, which KServe serves too."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pacavit.engine.exported import INPUT, OnnxReader
from pacavit.engine.exported.facts import Precision
from pacavit.engine.exported.model import TRITON_CONFIG, TRITON_FILE
from pacavit.export.writers.base import WRITERS, Job, Writer
from pacavit.export.writers.onnx import OnnxWriter, write_onnx

__all__ = ["TritonWriter"]

_MAX_BATCH = 32
_DELAY = 2000  # microseconds that a request waits for others
_LABELS = "labels.txt"
_TYPES = {"float": "TYPE_FP32", "uint8": "TYPE_UINT8"}


@WRITERS.register("triton")
class TritonWriter(Writer):
    """NAME/config.pbtxt with dynamic batching, and NAME/1/model.onnx."""

    folder = TRITON_CONFIG
    precisions: ClassVar[tuple[Precision, ...]] = OnnxWriter.precisions
    casts: ClassVar[tuple[Precision, ...]] = OnnxWriter.casts
    libraries = OnnxWriter.libraries

    def write(self, job: Job, target: Path) -> None:
        """Write the folder."""
        path = target / TRITON_FILE
        path.parent.mkdir(parents=True)
        write_onnx(job, path)
        # Names of classes are lines of a file, so a line break in one becomes a space.
        names = [" ".join(name.split()) for name in job.class_names]
        (target / _LABELS).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        (target / TRITON_CONFIG).write_text(_config(job, target.name, OnnxReader(path)))


def _config(job: Job, name: str, reader: OnnxReader) -> str:
    """The text of ``config.pbtxt``; shapes are without the batch."""
    shape = reader.inputs[INPUT][1:]
    outputs = []
    for output in reader.session.get_outputs():
        sides = [side if isinstance(side, int) else None for side in output.shape[1:]]
        # Labels belong to an output with one number per class.
        labels = f'\n    label_filename: "{_LABELS}"' if len(sides) == 1 else ""
        outputs.append(_tensor(output.name, "TYPE_FP32", sides, labels))
    tensor = _tensor(INPUT, _TYPES[job.facts.input], list(shape), "")
    listed = ",\n".join(outputs)
    return (
        f'name: "{_quoted(name)}"\n'
        'backend: "onnxruntime"\n'
        f"max_batch_size: {_MAX_BATCH}\n"
        f"input [\n{tensor}\n]\n"
        f"output [\n{listed}\n]\n"
        "dynamic_batching {\n"
        f"  max_queue_delay_microseconds: {_DELAY}\n"
        "}\n"
    )


def _tensor(name: str, kind: str, sides: list[int | None], more: str) -> str:
    dims = ", ".join("-1" if side is None else str(side) for side in sides)
    return f'  {{\n    name: "{name}"\n    data_type: {kind}\n    dims: [ {dims} ]{more}\n  }}'


def _quoted(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')
