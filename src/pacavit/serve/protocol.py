"""The routes of the Open Inference Protocol V2, as KServe and Triton have them.

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from typing import Any

import fastapi
from fastapi.responses import JSONResponse, Response

from pacavit.serve.answers import IMAGES, TensorSpec, outputs_of
from pacavit.serve.models import Models, ServedModel
from pacavit.serve.predicting import check_version, deadline, infer
from pacavit.serve.tensors import HEADER_LENGTH

__all__ = ["router"]

router = fastapi.APIRouter(prefix="/v2", tags=["Open Inference Protocol V2"])

_INFER = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


def _models(request: fastapi.Request) -> Models:
    models: Models = request.app.state.models
    return models


def _found(request: fastapi.Request, model: str) -> ServedModel:
    """The model of a path, whose version has to be the present one if the path names it."""
    served = _models(request).find(model)
    if served.weights is not None:
        check_version(served, served.weights, request.path_params.get("version"))
    return served


@router.get("", summary="Name and version of the server.")
async def server(request: fastapi.Request) -> JSONResponse:
    """Extensions: tensors as binary data, and outputs as classes."""
    return JSONResponse(
        {
            "name": "pacavit",
            "version": request.app.version,
            "extensions": ["binary_tensor_data", "classification"],
        }
    )


@router.get("/health/live", summary="Whether the process answers.")
async def live() -> JSONResponse:
    """200 as soon as the server listens."""
    return JSONResponse({"live": True})


@router.get("/health/ready", summary="Whether every model has answered once.")
async def ready(request: fastapi.Request) -> JSONResponse:
    """200 once every model has answered, before that 503."""
    found = _models(request).ready
    return JSONResponse({"ready": found}, 200 if found else 503)


@router.get("/models/{model}", summary="Tensors of a model.")
@router.get("/models/{model}/versions/{version}", include_in_schema=False)
async def metadata(request: fastapi.Request, model: str) -> JSONResponse:
    """The version is the first digits of the SHA-256 of the weights."""
    served = _found(request, model)
    weights = served.present
    described: dict[str, Any] = {
        "name": served.name,
        "versions": [weights.version],
        "platform": "pacavit",
        "inputs": [TensorSpec(IMAGES, "UINT8", (-1, 3, -1, -1)).to_json()],
        "outputs": [spec.to_json() for spec in outputs_of(weights.model.task)],
    }
    return JSONResponse(described)


@router.get("/models/{model}/ready", summary="Whether a model has answered once.")
@router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: fastapi.Request, model: str) -> JSONResponse:
    """200 once the model has answered, before that 503."""
    served = _found(request, model)
    found = served.weights is not None
    return JSONResponse({"name": served.name, "ready": found}, 200 if found else 503)


@router.post("/models/{model}/infer", summary="Predict tensors.", openapi_extra=_INFER)
@router.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
async def inference(request: fastapi.Request, model: str) -> Response:
    """Input `images`: UINT8 (B, 3, H, W) RGB pixels of any size, or BYTES (B,) with image files.

    Classifiers also take `normalized`: FP32 (B, 3, height, width), the network's own input. Data
    are JSON lists, or follow the JSON object as bytes (Inference-Header-Content-Length).
    """
    served = _found(request, model)
    body = await request.body()
    async with deadline(request.app.state.options.timeout):
        content, headers = await infer(
            served,
            body,
            request.headers.get(HEADER_LENGTH),
            request.path_params.get("version"),
        )
    return Response(content, headers=headers)
