"""The routes of the server, in FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

import fastapi
from fastapi import Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from pacavit.errors import PacavitError
from pacavit.serve import pages, protocol
from pacavit.serve.explaining import PICTURES, Picture, Question, explain_image
from pacavit.serve.guard import MISTAKE, Guard, error_body
from pacavit.serve.images import uploads
from pacavit.serve.metrics import CONTENT_TYPE, Metrics
from pacavit.serve.models import Models, Weights
from pacavit.serve.options import ServeOptions
from pacavit.serve.predicting import deadline, predict_files
from pacavit.serve.refusals import Refusal, overloaded

__all__ = ["create_app"]

Ended = Callable[[BaseException], None]

ModelName = Annotated[
    str | None, Query(description="Name of the model; needed if there are several.")
]
_BODY: Mapping[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
        },
    }
}


def create_app(
    sources: Mapping[str, str], options: ServeOptions, *, wait: bool = False, ended: Ended
) -> fastapi.FastAPI:
    """The server as a web application.

    Args:
        sources: of the models by name, as ``model_sources`` returns them.
        options: limits and settings.
        wait: answer no request before all models have answered once; otherwise health says so.
        ended: is called if a model cannot be loaded, or the work on models ends by an error.
    """
    metrics = Metrics()
    models = Models(sources, options, metrics)

    @asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        loaded = asyncio.get_running_loop().create_future()
        work = asyncio.create_task(models.run(loaded=loaded.set_result))

        def check(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                ended(error)

        def report(done: asyncio.Future[BaseException | None]) -> None:
            if not done.cancelled() and (error := done.result()) is not None:
                ended(error)

        work.add_done_callback(check)
        loaded.add_done_callback(report)
        try:
            if wait:
                await asyncio.wait([work, loaded], return_when=asyncio.FIRST_COMPLETED)
            yield
        finally:
            work.cancel()
            models.close()

    app = fastapi.FastAPI(
        title="pacavit",
        summary="Predictions and explanations of trained models.",
        version=package_version(),
        docs_url=None,  # its page would load scripts from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.models, app.state.options = models, options
    app.add_middleware(Guard, options=options, metrics=metrics)
    _answer_errors(app)
    app.include_router(protocol.router)
    app.include_router(_router(models, options, metrics))

    @app.get("/", include_in_schema=False)
    def page(request: fastapi.Request) -> HTMLResponse:
        described = pages.describe(app.openapi(), models, str(request.base_url))
        return HTMLResponse(described, headers={"content-security-policy": pages.POLICY})

    return app


def package_version() -> str:
    """The version of this package."""
    try:
        return version("pacavit")
    except PackageNotFoundError:  # a source tree on the path, never installed
        return "0+unknown"


def _router(models: Models, options: ServeOptions, metrics: Metrics) -> fastapi.APIRouter:
    router = fastapi.APIRouter()

    @router.get("/health/live", tags=["health"], summary="Whether the process answers.")
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @router.get("/health/ready", tags=["health"], summary="Whether every model has answered once.")
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": models.ready}, 200 if models.ready else 503)

    @router.get("/metrics", tags=["health"], summary="Numbers for Prometheus.")
    def numbers() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @router.get("/models", tags=["models"], summary="The models, their tasks and classes.")
    def listed() -> JSONResponse:
        return JSONResponse({"models": [pages.model_facts(model) for model in models]})

    @router.post(
        "/predict", tags=["images"], summary="Predict image files.", openapi_extra=dict(_BODY)
    )
    async def predict(
        request: fastapi.Request,
        model: ModelName = None,
        top_k: Annotated[int, Query(ge=1, description="Number of classes to list.")] = 5,
        masks: Annotated[
            bool,
            Query(
                description="Also return the class of every pixel (a gray PNG in base64), or the "
                "masks of objects (COCO's run lengths)."
            ),
        ] = False,
    ) -> JSONResponse:
        """One image as the body, or several as files of a form; any size and mode.

        Returns what `pacavit predict` writes as JSON, one record per image. An image that cannot be
        read has its `error` set.
        """
        files = await uploads(request, options.max_images)
        async with deadline(options.timeout):
            return JSONResponse(
                await predict_files(models.find(model), files, top_k=top_k, masks=masks)
            )

    @router.post(
        "/explain",
        tags=["images"],
        summary="Explain the prediction for an image file.",
        openapi_extra=dict(_BODY),
        responses={200: {"content": {"image/png": {}}}},
    )
    async def explain(
        request: fastapi.Request,
        model: ModelName = None,
        label: Annotated[str | None, Query(description="Name or index of the class.")] = None,
        method: Annotated[str | None, Query(description="See pacavit list methods.")] = None,
        stage: Annotated[int | None, Query(description="Whose clusters make the map.")] = None,
        region: Annotated[
            str | None, Query(description="X,Y in pixels: the region or the object there.")
        ] = None,
        box: Annotated[
            str | None, Query(description="X1,Y1,X2,Y2 in pixels: why there is an object, or not.")
        ] = None,
        threshold: Annotated[
            Literal["otsu", "quantile", "mass"],
            Query(description="That makes the mask."),
        ] = "otsu",
        show: Annotated[
            list[Picture] | None,
            Query(description="Pictures to return; by default all, and overlay for png."),
        ] = None,
        format: Annotated[  # noqa: A002 (the name in the query)
            Literal["json", "png"], Query(description="png returns a single picture.")
        ] = "json",
        number: Annotated[int, Query(ge=1, description="Which explanation a png shows.")] = 1,
    ) -> Response:
        """Where the evidence for a class lies: a map over the image, the map, and a binary mask.

        With `format=json` the pictures are PNG files in base64, one set per explanation: of the
        class, of each region, or of each object.
        """
        served = models.find(model)
        files = await uploads(request, 1)
        png = format == "png"
        if png and show is not None and len(show) != 1:
            raise Refusal(400, "format=png returns one picture; give show once")
        question = Question(
            label,
            method,
            stage,
            _pair(region),
            _box(box),
            threshold,
            tuple(show) if show else PICTURES,
            number if png else None,
        )
        weights = served.present
        async with deadline(options.timeout):
            found = await served.explain(
                partial(_explained, weights, files[0].data, files[0].name, question)
            )
        if png:
            return Response(found, media_type="image/png")
        return JSONResponse({"model": served.name, "version": weights.version, **found})

    return router


def _explained(weights: Weights, data: bytes, name: str, question: Question) -> Any:
    """The explanation of an image, with refusals instead of errors that a user can fix."""
    try:
        return explain_image(weights, data, name, question)
    except PacavitError as error:
        raise Refusal(400, weights.public(str(error))) from None
    except OSError:
        raise overloaded(
            "the files of the model cannot be read; it predicts, but cannot be explained now", 60
        ) from None


def _pair(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    x, y = _numbers("region", text, int, "X,Y")
    return x, y


def _box(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    x1, y1, x2, y2 = _numbers("box", text, float, "X1,Y1,X2,Y2")
    return x1, y1, x2, y2


def _numbers(name: str, text: str, kind: Callable[[str], Any], form: str) -> Sequence[Any]:
    """Numbers that are separated by commas.

    Raises:
        Refusal: the text is no such list, or has another length.
    """
    words = text.split(",")
    try:
        if len(words) == len(form.split(",")):
            return [kind(word) for word in words]
    except ValueError:
        pass
    raise Refusal(400, f"{name} must be {form} in pixels, not {text!r:.80}")


def _answer_errors(app: fastapi.FastAPI) -> None:
    """Answer every error with ``{"error": "one line"}``."""

    def refused(_: fastapi.Request, error: Refusal) -> Response:
        return _error(error.status, error.message, error.headers)

    def invalid(_: fastapi.Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("query", "path"))
        return _error(400, f"{where}: {first['msg']}")

    def unknown(request: fastapi.Request, error: HTTPException) -> Response:
        where = f"{request.method} {request.url.path}"
        return _error(error.status_code, f"{error.detail}: {where:.200}", error.headers)

    def wrong(*_: object) -> Response:
        return _error(500, MISTAKE)

    for kind, handler in (
        (Refusal, refused),
        (RequestValidationError, invalid),
        (HTTPException, unknown),
        (Exception, wrong),
    ):
        app.add_exception_handler(kind, handler)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(error_body(message), status, headers, media_type="application/json")
