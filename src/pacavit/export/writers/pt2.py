"""The archive of ``torch.export``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import torch

from pacavit.engine.exported.facts import Precision
from pacavit.engine.exported.pt2 import EXTRA_FILE
from pacavit.export.program import quiet
from pacavit.export.writers.base import WRITERS, Job, Writer

__all__ = ["Pt2Writer"]


@WRITERS.register("pt2")
class Pt2Writer(Writer):
    """One .pt2 archive, which torch runs without the source of the network."""

    suffix = ".pt2"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16")
    casts: ClassVar[tuple[Precision, ...]] = ("fp16", "bf16")

    def write(self, job: Job, target: Path) -> None:
        """Write the archive."""
        with quiet(), torch.no_grad():
            torch.export.save(job.program, os.fspath(target), extra_files={EXTRA_FILE: job.text})
