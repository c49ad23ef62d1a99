"""From an exported file to a task that it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pacavit.data import (
    Batch,
    DataInfo,
    Placement,
    Preprocess,
    Region,
    Sample,
    SampleRandom,
    mean_color,
    normalize,
    pad_images,
)
from pacavit.engine.exported.base import READERS, FileEngine
from pacavit.engine.exported.facts import ExportFacts, read_facts
from pacavit.engine.weights.format import Description
from pacavit.errors import CheckpointError
from pacavit.tasks import TASKS, Task
from pacavit.tasks.graph import EngineNetworks
from pacavit.utils.text import shown

__all__ = [
    "OPENVINO_FILE",
    "TRITON_CONFIG",
    "TRITON_FILE",
    "ExportedModel",
    "PixelPreprocess",
    "find_exported",
    "open_exported",
]

OPENVINO_FILE = "model.xml"
"""In a folder for OpenVINO."""
TRITON_CONFIG, TRITON_FILE = "config.pbtxt", "1/model.onnx"
"""In a model folder for Triton."""


@dataclass(frozen=True)
class ExportedModel:
    """An exported file as a task.

    Attributes:
        task: its network is the file.
        engine: that runs the file.
        description: of the weights that were exported.
        facts: how they were exported.
        path: of the file.
    """

    task: Task
    engine: FileEngine
    description: Description
    facts: ExportFacts
    path: Path

    def preprocess(self) -> Preprocess | None:
        """The path from images to a file that resizes by itself; None: that of the task."""
        return PixelPreprocess(self.description.info) if self.facts.input == "uint8" else None


class PixelPreprocess(Preprocess):
    """Images as they are, for a graph that crops and resizes them; only normalized.

    ``FileEngine`` recovers the pixels, so that whatever works on normalized images can be used,
    such as explanations, for which 0 is the mean color. Images of a batch are padded right and
    below to the largest.

    Args:
        info: of the data that the model was trained on.
    """

    def __init__(self, info: DataInfo) -> None:
        self.info, self.fill = info, mean_color(info)

    def sample(self, sample: Sample, random: SampleRandom) -> tuple[Sample, Placement]:
        """The image itself."""
        full = (sample.image.shape[1], sample.image.shape[2])
        return sample, Placement(full, Region(0, 0, *full), full)

    def collate(self, samples: list[tuple[Sample, Placement]]) -> Batch:  # type: ignore[override]
        """Images of any sizes -> a batch."""
        sizes = {tuple(sample.image.shape) for sample, _ in samples}
        if len(sizes) > 1:
            images = pad_images([sample.image for sample, _ in samples], self.fill)
            padded = [
                (replace(sample, image=image), placement)
                for image, (sample, placement) in zip(images, samples, strict=True)
            ]
            return super().collate(padded)
        return super().collate(samples)

    def batch(self, batch: Batch, random: SampleRandom) -> Batch:
        """(B, 3, height, width) uint8 -> normalized float32."""
        return replace(batch, images=normalize(batch.images.float(), self.info))


def find_exported(path: Path) -> Path | None:
    """The exported file that a path names: the file itself, or the one in its folder.

    Args:
        path: of a file with the suffix of a format, or of a folder for OpenVINO or Triton.

    Returns:
        None if the path is neither.

    Raises:
        CheckpointError: the folder is incomplete, or there is no such file.
    """
    if path.is_dir():
        if (path / TRITON_CONFIG).is_file():
            if not (path / TRITON_FILE).is_file():
                raise CheckpointError(
                    f"{shown(path)} is a Triton folder without {TRITON_FILE}; export it again"
                )
            return path / TRITON_FILE
        return path / OPENVINO_FILE if (path / OPENVINO_FILE).is_file() else None
    if path.suffix.lower() not in {READERS.get(name).suffix for name in READERS}:
        return None
    if not path.is_file():
        raise CheckpointError(f"no exported file at {shown(path)}; pacavit export writes one")
    return path


def open_exported(path: Path) -> ExportedModel:
    """Open an exported file; its engine is imported now.

    Args:
        path: of a file, as ``find_exported`` returns it.

    Raises:
        CheckpointError: the file is broken or not of this package, or its engine is not installed.
        RecipeError: a field of the recipe inside is unknown or out of bounds.
        UnknownNameError: its task is not registered.
    """
    kinds = [READERS.get(name) for name in READERS]
    reader = next(kind for kind in kinds if kind.suffix == path.suffix.lower())(path)
    facts, found = read_facts(reader.text, path)
    engine = FileEngine(reader, facts, path, found.info.mean, found.info.std)
    networks = EngineNetworks(engine, facts.channels, facts.strides)
    task = TASKS.get(found.recipe.task.name).build(found.recipe.task, found.info, networks)
    task.run_by(engine, facts.outputs)
    if found.calibration is not None:
        task.temperature = found.calibration.temperature
    return ExportedModel(task.eval(), engine, found, facts, path)
