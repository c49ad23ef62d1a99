"""Process-wide settings and facts of the machine."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pacavit.errors import CheckpointError, RecipeError, UnknownNameError

__all__ = [
    "ENVIRONMENT",
    "PRECISIONS",
    "autocast",
    "check_precision",
    "configure",
    "environment",
    "pick_device",
    "read_environment",
    "training_kernels",
]

ENVIRONMENT = "environment.json"
PRECISIONS = ("fp32", "bf16")


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is the first GPU, or the CPU if there is none.

    Raises:
        RecipeError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RecipeError(
            f"train.device {name!r} is no device; choose auto, cpu, cuda, cuda:1 and so on"
        ) from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        line = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"train.device {name!r} is not to be had here ({line}); choose auto or another device"
        ) from error
    return device


def configure(device: torch.device) -> None:
    """Settings that make long work on ``device`` fast and repeatable; for this process."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        return
    # Lets the plain attention kernel (see training_kernels) stay in bf16 under autocast.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    if platform.libc_ver()[0] == "glibc":
        # Each step frees and asks for the same large buffers. By default glibc returns them to
        # the kernel, which hands out zeroed pages anew: a large part of a step on small images.
        libc = ctypes.CDLL(None)
        for option, value in ((-3, 1 << 30), (-1, -1), (-4, 0)):
            # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
            libc.mallopt(option, value)


def training_kernels(device: torch.device) -> AbstractContextManager[Any]:
    """Attention kernels for a training step; on a CPU the fused one has a slow backward pass."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def check_precision(precision: str) -> str:
    """The name of a precision, as it is.

    Raises:
        UnknownNameError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    return precision


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Arithmetic in the given precision, "fp32" or "bf16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and machine, as plain data for ``environment.json``; names no host and no folder."""
    packages = ("pacavit", "torch", "torchvision", "timm", "torchmetrics", "numpy", "safetensors")
    facts: dict[str, Any] = {
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
    return facts


def read_environment(run: Path) -> dict[str, Any]:
    """What ``environment`` gave when a run began.

    Raises:
        CheckpointError: the run's ``environment.json`` is missing or broken.
    """
    path = run / ENVIRONMENT
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    return facts


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"  # a source tree on PYTHONPATH


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
