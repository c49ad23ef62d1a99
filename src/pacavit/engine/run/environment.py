"""Machine and versions at the start of a run, as recorded in ``environment.json``."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pacavit.errors import CheckpointError
from pacavit.utils.parsing import read_json
from pacavit.utils.registry import Plugin
from pacavit.utils.text import one_line, shown

__all__ = ["ENVIRONMENT", "environment", "needed_plugins", "read_environment"]

ENVIRONMENT = "environment.json"


def environment(device: torch.device, plugins: Sequence[Plugin] = ()) -> dict[str, Any]:
    """Versions and machine, as plain data for ``environment.json``; no names of host or folder.

    Args:
        device: where to compute.
        plugins: that the run needs; their names and SHA-256 are recorded.
    """
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
    if plugins:
        facts["plugins"] = {shown(plugin.path.name): plugin.sha256 for plugin in plugins}
    return facts


def needed_plugins(run: Path) -> dict[str, str]:
    """SHA-256 by file name of the plug-ins that a run was trained with; empty if not recorded."""
    try:
        found = read_environment(run).get("plugins", {})
    except CheckpointError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): str(digest) for name, digest in found.items()}


def read_environment(run: Path) -> dict[str, Any]:
    """The result of ``environment`` when the run in the folder ``run`` was started.

    Raises:
        CheckpointError: the run's ``environment.json`` is missing or broken.
    """
    path = run / ENVIRONMENT
    try:
        facts = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"cannot read {path}: it is not a table of facts")
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
