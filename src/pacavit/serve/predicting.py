"""From the images of a request to predictions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pacavit.errors import DataError
from pacavit.serve.answers import (
    IMAGES,
    NORMALIZED,
    choose_outputs,
    output_tensors,
    outputs_of,
    wanted_outputs,
)
from pacavit.serve.images import Upload
from pacavit.serve.models import Job, ServedModel, Weights
from pacavit.serve.refusals import Refusal, overloaded
from pacavit.serve.tensors import InferRequest, InputTensor, encode_response, parse_request
from pacavit.tasks import TaskPrediction
from pacavit.tasks.detection import ImageDetections
from pacavit.tasks.segmentation import ImageSegmentation
from pacavit.utils.pictures import base64_text, gray_png_bytes

__all__ = ["check_version", "deadline", "infer", "predict_files"]


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Refuse a request with 503 that is not answered in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise overloaded(
            f"there was no answer within {seconds:g} seconds; try again later"
        ) from None


async def predict_files(
    served: ServedModel, files: Sequence[Upload], *, top_k: int, masks: bool
) -> Mapping[str, Any]:
    """The predictions for image files, ready for JSON.

    Args:
        served: the model.
        files: each of any size and mode.
        top_k: number of classes to list.
        masks: also return the class of every pixel, or the masks of objects.

    Raises:
        Refusal: none of the files can be read, or the server is overloaded.
    """
    weights = served.present
    with served.reserve(len(files)):
        prepared = await asyncio.gather(
            *(served.in_pool(partial(_prepare, weights, file)) for file in files)
        )
        jobs = [each for each in prepared if isinstance(each, Job)]
        if not jobs:
            raise Refusal(400, weights.public(str(prepared[0])))
        records = iter(await served.predict(jobs))
    model = weights.model
    found = []
    for file, each in zip(files, prepared, strict=True):
        readable = isinstance(each, Job)
        record = next(records) if readable else None
        error = None if readable else weights.public(str(each))
        made = model.task.prediction(Path(file.name), record, error, model.info, top_k)
        found.append({**made.to_dict(), **(_masks(made) if masks else {})})
    return {"model": served.name, "version": weights.version, "predictions": found}


def _prepare(weights: Weights, file: Upload) -> Job | DataError:
    try:
        return weights.job(weights.decoded(file.data, file.name), file.name)
    except DataError as error:
        return error


def _masks(prediction: TaskPrediction) -> Mapping[str, Any]:
    """The pixels of a prediction, for JSON; nothing for classifiers."""
    if isinstance(prediction, ImageSegmentation) and prediction.labels is not None:
        names = list(prediction.info.class_names)
        return {"labels": base64_text(gray_png_bytes(prediction.labels)), "class_names": names}
    if isinstance(prediction, ImageDetections) and prediction.detections is not None:
        found = prediction.detections.masks
        return {} if found is None else {"masks": [mask.to_json() for mask in found]}
    return {}


async def infer(
    served: ServedModel, body: bytes, header_length: str | None, version: str | None
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the response to a request of the protocol V2.

    Args:
        served: the model.
        body: of the request.
        header_length: value of ``Inference-Header-Content-Length``.
        version: of the weights that are asked for; None or empty: any.

    Raises:
        Refusal: the request is wrong, or the server is overloaded.
    """
    weights = served.present
    check_version(served, weights, version)
    request = await served.in_pool(partial(parse_request, body, header_length))
    specs = outputs_of(weights.model.task)
    if not specs:
        raise Refusal(400, "the predictions of this model are no tensors; use POST /predict")
    wanted_outputs(specs, request)  # before anything is computed
    tensor = _input(request)
    with served.reserve(tensor.shape[0]):
        try:
            jobs = await served.in_pool(partial(_jobs, weights, tensor))
        except DataError as error:
            raise Refusal(400, weights.public(str(error))) from None
        records = await served.predict(jobs)

    def encoded() -> tuple[bytes, dict[str, str]]:
        tensors = output_tensors(weights.model.task, records)
        outputs = choose_outputs(specs, request, tensors, weights.model.info.class_names)
        head = {"model_name": served.name, "model_version": weights.version}
        if request.id is not None:
            head["id"] = request.id
        return encode_response(head, outputs)

    return await served.in_pool(encoded)


def check_version(served: ServedModel, weights: Weights, version: str | None) -> None:
    """Raise Refusal unless the version that is asked for is the present one."""
    if version and version != weights.version:
        raise Refusal(
            404,
            f"the model {served.name!r} has no version {version!r}; it has {weights.version}",
        )


def _input(request: InferRequest) -> InputTensor:
    """The only input, with its datatype and number of axes checked."""
    known = {
        (IMAGES, "UINT8"): 4,
        (IMAGES, "BYTES"): 1,
        (NORMALIZED, "FP32"): 4,
    }
    listed = (
        "images of UINT8 (B, 3, H, W) or BYTES (B,), or normalized of FP32 (B, 3, height, width)"
    )
    if len(request.inputs) != 1:
        names = ", ".join(repr(name) for name in request.inputs) or "none"
        raise Refusal(400, f"give one input, {listed}; the request has {names:.200}")
    (tensor,) = request.inputs.values()
    axes = known.get((tensor.name, tensor.datatype))
    shape = tensor.shape
    if axes is None or len(shape) != axes or (axes == 4 and shape[1] != 3):
        raise Refusal(
            400,
            f"the input {tensor.name!r:.100} is {tensor.datatype} of shape {list(shape)}; give "
            f"{listed}",
        )
    return tensor


def _jobs(weights: Weights, tensor: InputTensor) -> list[Job]:
    """The jobs of all images of an input."""
    values = tensor.values
    names = [f"image {number}" for number in range(tensor.shape[0])]
    if isinstance(values, list):
        return [
            weights.job(weights.decoded(data, name), name)
            for data, name in zip(values, names, strict=True)
        ]
    # A copy, because torch warns of arrays that cannot be written, such as those of a body.
    images = torch.from_numpy(np.array(values))
    make: Callable[..., Job] = weights.job if tensor.name == IMAGES else weights.normalized_job
    return [make(image, name) for image, name in zip(images, names, strict=True)]
