"""The tensors that a model of each task takes and returns over the protocol V2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacavit.serve.refusals import Refusal
from pacavit.serve.tensors import InferRequest, OutputRequest, Values
from pacavit.tasks import ImageClassifier, Task
from pacavit.tasks.detection import Detections, DetectionTask
from pacavit.tasks.segmentation import SegmentationTask

__all__ = ["IMAGES", "NORMALIZED", "TensorSpec", "choose_outputs", "output_tensors", "outputs_of"]

IMAGES = "images"
"""Input with images: UINT8 (B, 3, H, W) RGB pixels, or BYTES (B,) with image files."""
NORMALIZED = "normalized"
"""Input of classifiers with FP32 (B, 3, height, width): what the preprocessing makes of images."""


class TensorSpec(NamedTuple):
    """Name, datatype and shape of a tensor; sides of any length are -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As the protocol describes it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def outputs_of(task: Task) -> tuple[TensorSpec, ...]:
    """The outputs of a task: empty if its predictions are no tensors."""
    if isinstance(task, ImageClassifier):
        shape = (-1, task.num_classes)
        return (TensorSpec("logits", "FP32", shape), TensorSpec("probabilities", "FP32", shape))
    if isinstance(task, SegmentationTask):
        return (TensorSpec("labels", "UINT8", (-1, -1, -1)),)
    if isinstance(task, DetectionTask):
        return (
            TensorSpec("boxes", "FP32", (-1, -1, 4)),
            TensorSpec("scores", "FP32", (-1, -1)),
            TensorSpec("labels", "INT64", (-1, -1)),
            TensorSpec("counts", "INT64", (-1,)),
        )
    return ()


def output_tensors(task: Task, records: Sequence[Any]) -> Mapping[str, NDArray[Any]]:
    """The outputs for the predictions of B images, by name.

    Objects of images with fewer than the most have boxes and scores of 0 and the label -1 behind
    the own ones, whose number is in ``counts``.

    Raises:
        Refusal: images whose pixels have classes differ in size, so they make no tensor.
    """
    if isinstance(task, ImageClassifier):
        return {
            "logits": _stacked([record.logits for record in records]),
            "probabilities": _stacked([record.probabilities for record in records]),
        }
    if isinstance(task, SegmentationTask):
        sizes = {tuple(record.labels.shape) for record in records}
        if len(sizes) > 1:
            raise Refusal(
                400, "the images differ in size, so their labels make no tensor; send them apart"
            )
        return {"labels": _stacked([record.labels for record in records])}
    return _objects(records)


def choose_outputs(
    specs: Sequence[TensorSpec],
    request: InferRequest,
    tensors: Mapping[str, NDArray[Any]],
    class_names: Sequence[str],
) -> list[tuple[OutputRequest, Values, tuple[int, ...]]]:
    """The outputs that a request asks for, with their values and shapes."""
    found: list[tuple[OutputRequest, Values, tuple[int, ...]]] = []
    for wanted in wanted_outputs(specs, request):
        values = tensors[wanted.name]
        if wanted.classes:
            number = min(wanted.classes, values.shape[1])
            found.append((wanted, _highest(values, number, class_names), (len(values), number)))
        else:
            found.append((wanted, values, values.shape))
    return found


def wanted_outputs(specs: Sequence[TensorSpec], request: InferRequest) -> tuple[OutputRequest, ...]:
    """The outputs that a request asks for; all if it does not say.

    Raises:
        Refusal: there is no such output, or it cannot be returned as classes.
    """
    names = [spec.name for spec in specs]
    if request.outputs is None:
        return tuple(OutputRequest(name, request.binary) for name in names)
    for wanted in request.outputs:
        if wanted.name not in names:
            raise Refusal(400, f"there is no output {wanted.name!r}; there are {', '.join(names)}")
        if wanted.classes and names != ["logits", "probabilities"]:
            raise Refusal(400, "the model classifies no images; leave out classification")
    return request.outputs


def _stacked(tensors: Sequence[Any]) -> NDArray[Any]:
    return np.stack([tensor.cpu().numpy() for tensor in tensors])


def _objects(records: Sequence[Detections]) -> Mapping[str, NDArray[Any]]:
    most = max((len(record) for record in records), default=0)
    boxes = np.zeros((len(records), most, 4), np.float32)
    scores = np.zeros((len(records), most), np.float32)
    labels = np.full((len(records), most), -1, np.int64)
    for number, record in enumerate(records):
        own = slice(len(record))
        boxes[number, own] = record.boxes.numpy()
        scores[number, own] = record.scores.numpy()
        labels[number, own] = record.labels.numpy()
    counts = np.array([len(record) for record in records], np.int64)
    return {"boxes": boxes, "scores": scores, "labels": labels, "counts": counts}


def _highest(values: NDArray[Any], number: int, class_names: Sequence[str]) -> list[bytes]:
    """The classes with the highest values of each image, as "value:index:class"."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :number]
    return [
        f"{row[label]:f}:{label}:{class_names[label]}".encode()
        for row, labels in zip(values, order, strict=True)
        for label in labels
    ]
