"""The page of the demo, in Gradio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import fastapi
import gradio as gr
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from pacavit.demo import views
from pacavit.demo.archive import Writer, write_zip
from pacavit.demo.classification.classified import Classified
from pacavit.demo.classification.parts import ClassifyParts
from pacavit.demo.detection.parts import DetectParts
from pacavit.demo.examples import example_images, own_images
from pacavit.demo.explained import NOWHERE
from pacavit.demo.models import AnyExplained, Models
from pacavit.demo.parts import EVERY, IN_ORDER, Page, TaskParts, html
from pacavit.demo.segmentation.parts import SegmentParts
from pacavit.errors import PacavitError

__all__ = ["build", "web_app"]

P = TypeVar("P", bound=TaskParts[Any])

_TOP1 = "top-1 class"
_START = "Drop an image, or choose one of the examples."
_LARGEST_FILE = "100mb"
_QUEUE = 64  # largest number of waiting events
_STEP = 5  # seconds
# The browser blocks requests to other hosts. Gradio's scripts need the unsafe directives; their
# input comes from this process only.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' blob:; worker-src 'self' blob:; form-action 'self'; base-uri 'self'; "
    "frame-ancestors 'none'; object-src 'none'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


def web_app(
    models: Models, folder: Path, *, write: Writer, hosts: Sequence[str]
) -> fastapi.FastAPI:
    """The demo as a web application.

    Args:
        models: the weights to choose from.
        folder: for examples and downloads.
        write: writes the folder of explanations that is zipped.
        hosts: allowed values of the Host header.
    """
    examples = folder / "examples"
    examples.mkdir()
    first = models.first
    files = own_images(examples, first) or example_images(examples, first.info.name)
    blocks = build(models, files, folder, write=write)
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(_Headers)
    theme = gr.themes.Default(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300")
    return gr.mount_gradio_app(
        app,
        blocks,
        "/",
        theme=theme,
        css=views.style(),
        footer_links=[],
        run_history=False,
        allowed_paths=[str(folder)],
        max_file_size=_LARGEST_FILE,
        show_error=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )


def build(models: Models, examples: Sequence[Path], folder: Path, *, write: Writer) -> gr.Blocks:
    """Lay out the page and connect its events."""
    with gr.Blocks(title="pacavit demo", analytics_enabled=False) as blocks:
        page = _Page(models, examples, folder, write)
        page.connect(blocks)
    return blocks.queue(max_size=_QUEUE)


async def _stay() -> AsyncIterator[None]:
    """An event that stays pending while the page is open; Gradio cancels it between its steps.

    Gradio closes the result stream of a page when no event is pending. An event sent at that moment
    considers the old stream open and never receives its result (Gradio 6.31).
    """
    while True:
        yield
        await asyncio.sleep(_STEP)


class _Page:
    """The components of the page and their event handlers."""

    def __init__(
        self, models: Models, examples: Sequence[Path], folder: Path, write: Writer
    ) -> None:
        self.models, self.files, self.folder, self.write = models, examples, folder, write
        self.state = gr.State()
        gr.HTML(views.header(), apply_default_css=False)
        # At the top, because phones show everything in one column.
        self.status = gr.HTML(views.message(_START), apply_default_css=False)
        self.columns: list[gr.Column] = []
        self.parts: list[TaskParts[Any]] = []
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._input_parts()
            self.classify = self._column(lambda: ClassifyParts(models.names), visible=True)
            self._column(SegmentParts)
            self._column(DetectParts)

    def _input_parts(self) -> None:
        self.image = gr.Image(
            label="Image",
            sources=["upload", "clipboard"],
            type="filepath",
            height=260,
            buttons=[],
            elem_id="pv-image",
        )
        self.examples = gr.Dataset(
            label="Examples",
            components=[gr.Image(visible=False)],
            samples=[[str(file)] for file in self.files],
            type="index",
            layout="gallery",
            elem_id="pv-examples",
        )
        self.model = gr.Dropdown(
            list(self.models.names), value=self.models.names[0], label="Weights"
        )
        self.label = gr.Dropdown([_TOP1], value=_TOP1, label="Class to explain")
        self.summary = html("pv-top")
        self.make = gr.Button("Download everything (zip)", interactive=False)
        self.zip = gr.DownloadButton(visible="hidden", elem_id="pv-zip")

    def _column(self, make: Callable[[], P], *, visible: bool = False) -> P:
        """The parts of a task in a column of their own."""
        with gr.Column(scale=5, min_width=300, visible=visible) as column:
            found = make()
        self.columns.append(column)
        self.parts.append(found)
        return found

    def connect(self, blocks: gr.Blocks) -> None:
        """Connect the events."""
        # Does not wait for explanations, so that the image changes at once.
        swift = {**EVERY, "concurrency_id": "example", "show_progress": "hidden"}
        blocks.load(_stay, show_progress="hidden", api_visibility="private", concurrency_limit=None)
        blocks.load(lambda: str(self.files[0]), None, self.image, **swift)
        blocks.load(None, js=_name_examples([file.stem for file in self.files]))
        self.examples.click(self.on_example, self.examples, self.image, **swift)
        explained = gr.on(
            [self.image.change, self.model.input, self.label.input],
            self.on_image,
            [
                *(self.state, self.image, self.model, self.label),
                *(control for parts in self.parts for control in parts.controls),
            ],
            [
                *(self.state, self.status, self.label, self.summary, self.make, *self.columns),
                *(output for parts in self.parts for output in parts.outputs),
            ],
            preprocess=False,  # this package validates the files itself
            **IN_ORDER,
        )
        for parts in self.parts:
            parts.connect(Page(self.models, self.state, self.status, explained))
        made = self.make.click(self.on_zip, [self.state, self.classify.other], self.zip, **IN_ORDER)
        made.success(None, js="() => { document.querySelector('#pv-zip').click(); }")

    def on_example(self, index: int) -> str:
        """The file of a chosen example."""
        return str(self.files[index])

    def on_image(
        self,
        before: AnyExplained | None,
        image: Mapping[str, Any] | None,
        model: str,
        label: str,
        *controls: Any,
    ) -> dict[Any, Any]:
        """Explain the image, or show why it cannot be explained."""
        if image is None:
            return self._emptied(views.message(_START))
        source = Path(image["path"])
        called = Path(image.get("orig_name") or source.name).name
        try:
            wanted = self._label(model, label)
            if before is not None and before.matches(model, source, wanted):
                # Gradio sends some changes twice; the second must not reset later choices.
                return {self.status: gr.skip()}
            same = before is not None and before.source == source
            place = before.place if before is not None and same else NOWHERE
            explained = self.models.explain(model, source, called=called, label=wanted, place=place)
        except PacavitError as error:
            return self._emptied(views.message(str(error), error=True))
        found: dict[Any, Any] = {
            self.state: explained,
            self.status: views.message(f"{called}, explained by {model}"),
            self.label: gr.update(choices=[_TOP1, *explained.classes], value=wanted or _TOP1),
            self.make: gr.update(interactive=True),
        }
        values = iter(controls)
        for column, parts in zip(self.columns, self.parts, strict=True):
            own = list(islice(values, len(parts.controls)))
            shows = isinstance(explained, parts.shows)
            found[column] = gr.update(visible=shows)
            if shows:
                found |= {self.summary: parts.summary(explained), **parts.shown(explained, *own)}
        return found

    def _label(self, model: str, label: str) -> str | None:
        """The chosen class; None if the model does not have it."""
        return label if label in self.models.classes(model) else None

    def _emptied(self, status: str) -> dict[Any, Any]:
        """Outputs that show a message and clear everything of an earlier image."""
        found: dict[Any, Any] = {
            self.state: None,
            self.status: status,
            self.label: gr.skip(),
            self.summary: "",
            self.make: gr.update(interactive=False),
        }
        for parts in self.parts:
            found |= parts.emptied()
        return found

    def on_zip(self, explained: AnyExplained | None, other: str) -> str:
        """A zip file with everything, including the comparison."""
        if explained is None:
            raise gr.Error(_START, print_exception=False)
        try:
            both: Sequence[AnyExplained] = [explained]
            if isinstance(explained, Classified):
                both = self.classify.compared(explained, other)
            return str(write_zip(both, self.folder, self.write))
        except PacavitError as error:
            raise gr.Error(str(error), print_exception=False) from error


def _name_examples(names: Sequence[str]) -> str:
    """A script that labels the examples for screen readers, which Gradio does not."""
    return (
        f"() => {{ const names = {json.dumps(names)}; "
        "document.querySelectorAll('#pv-examples button').forEach("
        "(button, index) => button.setAttribute('aria-label', names[index])); }"
    )


class _Headers:
    """Middleware that adds headers to every response."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(sent: Any) -> None:
            if sent["type"] == "http.response.start":
                sent["headers"] = [*sent["headers"], *_HEADERS.items()]
            await send(sent)

        await self.app(scope, receive, send_with_headers)
