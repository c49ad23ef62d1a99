"""The interface of readers of exported files, one per format."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from pacavit.engine.exported.facts import INPUT, ExportFacts, Precision
from pacavit.errors import CheckpointError
from pacavit.utils.registry import Registry
from pacavit.utils.text import one_line, shown

__all__ = ["READERS", "Reader", "library"]


class Reader(ABC):
    """An exported file, opened by the engine that runs it; one file each, see ``READERS``.

    Args:
        path: of the file.

    Attributes:
        suffix: of the file.
        text: the description inside, see ``exported_text``; None if there is none.
        inputs: shape by name of the input tensors; None where any length fits.
        precision: of the arithmetic.

    Raises:
        CheckpointError: the file is broken, or its engine is not installed.
    """

    suffix: ClassVar[str]
    text: str | None
    inputs: Mapping[str, tuple[int | None, ...]]
    precision: Precision = "fp32"

    @abstractmethod
    def __init__(self, path: Path) -> None: ...

    def prepare(self, facts: ExportFacts) -> None:
        """Choose the precision that the file was exported for, before the first ``run``."""
        self.precision = facts.precision

    @abstractmethod
    def run(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs, in order, for a C-contiguous input of the file's own type and layout."""


READERS: Registry[Reader] = Registry("format of exported models")


def library(name: str) -> ModuleType:
    """An engine; CheckpointError says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CheckpointError(
            f"exported files of this format need the library {name}; install it with: "
            "pip install 'pacavit[export]'"
        ) from error


class FileEngine:
    """Runs the graph of an exported file: an ``Engine``.

    Args:
        reader: of the file.
        facts: of the file.
        path: of the file, for messages.
        mean: of the data, 0..1.
        std: of the data.
    """

    def __init__(
        self,
        reader: Reader,
        facts: ExportFacts,
        path: Path,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        self.reader, self.facts, self.path = reader, facts, path
        self.mean, self.std = (torch.tensor(each)[:, None, None] for each in (mean, std))
        _check_input(reader, facts, path)
        reader.prepare(facts)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, height, width) normalized -> the outputs.

        Files whose input is uint8 get the pixels from which these images were normalized.

        Raises:
            CheckpointError: the file does not take images of this size, or the engine fails.
        """
        given, size = self.input(images), (images.shape[2], images.shape[3])
        try:
            found = self.reader.run(given)
        except Exception as error:  # engines raise errors of classes of their own
            raise CheckpointError(
                f"the engine fails on {shown(self.path)}, for images of {size[0]} x {size[1]}: "
                f"{one_line(error)[:200]}"
            ) from error
        if len(found) != len(self.facts.outputs):
            raise CheckpointError(
                f"{shown(self.path)} has {len(found)} outputs, and its description names "
                f"{len(self.facts.outputs)}; export the run folder again"
            )
        return tuple(torch.from_numpy(each).to(images.device).float() for each in found)

    def input(self, images: Tensor) -> NDArray[Any]:
        """(B, 3, height, width) normalized -> what the file takes for them.

        Raises:
            CheckpointError: the file does not take images of this size.
        """
        facts, size = self.facts, (images.shape[2], images.shape[3])
        if facts.size is not None and size != facts.size:
            raise CheckpointError(
                f"{shown(self.path)} takes images of {facts.size[0]} x {facts.size[1]} (height x "
                f"width) only, not of {size[0]} x {size[1]}; export it again for this size or "
                "without --size"
            )
        given = images.detach().cpu().float()
        if facts.input == "uint8":
            pixels = (given * self.std + self.mean) * 255
            given = pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return given.contiguous().numpy()


def _check_input(reader: Reader, facts: ExportFacts, path: Path) -> None:
    """Raise CheckpointError unless a file has the one input that it describes."""
    axis = 3 if facts.input == "uint8" else 1
    shape = reader.inputs.get(INPUT, ())
    if len(reader.inputs) != 1 or len(shape) != 4 or shape[axis] != 3:
        listed = ", ".join(f"{name} {each}" for name, each in reader.inputs.items())
        raise CheckpointError(
            f"{shown(path)} has the inputs {listed or 'none'}, and must have one, {INPUT!r}, of "
            "color images; export the run folder again"
        )
