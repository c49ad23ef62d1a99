"""Detections as files: overlays, and COCO's result format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pacavit.data import DataInfo
from pacavit.engine.scoring import SplitScore
from pacavit.report.prediction import PictureFolder
from pacavit.report.tasks.detection.observe import ImageResult
from pacavit.tasks.base import TaskPrediction
from pacavit.tasks.detection import ImageDetections
from pacavit.tasks.detection.pictures import detection_marks, draw_marks
from pacavit.tasks.detection.results import file_names, result_records, results_json
from pacavit.tasks.segmentation.pictures import with_legend
from pacavit.utils.pictures import jpeg_bytes

__all__ = ["PREDICTIONS", "DetectionWriter", "predictions_bytes"]

PREDICTIONS = "predictions.json"


class DetectionWriter:
    """Writes ``NAME.overlay.jpg`` of each image, and ``predictions.json`` in COCO's result format.

    Overlays show the objects that a console lists, see ``ImageDetections.likely``; small images are
    enlarged, so that names can be read. The JSON file has all objects, with the data set's own
    numbers of the classes. The number of an image is that in the name of its file, if the names of
    all images are different numbers, as in COCO; else its position, from 0.

    Args:
        out: folder, created if needed.
        info: of the data that the model was trained on.
        overwrite: write into a folder that is not empty.

    Raises:
        PacavitError: a file, or a folder that is not empty, is in the way.
    """

    def __init__(self, out: Path, info: DataInfo, *, overwrite: bool) -> None:
        self.folder, self.info = PictureFolder(out, overwrite=overwrite), info
        self._predictions: list[ImageDetections] = []

    def add(self, prediction: TaskPrediction, image: Callable[[], Tensor]) -> None:
        """Write the overlay of an image, and keep its objects.

        Raises:
            CheckpointError: a file cannot be written.
        """
        assert isinstance(prediction, ImageDetections)
        self._predictions.append(prediction)
        if prediction.detections is None:
            return
        found = prediction.detections.above(prediction.min_score)
        picture = draw_marks(image(), detection_marks(found, self.info))
        assert self.info.objects is not None
        colors = self.info.objects.colors
        labels = found.labels.unique().tolist()
        legend = [(self.info.class_names[label], colors[label]) for label in labels]
        if legend:
            picture = with_legend(picture, legend)
        name = self.folder.name(prediction.path)
        self.folder.write({f"{name}.overlay.jpg": jpeg_bytes(picture)})

    def finish(self) -> None:
        """Write the objects of all images."""
        paths = [each.path for each in self._predictions]
        records: list[dict[str, Any]] = []
        columns = zip(self._predictions, _image_ids(paths), file_names(paths), strict=True)
        for prediction, number, name in columns:
            if prediction.detections is not None:
                records += result_records(prediction.detections, self.info, number, name)
        self.folder.write({PREDICTIONS: results_json(records)})


def predictions_bytes(score: SplitScore, results: Sequence[ImageResult]) -> bytes:
    """The detections of an evaluation as the content of a file in COCO's result format."""
    files = [score.images.file(each.position) for each in results]
    known = [file for file in files if file is not None]
    names = file_names(known) if len(known) == len(files) else [None] * len(files)
    records: list[dict[str, Any]] = []
    for result, name in zip(results, names, strict=True):
        records += result_records(result.found, score.info, result.image_id, name)
    return results_json(records)


def _image_ids(paths: Sequence[Path]) -> list[int]:
    """The numbers in the names of files; positions, if a name is no number, or two are equal."""
    stems = [path.stem for path in paths]
    if all(stem.isdecimal() and stem.isascii() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(len(paths)))
