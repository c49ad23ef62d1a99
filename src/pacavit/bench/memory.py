"""The most memory that work takes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

__all__ = ["RELEASE", "PeakMemory"]

RELEASE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Variables with which a new process returns freed memory to the system at once (GNU libc).

Otherwise libc keeps what it may need again, which can be as much as the tensors. How much that is
depends on the order of their sizes, and says little about the network.
"""


class PeakMemory:
    """Measures how much memory is taken at most, beyond what was taken at its creation.

    On a CUDA device it is memory allocated by PyTorch. On the CPU it is resident memory of the
    process, so that only one measurement may run in it, started with ``RELEASE``; elsewhere than on
    Linux, ``reset`` cannot make the system forget an earlier peak.

    Args:
        device: where to compute.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()
        self._before = self._current()

    def reset(self) -> None:
        """Forget the peak up to now."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5", "ascii")

    def mebibytes(self) -> float:
        """The peak since the last reset, beyond what was taken at the creation."""
        return round((self._peak() - self._before) / 2**20, 1)

    def _current(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _account("VmRSS") if sys.platform == "linux" else _max_rss()

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _account("VmHWM") if sys.platform == "linux" else _max_rss()


def _account(field: str) -> int:
    """A field of Linux' account of this process, in bytes."""
    status = Path("/proc/self/status").read_text("utf-8")
    found = re.search(rf"^{field}:\s*(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _max_rss() -> int:
    """The largest resident memory of this process in bytes, on systems like macOS."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
