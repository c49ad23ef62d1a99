"""int8 files: calibrated on training images, and kept if the validation score stays.

Convolutions and linear layers are quantized: weights to 8 bits with a scale per output channel,
their inputs to 8 bits with the range that was seen in calibration. All else, such as softmax, the
products of queries, keys and values, the clusters and normalization, stays in fp32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data import Batch, ImageSet, Loader, Preprocess
from pacavit.engine import LoadedModel, build
from pacavit.engine.evaluate import evaluate
from pacavit.engine.exported import INPUT, FileEngine, Quantization, exported_text
from pacavit.engine.scoring import check_classes
from pacavit.engine.weights.format import Description
from pacavit.engine.weights.load import load_model, optimized
from pacavit.errors import PacavitError
from pacavit.export.pictures import has_data
from pacavit.export.quantize import quantize
from pacavit.export.writers import Job, Writer
from pacavit.export.writers.onnx import write_onnx
from pacavit.tasks import Task
from pacavit.tasks.classification import Predictions
from pacavit.utils.progress import progress

__all__ = ["LIMIT", "Splits", "load_splits", "write_int8"]

LIMIT = 0.3
"""Points of the task's main score that a file may lose."""
_IMAGES, _SEED, _BATCH = 256, 0, 16


@dataclass(frozen=True)
class Splits:
    """The images that int8 needs.

    Attributes:
        train: to calibrate with.
        val: to evaluate with.
        version: of the data.
    """

    train: ImageSet
    val: ImageSet
    version: str


def load_splits(model: LoadedModel, root: Path | None) -> Splits:
    """The training and validation images of a model's data set; nothing is downloaded.

    Args:
        model: its recipe names the data set.
        root: folder with the data, instead of the recipe's.

    Raises:
        PacavitError: it is not known where the data are.
        DataError: they are missing or broken, or have other classes than the model.
    """
    if not has_data(model, root):
        raise PacavitError(
            f"int8 is calibrated and checked with images of {model.info.name}, and its folder is "
            "not known; give it with --data"
        )
    source = build.data_source(model.recipe, root, model.info)
    check_classes(source.info, model.info)
    return Splits(source.load("train"), source.load("val"), source.info.version)


def write_int8(
    model: LoadedModel,
    writer: Writer,
    job: Job,
    description: Description,
    made: Path,
    splits: Splits,
    *,
    allow_drop: bool,
) -> Quantization:
    """Quantize a network, evaluate the file, and write it.

    Args:
        model: the network in fp32, for the comparison.
        writer: of the format.
        job: what to write, with a program in fp32.
        description: of the weights.
        made: file or folder to write.
        splits: to calibrate and to evaluate with.
        allow_drop: write the file however much it loses.

    Returns:
        What is written into the facts of the file: calibration and scores.

    Raises:
        PacavitError: the network cannot be quantized, or loses more than ``LIMIT``.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, quantized, trial = (folder / each for each in ("fp32.onnx", "int8.onnx", "trial"))
        write_onnx(job, plain)
        images = _quantize(load_model(plain), plain, quantized, splits.train)
        job = replace(job, quantized=quantized)
        trial.mkdir()
        writer.write(job, trial / made.name)
        found = _compare(model, load_model(trial / made.name), splits, images)
        lost = round(100 * (found.before - found.after), 6)  # points; as many as they look
        if not allow_drop and not lost <= LIMIT:
            raise PacavitError(
                f"int8 loses {lost:.2f} points, more than {LIMIT:g}: {found}; the file was "
                "removed, give --allow-drop to keep it"
            )
        facts = replace(job.facts, quantization=found)
        writer.write(replace(job, facts=facts, text=exported_text(facts, description)), made)
    load_model(made)  # raises unless it can be read, as the one that was evaluated
    return found


def _quantize(exported: LoadedModel, plain: Path, out: Path, train: ImageSet) -> int:
    """Write an ONNX file in int8; returns the number of images for calibration."""
    assert exported.exported is not None
    engine = exported.exported.engine
    pixels = engine.facts.input == "uint8"
    batches = _Calibration(engine, train, exported.preprocess(), 1 if pixels else _BATCH)
    quantize(plain, out, batches, exclude=_before_layers if pixels else lambda _: ())
    return batches.images


class _Calibration:
    """Inputs from training images.

    Args:
        engine: of a file in fp32.
        train: images.
        preprocess: of the file.
        batch_size: images that are computed together; they need one size.

    Attributes:
        images: that were read.
    """

    def __init__(
        self, engine: FileEngine, train: ImageSet, preprocess: Preprocess, batch_size: int
    ) -> None:
        self.engine, self.images = engine, 0
        loader = Loader(train, batch_size, preprocess, shuffle=True, drop_last=False, seed=_SEED)
        number = min(-(-_IMAGES // batch_size), len(loader))
        self._batches: Iterator[Batch] = progress(
            islice(loader.epoch(0), number), "calibrating", number
        )

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        """The next batch by the name of the input; None after the last."""
        batch = next(self._batches, None)
        if batch is None:
            return None
        self.images += len(batch)
        return {INPUT: self.engine.input(batch.images)}


def _before_layers(path: Path) -> list[str]:
    """Names of the products that resize pixels: those that no layer of the network precedes."""
    import onnx

    behind: set[str] = set()
    before: list[str] = []
    for node in onnx.load(path, load_external_data=False).graph.node:  # in topological order
        if node.op_type in ("Conv", "LayerNormalization") or behind.intersection(node.input):
            behind.update(node.output)
        elif node.op_type == "MatMul":
            before.append(node.name)
    return before


class _Scored(NamedTuple):
    """The main score on a split, and the first class of each image (empty for other tasks)."""

    score: float
    num_images: int
    top: Tensor


def _compare(
    model: LoadedModel, exported: LoadedModel, splits: Splits, images: int
) -> Quantization:
    """Evaluate the network and its int8 file."""
    fast = optimized(model)
    before = _score(fast.task, model.preprocess(), model, splits.val, "evaluating fp32")
    after = _score(exported.task, exported.preprocess(), model, splits.val, "evaluating int8")
    same = float((before.top == after.top).float().mean()) if len(before.top) else None
    return Quantization(
        images=images,
        seed=_SEED,
        data=splits.version,
        metric=model.task.main_metric,
        before=before.score,
        after=after.score,
        num_images=after.num_images,
        same_top=same,
    )


def _score(
    task: Task, preprocess: Preprocess, model: LoadedModel, images: ImageSet, what: str
) -> _Scored:
    """Evaluate a task, with progress."""
    loader = build.eval_loader(model.recipe, images, model.info, preprocess=preprocess)
    steps = progress(range(len(loader)), what, len(loader))
    top = [torch.empty(0, dtype=torch.int64)]

    def observe(predictions: object, _: Batch) -> None:
        next(steps, None)
        if isinstance(predictions, Predictions):
            top.append(predictions.logits.argmax(1))

    found = evaluate(task, loader, model.info.class_names, observe=observe)
    for _ in steps:  # ends the bar, also if batches were left out
        pass
    return _Scored(found.scores[task.main_metric], found.num_images, torch.cat(top))
