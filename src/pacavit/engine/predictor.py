"""Predict images given as paths, bytes, arrays or tensors, with a trained model."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pacavit.data import (
    Batch,
    Placement,
    Preprocess,
    Sample,
    SampleRandom,
    decode_image,
    read_image,
)
from pacavit.data.formats.image import from_pillow
from pacavit.engine.inputs import ImageInput, Input
from pacavit.engine.system import autocast
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import CheckpointError, DataError
from pacavit.utils.text import shown

__all__ = [
    "ImageInput",
    "InputReader",
    "Predicted",
    "Predictor",
    "PreparedInputs",
    "decode_input",
]

_NO_DRAWS = SampleRandom(seed=0, epoch=0, indices=torch.zeros(1, dtype=torch.int64))


@dataclass(frozen=True)
class Predicted:
    """The prediction for one input.

    Attributes:
        source: the path; for an input without a path, a name with its position.
        record: its type depends on the task; None if there was an error.
        error: why the image could not be read, in one line; None if it could.
    """

    source: Path
    record: Any
    error: str | None = None


class PreparedInputs(NamedTuple):
    """Some inputs, ready for a network.

    Attributes:
        names: of all of them.
        batch: those that could be read, on the CPU; None if none could.
        errors: why the others could not, by their positions in ``names``.
    """

    names: list[Path]
    batch: Batch | None
    errors: dict[int, str]


class InputReader:
    """Reads inputs into batches of a network, on the CPU; worker processes can have a copy.

    Args:
        preprocess: from stored images to the network's input.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    def __call__(self, inputs: Sequence[Input]) -> PreparedInputs:
        """The batch of some inputs; those that cannot be read have an error instead."""
        samples: list[tuple[Sample, Placement]] = []
        errors: dict[int, str] = {}
        for position, (name, image, error) in enumerate(inputs):
            if error is not None:
                errors[position] = error
                continue
            try:
                # Keep the network's input only, because images may be large.
                samples.append(self.fit(decode_input(image, shown(name))))
            except DataError as failure:
                errors[position] = str(failure)
        batch = self.collate(samples) if samples else None
        return PreparedInputs([each.name for each in inputs], batch, errors)

    def fit(self, image: Tensor) -> tuple[Sample, Placement]:
        """A decoded image (3, H, W) -> what ``collate`` takes, as small as the network's input."""
        return self.preprocess.sample(Sample(image.cpu(), None, 0), _NO_DRAWS)

    def collate(self, samples: Sequence[tuple[Sample, Placement]]) -> Batch:
        """Fitted images -> a batch with placements."""
        batch = self.preprocess.collate(samples)
        random = SampleRandom(seed=0, epoch=0, indices=batch.indices)
        return self.preprocess.batch(batch, random)


class Predictor:
    """A trained model with the preprocessing that it was evaluated with.

    Threads may share a predictor: they decode and preprocess images in parallel, and the network
    processes one batch at a time.

    Args:
        model: as loaded by ``load_model``; its task is moved to ``device``.
        device: where to compute.
        batch_size: largest number of images in a batch.

    Example:
        >>> predictor = Predictor(load_model("cifar10_nano_conv"))  # doctest: +SKIP
        >>> [predicted] = predictor(["cat.jpg"])  # doctest: +SKIP
    """

    def __init__(
        self, model: LoadedModel, device: torch.device | str = "cpu", *, batch_size: int = 16
    ) -> None:
        self.model, self.device, self.batch_size = model, torch.device(device), batch_size
        self.models = (model,)
        self.task = model.task.to(self.device).eval()
        self.preprocess = model.preprocess()
        self.reader = InputReader(self.preprocess)
        self._lock = threading.Lock()

    def __call__(self, inputs: Iterable[ImageInput]) -> list[Predicted]:
        """One result per input, in order; images that cannot be read have their ``error`` set."""
        return list(self.stream(inputs))

    def stream(self, inputs: Iterable[ImageInput]) -> Iterator[Predicted]:
        """The same as an iterator, which reads one batch of inputs at a time."""
        remaining, first = iter(inputs), 0
        while chunk := list(islice(remaining, self.batch_size)):
            yield from self._predict(chunk, first)
            first += len(chunk)

    def prepare(self, images: Iterable[Tensor]) -> Batch:
        """Decoded images (3, H, W) -> a batch with placements, on the device."""
        return self.reader.collate([self.reader.fit(image) for image in images]).to(self.device)

    def records(self, batch: Batch, sources: Sequence[Path] = ()) -> Sequence[Any]:
        """The task's predictions for a prepared batch.

        Raises:
            CheckpointError: the network returns numbers that are not finite.
        """
        with self._lock, autocast(self.device, self.model.precision):
            records = self.task.predict(batch)
        if not self.task.is_finite(records):
            where = shown(sources[0]) if sources else "an image"
            if len(sources) > 1:
                where += " or an image near it"
            raise CheckpointError(
                f"{shown(self.model.path)} returns values for {where} that are not numbers; use "
                "weights of an earlier checkpoint"
            )
        return records

    def answer(self, prepared: PreparedInputs) -> list[Predicted]:
        """One result for each input that ``reader`` has read, in order."""
        names, batch, errors = prepared
        readable = [position for position in range(len(names)) if position not in errors]
        records: dict[int, Any] = {}
        if batch is not None:
            sources = [names[position] for position in readable]
            records = dict(zip(readable, self.records(batch.to(self.device), sources), strict=True))
        return [
            Predicted(name, records.get(position), errors.get(position))
            for position, name in enumerate(names)
        ]

    def _predict(self, chunk: Sequence[ImageInput], first: int) -> list[Predicted]:
        inputs = [
            Input(Path(image) if isinstance(image, str | Path) else Path(f"image {number}"), image)
            for number, image in enumerate(chunk, first)
        ]
        return self.answer(self.reader(inputs))


def decode_input(source: ImageInput, name: str = "the image", *, still: bool = False) -> Tensor:
    """One input as (3, H, W) uint8, before preprocessing.

    Args:
        source: the image.
        name: of an image without a path, in messages.
        still: refuse animations.

    Raises:
        DataError: it is missing, broken, too large, or no image.
    """
    if isinstance(source, str | Path):
        return read_image(source, still=still)
    if isinstance(source, bytes):
        return decode_image(source, name, still=still)
    if isinstance(source, Image.Image):
        return from_pillow(source, name)
    if isinstance(source, np.ndarray):
        source = _from_array(source, name)
    if not isinstance(source, Tensor):
        raise DataError(
            f"{name} is a {type(source).__name__}; give a path, the bytes of a file, an array, "
            "a PIL image or a tensor"
        )
    if source.ndim != 3 or source.shape[0] != 3 or source.dtype != torch.uint8:
        raise DataError(
            f"{name} is a {source.dtype} tensor of shape {tuple(source.shape)}; give uint8 "
            "RGB of shape (3, H, W)"
        )
    return source


def _from_array(array: NDArray[Any], name: str) -> Tensor:
    """(H, W) or (H, W, 3) uint8 -> (3, H, W)."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise DataError(
            f"{name} is a {array.dtype} array of shape {array.shape}; give uint8 of shape "
            "(H, W, 3), or (H, W) for gray values"
        )
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    # torch rejects arrays with negative strides, and warns of read-only ones.
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).permute(2, 0, 1)
