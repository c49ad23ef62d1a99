"""What an exported file says about itself: JSON text, which every format carries."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic

from pacavit.engine.weights.format import Description, read_description, weights_metadata
from pacavit.errors import CheckpointError, PacavitError
from pacavit.utils.parsing import parse_json
from pacavit.utils.text import one_line, shown

__all__ = [
    "INPUT",
    "METADATA_KEY",
    "ExportFacts",
    "Precision",
    "Quantization",
    "exported_text",
    "read_facts",
]

METADATA_KEY = "pacavit"
"""Under which every format stores the text."""
INPUT = "images"
"""Name of the input tensor."""
_FORMAT_VERSION = 1
_MAX_TEXT = 64 * 2**20  # characters

Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class Quantization:
    """How an int8 file was calibrated, and what it keeps of the network's score.

    Attributes:
        images: number of training images that set the ranges of the activations.
        seed: that they were drawn with.
        data: version of the data.
        metric: the task's main score, 0..1.
        before: the score of the network in fp32, on the validation images.
        after: that of the file.
        num_images: of the validation split.
        same_top: share of these for which both have the same class first; None for tasks without.
    """

    images: int
    seed: int
    data: str
    metric: str
    before: float
    after: float
    num_images: int
    same_top: float | None

    def __str__(self) -> str:
        same = "" if self.same_top is None else f"; the same class first for {self.same_top:.1%}"
        return (
            f"{self.metric} {self.before:.4f} in fp32, {self.after:.4f} in int8, on "
            f"{self.num_images:,} validation images{same}; calibrated on {self.images} training "
            "images"
        )


@dataclass(frozen=True)
class ExportFacts:
    """How a file was exported.

    Attributes:
        input: "float": (B, 3, height, width) fp32, normalized. "uint8": (B, height, width, 3),
            RGB pixels of images of any size, which the graph crops, resizes and normalizes.
        outputs: names of the output tensors, in order.
        precision: of the arithmetic; inputs and outputs are fp32 in any case.
        size: (height, width) of the input if it is fixed; None if any size fits.
        network_size: (height, width) that the network gets, of images of the usual size.
        channels: of the maps that the head of a dense task got; empty for classifiers.
        strides: of these maps.
        weights_sha256: of the weights file.
        pacavit_version: that wrote the file.
        quantization: of an int8 file.
    """

    input: Literal["float", "uint8"]
    outputs: tuple[str, ...]
    precision: Precision
    size: tuple[int, int] | None
    network_size: tuple[int, int]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    weights_sha256: str
    pacavit_version: str
    quantization: Quantization | None = None


_FACTS = pydantic.TypeAdapter(ExportFacts)


def exported_text(facts: ExportFacts, found: Description) -> str:
    """The JSON text of an exported file.

    Beside what this package needs, it has what other programs need to feed the file: class names,
    mean, standard deviation, and the temperature that divides the logits.

    Args:
        facts: how it was exported.
        found: recipe, data and scores of its weights.
    """
    info = found.info
    weights = weights_metadata(found.recipe, info, found.metrics, found.calibration)
    text = {
        "format_version": _FORMAT_VERSION,
        "task": found.recipe.task.name,
        "class_names": info.class_names,
        "preprocessing": {
            "in_graph": facts.input == "uint8",
            "color": "RGB",
            "layout": "NHWC" if facts.input == "uint8" else "NCHW",
            "size": facts.network_size,
            "mean": info.mean,
            "std": info.std,
        },
        "temperature": 1.0 if found.calibration is None else found.calibration.temperature,
        "export": asdict(facts),
        "weights": weights,
    }
    return json.dumps(text)


def read_facts(text: str | None, path: Path) -> tuple[ExportFacts, Description]:
    """The inverse of ``exported_text``, checked against all bounds.

    Args:
        text: of the file; None if it has none.
        path: of the file, for error messages.

    Raises:
        CheckpointError: ``pacavit export`` did not write the file, another version did, or its
            description is broken.
        RecipeError: a field of the recipe inside is unknown, of a wrong type or out of bounds.
    """
    if text is None:
        raise CheckpointError(
            f"{shown(path)} was not written by pacavit export: it does not describe its classes "
            "and preprocessing; export the run folder again"
        )
    try:
        if len(text) > _MAX_TEXT:
            raise ValueError(f"it has {len(text)} characters")
        content = parse_json(text)
        version = content["format_version"]
        if version != _FORMAT_VERSION:
            raise CheckpointError(
                f"{shown(path)} has format version {version!r} of exported files, this pacavit "
                f"reads {_FORMAT_VERSION}; export the run folder again"
            )
        facts = _FACTS.validate_json(json.dumps(content["export"]))
        weights = content["weights"]
        found = read_description(dict(weights), path)
        _check(facts)
    except PacavitError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the description inside {shown(path)} is broken: {one_line(error)}; export the run "
            "folder again"
        ) from error
    return facts, found


def _check(facts: ExportFacts) -> None:
    """Raise ValueError for impossible facts."""
    sizes: list[Any] = [facts.network_size, *([facts.size] if facts.size else [])]
    if not facts.outputs or any(side < 1 for size in sizes for side in size):
        raise ValueError("it has no outputs, or a size below 1")
    if any(number < 1 for number in (*facts.channels, *facts.strides)):
        raise ValueError("channels and strides must be at least 1")
