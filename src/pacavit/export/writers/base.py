"""The interface of writers, one per format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from torch.export import ExportedProgram

from pacavit.engine.exported.facts import ExportFacts, Precision
from pacavit.utils.registry import Registry

__all__ = ["WRITERS", "Job", "Writer"]


@dataclass(frozen=True)
class Job:
    """What to write.

    Attributes:
        program: of the graph.
        example: its input.
        facts: how it is exported.
        text: the description that the file has to carry, see ``exported_text``.
        class_names: of the model.
        quantized: an ONNX file in int8, which is taken instead of the program.
    """

    program: ExportedProgram
    example: Tensor
    facts: ExportFacts
    text: str
    class_names: tuple[str, ...]
    quantized: Path | None = None


class Writer(ABC):
    """Writes a format. Register one with ``@WRITERS.register("name")``, in a file of its own.

    What it writes, a reader in ``pacavit.engine.exported`` reads.

    Attributes:
        suffix: of the file; None if only a folder is written.
        folder: name, in a folder, of the file that marks it; None if no folder is written.
        precisions: that the engine computes in.
        casts: precisions for which the graph itself computes in that type; in all others the
            engine converts it.
        libraries: that writing needs, from the extra ``export``.
    """

    suffix: ClassVar[str | None] = None
    folder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[Precision, ...]] = ()
    casts: ClassVar[tuple[Precision, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def write(self, job: Job, target: Path) -> None:
        """Write a file, or a folder if the name has no suffix; nothing is there yet."""


WRITERS: Registry[Writer] = Registry("export format")
