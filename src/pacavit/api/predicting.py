"""Predict images with a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from torch import Tensor

import pacavit
from pacavit.api._console import print_line
from pacavit.engine.batch_prediction import Shard, launched_device, parse_shard, stream_inputs
from pacavit.engine.ensemble import EnsemblePredictor, load_predictor
from pacavit.engine.inputs import ImageInput, Inputs, find_inputs
from pacavit.engine.precision import AUTO
from pacavit.engine.predictor import Predictor, decode_input
from pacavit.engine.system import pick_device
from pacavit.engine.test_time import check_tta
from pacavit.engine.weights.load import weights_digest
from pacavit.errors import Interrupted, PacavitError
from pacavit.report.prediction_table import JSON_LINES, TableWriter
from pacavit.tasks import TaskPrediction
from pacavit.tasks.detection import DetectionTask, ImageDetections
from pacavit.utils.progress import announce, show_progress
from pacavit.utils.progress import progress as progressing
from pacavit.utils.text import shown

if TYPE_CHECKING:
    from pacavit.report.prediction import PredictionWriter

__all__ = ["PredictionFile", "predict", "predict_to_file"]

_MANY = 20  # with more images than this, waiting is worth a progress bar
_FEW_ERRORS = 20


@dataclass(frozen=True)
class PredictionFile:
    """Predictions that were written to a file or folder.

    Attributes:
        path: of the file or folder; that of the shard if there are several.
        num_images: images with a prediction.
        num_errors: images that could not be read.
        errors: the first of their messages, of this session.
    """

    path: Path
    num_images: int
    num_errors: int
    errors: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """Some images and the model that predicts them.

    Attributes:
        predictor: of the model, or of an ensemble.
        inputs: the images.
        rows: positions of those of this shard.
        top_k: number of classes to list.
        batch_size: images that the network gets at once.
        tta: name of a test-time augmentation.
        score: of detectors, the least score of objects that are shown.
        num_workers: processes that read ahead; None: chosen by the number of images.
    """

    predictor: Predictor | EnsemblePredictor
    inputs: Inputs
    rows: range
    top_k: int
    batch_size: int
    tta: str | None
    score: float | None
    num_workers: int | None

    def predictions(
        self, writer: PredictionWriter | None = None, done: int = 0
    ) -> Iterator[TaskPrediction]:
        """The predictions behind the first ``done`` rows, each written if there is a writer."""
        model, rows = self.predictor.model, self.rows[done:]
        found = stream_inputs(
            self.predictor,
            self.inputs,
            rows,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
        )
        for row, each in zip(rows, progressing(found, "predicting", len(rows)), strict=True):
            made = model.task.prediction(
                each.source, each.record, each.error, model.info, self.top_k
            )
            if isinstance(made, ImageDetections) and self.score is not None:
                made = replace(made, min_score=self.score)
            if writer is not None:
                writer.add(made, partial(self._decode, row, shown(each.source)))
            yield made

    def _decode(self, row: int, name: str) -> Tensor:
        return decode_input(self.inputs[row].image, name)

    def description(self, shard: Shard) -> dict[str, object]:
        """What the rows depend on."""
        return {
            "version": pacavit.__version__,
            "model": [weights_digest(model) for model in self.predictor.models],
            "images": self.inputs.digest(),
            "shard": str(shard),
            "top_k": self.top_k,
            "batch_size": self.batch_size,
            "tta": self.tta,
            "precision": self.predictor.model.precision,
        }


def predict(
    model: str | Path | Sequence[str | Path],
    images: ImageInput | Iterable[ImageInput],
    *,
    top_k: int = 5,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    batch_size: int = 16,
    tta: str | None = None,
    precision: str = "fp32",
    score: float | None = None,
    num_workers: int | None = None,
    progress: bool = False,
) -> list[TaskPrediction]:
    """Predict each image: its most probable classes, the class of each pixel, or its objects.

    All predictions are in memory at once; for more than some thousand images use
    ``predict_to_file``.

    Args:
        model: run folder, weights file or packaged name; or several, as an ensemble, whose
            probabilities are averaged.
        images: one image, or several of any kind: a path of an image file of any size and mode; of
            a folder of them; of a list of paths, one a line (``.txt``), which start from the folder
            of the list; of a parquet file with images or paths; the bytes of a file; a PIL image;
            a uint8 array (H, W, 3) or (H, W); a uint8 tensor (3, H, W).
        top_k: number of classes to return; all of them if there are fewer.
        out: where to write the predictions as well: for classifiers a table in ``.csv`` or
            ``.parquet``, or ``.json`` or ``.jsonl``; for segmentation a folder, which gets pictures
            of the classes of all pixels; for detection a folder, which gets pictures of the
            objects, and ``predictions.json`` in COCO's result format; for both ``.jsonl`` as well.
        overwrite: replace what is there.
        device: where to compute: "auto", "cpu", "cuda", "cuda:1" and so on.
        batch_size: number of images that the network gets at once.
        tta: name of a test-time augmentation: "flip" averages the probabilities of each image and
            its mirror image.
        precision: "fp32", whose results agree to 1e-4 with the trained network's; "bf16", which is
            faster where the processor computes with it; "auto": bf16 there, if its outputs for the
            first images agree with those of fp32 to 3 %, else fp32.
        score: of detectors, the least score of the objects that are printed and drawn; by default
            0.5. The prediction itself and ``predictions.json`` have all.
        num_workers: processes that read images in advance; 0 reads in this one. By default as many
            as cores if there are many images.
        progress: show a progress bar when there are many images.

    Returns:
        One record per image, in order: an ``ImagePrediction`` if the model is a classifier, an
        ``ImageSegmentation`` if it segments, an ``ImageDetections`` if it finds objects. An image
        that cannot be read has its ``error`` set. The ``path`` of an image without one is
        ``image N``, its position; of an image in a parquet file ``FILE:ROW``, if no path is stored.

    Raises:
        PacavitError: the model cannot be loaded, a folder has no images, an option does not fit, or
            the file cannot be written.
    """
    job = _job(
        model,
        images,
        Shard(0, 1),
        top_k=top_k,
        device=device,
        batch_size=batch_size,
        tta=tta,
        precision=precision,
        score=score,
        num_workers=num_workers,
        progress=progress,
    )
    writer = None if out is None else _writer(job, Path(out), overwrite)
    with _closing(writer), show_progress(_console(job, progress)):
        predictions = list(job.predictions(writer))
        if writer is not None:
            writer.finish()
    return predictions


def predict_to_file(
    model: str | Path | Sequence[str | Path],
    images: ImageInput | Iterable[ImageInput],
    out: str | Path,
    *,
    top_k: int = 5,
    overwrite: bool = False,
    device: str = "auto",
    batch_size: int = 16,
    tta: str | None = None,
    precision: str = "fp32",
    score: float | None = None,
    num_workers: int | None = None,
    shard: str | None = None,
    progress: bool = False,
) -> PredictionFile:
    """Predict any number of images into a file, in memory that does not grow with them.

    Rows are in the order of the images; those of images that cannot be read have an ``error``. A
    job that was killed is continued by the same call: its rows are in ``FILE.partial`` until all
    are there. The file has the same bytes as without the interruption. Pictures in a folder (of
    segmentations and detections) are made anew.

    Args:
        model: as for ``predict``.
        images: as for ``predict``; folders, lists and parquet files are for many.
        out: file or folder, as for ``predict``.
        top_k: number of classes to list.
        overwrite: replace a finished file, and drop the rows of another job.
        device: where to compute.
        batch_size: number of images that the network gets at once.
        tta: name of a test-time augmentation.
        precision: "fp32", "bf16" or "auto", as for ``predict``; "auto" decides by the first images
            of the whole job.
        score: of detectors, the least score of the objects that are drawn.
        num_workers: processes that read images in advance; by default as many as cores.
        shard: predict one of several equal shards of the images: "0/4" is the first of four, and
            "auto" takes it from the variables of torchrun or Slurm, and so the GPU. Shard 0 of
            ``a.csv`` is written to ``a-00000-of-00004.csv``. The rows of all shards are those of
            the whole job.
        progress: show a progress bar when there are many images.

    Raises:
        PacavitError: the model cannot be loaded, there are no images, an option does not fit, the
            file cannot be written, or its rows belong to another job.
        Interrupted: Ctrl-C; the same call continues.
    """
    own = Shard(0, 1) if shard is None else parse_shard(shard)
    if shard == "auto" and device == "auto":
        device = launched_device()
    job = _job(
        model,
        images,
        own,
        top_k=top_k,
        device=device,
        batch_size=batch_size,
        tta=tta,
        precision=precision,
        score=score,
        num_workers=num_workers,
        progress=progress,
    )
    out = _shard_path(Path(out), own)
    writer = _writer(job, out, overwrite)
    done, failed, errors = 0, 0, list[str]()
    with _closing(writer), show_progress(_console(job, progress)):
        if isinstance(writer, TableWriter):
            done = writer.resume(job.description(own), batch_size)
            failed = writer.num_errors
            if done:
                announce(f"continuing behind {done:,} of {len(job.rows):,} images")
        try:
            for made in job.predictions(writer, done):
                if made.error is not None:
                    failed += 1
                    if len(errors) < _FEW_ERRORS:
                        errors.append(made.error)
        except KeyboardInterrupt:
            if not isinstance(writer, TableWriter):
                raise
            raise Interrupted(
                f"stopped after {writer.num_images:,} of {len(job.rows):,} images, which are in "
                f"{shown(writer.partial)}; repeat the command to continue"
            ) from None
        writer.finish()
    return PredictionFile(out, len(job.rows) - failed, failed, tuple(errors))


def _job(
    model: str | Path | Sequence[str | Path],
    images: ImageInput | Iterable[ImageInput],
    shard: Shard,
    *,
    top_k: int,
    device: str,
    batch_size: int,
    tta: str | None,
    precision: str,
    score: float | None,
    num_workers: int | None,
    progress: bool,
) -> _Job:
    """Check the options, find the images and load the model."""
    for name, value in (("top_k", top_k), ("batch_size", batch_size)):
        if value < 1:
            raise PacavitError(f"{name.replace('_', ' ')} must be at least 1, not {value}")
    if num_workers is not None and num_workers < 0:
        raise PacavitError(f"num workers must be at least 0, not {num_workers}")
    if score is not None and not 0 <= score <= 1:
        raise PacavitError(f"score must be in 0..1, not {score}")
    check_tta(tta)
    picked = pick_device(device, option="device")
    inputs, skipped = find_inputs(images)
    note = skipped.describe()
    if progress and note is not None:
        print_line(note, stderr=True)
    few = min(batch_size, len(inputs)) if precision == AUTO else 0
    examples = [inputs[position].image for position in range(few)]
    predictor = load_predictor(
        model, picked, batch_size=batch_size, tta=tta, precision=precision, examples=examples
    )
    loaded = predictor.model
    if score is not None and not isinstance(loaded.task, DetectionTask):
        raise PacavitError(
            f"a least score is for detectors; {shown(str(model))} is of the task "
            f"{loaded.recipe.task.name!r}"
        )
    rows = shard.rows(len(inputs), batch_size)
    return _Job(predictor, inputs, rows, top_k, batch_size, tta, score, num_workers)


def _writer(job: _Job, out: Path, overwrite: bool) -> PredictionWriter:
    if out.suffix.lower() == JSON_LINES:
        return TableWriter(out, overwrite=overwrite)
    # Reports draw pictures, with libraries that a prediction alone does not need.
    from pacavit.report.tasks import report_of

    loaded = job.predictor.model
    report = report_of(loaded.recipe.task.name)
    return report.prediction_writer(out, loaded.info, overwrite=overwrite)


@contextmanager
def _closing(writer: PredictionWriter | None) -> Iterator[None]:
    """Close a table at the end, also after an error."""
    try:
        yield
    finally:
        if isinstance(writer, TableWriter):
            writer.close()


def _console(job: _Job, progress: bool) -> Console | None:
    return Console(stderr=True) if progress and len(job.rows) > _MANY else None


def _shard_path(out: Path, shard: Shard) -> Path:
    """The file of a shard, named as the Hugging Face hub names shards."""
    if shard.count == 1:
        return out
    return out.with_name(f"{out.stem}-{shard.index:05d}-of-{shard.count:05d}{out.suffix}")
