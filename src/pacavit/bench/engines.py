"""What computes a network: PyTorch eager, optimized or compiled, ONNX Runtime, OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pacavit.bench import exported
from pacavit.bench.candidates import Candidate
from pacavit.engine.system import autocast
from pacavit.errors import PacavitError, UnknownNameError
from pacavit.layers import optimize

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Setting",
    "check_engine",
    "load_library",
    "make_step",
    "prepare",
    "supports",
]

_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
)
PRECISIONS = (*_DTYPES, "int8")

# The precisions of each engine, and the library that it needs besides torch.
_ENGINES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "eager": (("fp32", "bf16", "fp16"), None),
    "optimized": (("fp32", "bf16"), None),
    "compile": (("fp32", "bf16", "fp16"), None),
    "onnxruntime": (("fp32", "int8"), "onnxruntime"),
    "openvino": (("fp32", "bf16", "int8"), "openvino"),
}
ENGINES = tuple(_ENGINES)


class Setting(NamedTuple):
    """How networks are computed.

    Attributes:
        engine: one of ``ENGINES``.
        precision: one of ``PRECISIONS``. Of PyTorch, weights and images have it; of the others, the
            arithmetic.
        batch_size: images at once.
        size: height and width of the images in pixels.
        device: of PyTorch; the other engines compute on the CPU.
    """

    engine: str
    precision: str
    batch_size: int
    size: int
    device: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}, batch {self.batch_size}, {self.size} pixels"


def supports(engine: str, precision: str) -> bool:
    """Whether an engine computes in a precision.

    Raises:
        UnknownNameError: one of the two is unknown.
    """
    if engine not in _ENGINES:
        raise UnknownNameError("engine", engine, _ENGINES)
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    return precision in _ENGINES[engine][0]


def check_engine(engine: str, device: torch.device) -> None:
    """Check that an engine can be used here.

    Raises:
        PacavitError: its library is not installed, or it is for CPUs and the device is not.
    """
    _, library = _ENGINES[engine]
    if library is None:
        return
    missing = [name for name in (library, "onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise PacavitError(
            f"the engine {engine} needs {' and '.join(missing)}; install the libraries with: "
            "pip install 'pacavit[export]'"
        )
    if device.type != "cpu":
        raise PacavitError(
            f"the engine {engine} is measured on the CPU only, not on {device}; choose another "
            "engine or --device cpu"
        )


def load_library(engine: str) -> None:
    """Import what an engine needs besides torch, so that it does not count as memory of a step."""
    if (library := _ENGINES[engine][1]) is not None:
        exported.load_library(library)


def prepare(candidate: Candidate, setting: Setting, file: Path) -> None:
    """Export a candidate for the engines that need it, unless the file is there already.

    Args:
        candidate: the network.
        setting: how to compute it.
        file: of the network in fp32; that in int8, calibrated on random images, lies beside it.
    """
    if _ENGINES[setting.engine][1] is None:
        return
    images = _images(setting)
    if not file.exists():
        exported.export(optimize(candidate.build(setting.size), in_place=True), images, file)
    if setting.precision == "int8" and not exported.int8_file(file).exists():
        exported.quantize(file, images)


def make_step(candidate: Candidate, setting: Setting, file: Path) -> Callable[[], object]:
    """A function that computes one batch of random images.

    Args:
        candidate: the network; engines of exported networks do not build it.
        setting: how to compute it.
        file: of :func:`prepare`.

    Raises:
        Exception: whatever the network or the engine raises.
    """
    images = _images(setting)
    if _ENGINES[setting.engine][1] is not None:
        return exported.LOADERS[setting.engine](file, images.numpy(), setting.precision)
    dtype, device = _DTYPES[setting.precision], torch.device(setting.device)
    network: Any = candidate.build(setting.size).to(device)
    if setting.engine == "optimized":
        return _optimized_step(network, images.to(device), half=setting.precision == "bf16")
    network = network.to(dtype)
    if setting.engine == "compile":
        network = torch.compile(network, dynamic=False)
    return _torch_step(network, images.to(device, dtype))


def _images(setting: Setting) -> Tensor:
    shape = (setting.batch_size, 3, setting.size, setting.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _torch_step(network: nn.Module, images: Tensor) -> Callable[[], object]:
    def step() -> object:
        with torch.inference_mode():
            return network(images)

    return step


def _optimized_step(network: nn.Module, images: Tensor, *, half: bool) -> Callable[[], object]:
    """What ``pacavit predict`` computes."""
    network = optimize(network, half=half, in_place=True).to(memory_format=torch.channels_last)
    step = _torch_step(network, images.contiguous(memory_format=torch.channels_last))

    def cast() -> object:
        with autocast(images.device, "bf16" if half else "fp32"):
            return step()

    return cast
