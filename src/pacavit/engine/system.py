"""Devices, precisions and kernels: settings of this process."""

from __future__ import annotations

import ctypes
import platform
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pacavit.errors import RecipeError, UnknownNameError

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

__all__ = [
    "PRECISIONS",
    "autocast",
    "check_precision",
    "configure",
    "pick_device",
    "put_metrics",
    "training_kernels",
]

PRECISIONS = ("fp32", "bf16")


def pick_device(name: str, *, float64: bool = False, option: str = "train.device") -> torch.device:
    """The device of a name; "auto" is the first NVIDIA GPU, else Apple's GPU (mps), else the CPU.

    Args:
        name: "auto", or a name of torch.
        float64: "auto" must be a device with float64, which Apple's GPUs are not.
        option: what the user calls it, for messages.

    Raises:
        RecipeError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        apple = torch.backends.mps.is_available() and not float64
        return torch.device("mps" if apple else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RecipeError(
            f"{option} {name!r} is no device; choose auto, cpu, mps, cuda, cuda:1 and so on"
        ) from error
    try:
        torch.zeros(1, device=device).cpu()  # fails on "meta", which holds no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        line = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"{option} {name!r} is not available here ({line}); choose auto or another device"
        ) from error
    return device


def configure(device: torch.device) -> None:
    """Set options of this process that make computing on ``device`` fast and repeatable."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        return
    # Allow the plain attention kernel (see training_kernels) to use bf16 under autocast.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    if platform.libc_ver()[0] == "glibc":
        # Each step frees and allocates the same large buffers. By default glibc returns them to
        # the kernel, which zeroes pages again; that takes a large part of a step on small images.
        libc = ctypes.CDLL(None)
        for option, value in ((-3, 1 << 30), (-1, -1), (-4, 0)):
            # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
            libc.mallopt(option, value)


def training_kernels(device: torch.device) -> AbstractContextManager[Any]:
    """Attention kernels for a training step; on a CPU the fused one has a slow backward pass."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def put_metrics(metrics: MetricCollection, device: torch.device) -> MetricCollection:
    """Metrics on a device; sums in float64 become fp32 on Apple's GPUs, which have no float64."""
    if device.type == "mps":
        metrics.set_dtype(torch.float32)
    return metrics.to(device)


def check_precision(precision: str) -> str:
    """Return the name of a precision unchanged, if there is such a precision.

    Raises:
        UnknownNameError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    return precision


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Arithmetic in the given precision, "fp32" or "bf16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
