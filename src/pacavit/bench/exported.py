"""Networks as ONNX files of one input shape, and the engines that compute them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pacavit.engine.exported.openvino import import_openvino
from pacavit.export import quantize as quantizing

__all__ = ["LOADERS", "export", "int8_file", "load_library", "quantize"]

_Step = Callable[[], object]


def export(network: nn.Module, images: Tensor, file: Path) -> None:
    """Write a network as an ONNX file for images of exactly this shape.

    Args:
        network: on the CPU.
        images: (B, 3, H, W).
        file: to write.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own parts
        torch.onnx.export(network, (images,), file, dynamo=True, verbose=False, external_data=False)


def int8_file(file: Path) -> Path:
    """Where the int8 version of an exported network lies."""
    return file.with_name(f"{file.stem}-int8.onnx")


def quantize(file: Path, images: Tensor) -> None:
    """Write the int8 version of an exported network, calibrated on one batch: only for its speed.

    Args:
        file: the network in fp32.
        images: (B, 3, H, W).
    """
    import onnx

    (name,) = (each.name for each in onnx.load(file, load_external_data=False).graph.input)
    quantizing.quantize(file, int8_file(file), _OneBatch({name: images.numpy()}))


class _OneBatch:
    """A single batch to calibrate with, by the name of the input."""

    def __init__(self, batch: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self._batches = iter([batch])

    def get_next(self) -> Mapping[str, np.ndarray[Any, Any]] | None:
        """The batch; None after it."""
        return next(self._batches, None)


def load_library(engine: str) -> Any:
    """Import the library of an engine.

    Args:
        engine: the name of the library.
    """
    if engine == "openvino":
        return import_openvino()
    return import_module(engine)


def _onnxruntime(file: Path, images: np.ndarray[Any, Any], precision: str) -> _Step:
    """A step of ONNX Runtime, with as many threads as PyTorch has."""
    file = int8_file(file) if precision == "int8" else file
    onnxruntime = load_library("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: images}
    return lambda: session.run(None, inputs)


def _openvino(file: Path, images: np.ndarray[Any, Any], precision: str) -> _Step:
    """A step of OpenVINO, with as many threads as PyTorch has."""
    file = int8_file(file) if precision == "int8" else file
    openvino = load_library("openvino")
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(file, "CPU", config).create_infer_request()
    return lambda: request.infer([images], share_inputs=True)


LOADERS: Mapping[str, Callable[[Path, np.ndarray[Any, Any], str], _Step]] = MappingProxyType(
    {"onnxruntime": _onnxruntime, "openvino": _openvino}
)
"""By engine, a function from a file, images and a precision to a step."""
