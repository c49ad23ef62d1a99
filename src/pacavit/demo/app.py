"""The page of the demo, in Gradio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from pacavit.demo import segmentation_views, views
from pacavit.demo.archive import Writer, write_zip
from pacavit.demo.examples import example_images, own_images
from pacavit.demo.explaining import Explained, Models, best_patch, find_patch
from pacavit.demo.segment_parts import SegmentParts
from pacavit.demo.segmenting import Segmented
from pacavit.errors import PacavitError
from pacavit.explain import method_title

__all__ = ["build", "web_app"]

_TOP1, _NONE = "top-1 class", "none"
_START = "Drop an image, or choose one of the examples."
_THRESHOLDS = [
    ("fraction of the area", "quantile"),
    ("fraction of the map's sum", "mass"),
    ("Otsu", "otsu"),
]
_LARGEST_FILE = "100mb"
_QUEUE = 64  # largest number of waiting events
_STEP = 5  # seconds
# One event at a time, so that results arrive in order.
_IN_ORDER: Mapping[str, Any] = {
    "concurrency_id": "explain",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "trigger_mode": "always_last",
    "show_progress": "minimal",
}
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
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._input_parts()
            with gr.Column(scale=5, min_width=300) as self.classifying, gr.Tabs():
                self._map_parts()
                self._cluster_parts()
                self._patch_parts()
                self._comparison_parts()
            with gr.Column(scale=5, min_width=300, visible=False) as self.segmenting:
                self.segment = SegmentParts()

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
        self.top = gr.HTML(apply_default_css=False, elem_id="pv-top")
        self.make = gr.Button("Download everything (zip)", interactive=False)
        self.zip = gr.DownloadButton(visible="hidden", elem_id="pv-zip")

    def _map_parts(self) -> None:
        with gr.Tab("Map"):
            with gr.Row():
                self.method = gr.Radio([], label="Map", min_width=200)
                self.threshold = gr.Radio(
                    _THRESHOLDS, value="quantile", label="Threshold by", min_width=200
                )
            self.fraction = gr.Slider(
                1, 100, value=25, step=1, label="Fraction in percent", elem_id="pv-share"
            )
            self.masks = gr.HTML(apply_default_css=False, elem_id="pv-masks")

    def _cluster_parts(self) -> None:
        with gr.Tab("Clusters"):
            self.galleries = gr.HTML(apply_default_css=False, elem_id="pv-galleries")

    def _patch_parts(self) -> None:
        with gr.Tab("Patches"):
            with gr.Row():
                with gr.Column(min_width=280):
                    gr.HTML(views.message("Click a patch, or choose its row and column."))
                    self.picture = gr.Image(
                        show_label=False,  # a label would cover the first patches
                        interactive=False,
                        format="png",
                        buttons=[],
                        elem_id="pv-patch-picture",
                    )
                with gr.Column(min_width=240):
                    self.stage = gr.Radio([], label="Stage")
                    self.row = gr.Slider(1, 2, value=1, step=1, label="Row", elem_id="pv-row")
                    self.column = gr.Slider(
                        1, 2, value=1, step=1, label="Column", elem_id="pv-column"
                    )
            self.patch = gr.HTML(apply_default_css=False, elem_id="pv-patch")

    def _comparison_parts(self) -> None:
        with gr.Tab("Compare"):
            self.other = gr.Dropdown(
                [_NONE, *self.models.names], value=_NONE, label="Compare with", elem_id="pv-other"
            )
            self.comparison = gr.HTML(apply_default_css=False, elem_id="pv-comparison")

    def connect(self, blocks: gr.Blocks) -> None:
        """Connect the events."""
        # Does not wait for explanations, so that the image changes at once.
        swift = {**_IN_ORDER, "concurrency_id": "example", "show_progress": "hidden"}
        swift["trigger_mode"] = "multiple"
        blocks.load(_stay, show_progress="hidden", api_visibility="private", concurrency_limit=None)
        blocks.load(lambda: str(self.files[0]), None, self.image, **swift)
        blocks.load(None, js=_name_examples([file.stem for file in self.files]))
        self.examples.click(self.on_example, self.examples, self.image, **swift)
        explained = gr.on(
            [self.image.change, self.model.input, self.label.input],
            self.on_image,
            [
                *(self.state, self.image, self.model, self.label),
                *(self.method, self.threshold, self.fraction, self.segment.opacity),
            ],
            self._all_outputs(),
            preprocess=False,  # this package validates the files itself
            **_IN_ORDER,
        )
        compare = ([self.state, self.other], self.comparison)
        explained.then(self.on_compare, *compare, **_IN_ORDER)
        self.other.input(self.on_compare, *compare, **_IN_ORDER)
        quiet = {**_IN_ORDER, "show_progress": "hidden"}
        gr.on(
            [self.method.input, self.threshold.input, self.fraction.input],
            self.on_threshold,
            [self.state, self.method, self.threshold, self.fraction],
            self.masks,
            **quiet,
        )
        self.threshold.input(
            lambda threshold: gr.update(interactive=threshold != "otsu"),
            self.threshold,
            self.fraction,
            **quiet,
        )
        chosen = [self.row, self.column, self.picture, self.patch]
        # Every click is handled: a delayed one would carry the position of an earlier click.
        every = quiet | {"trigger_mode": "multiple"}
        self.picture.select(self.on_click, [self.state, self.stage], chosen, **every)
        self.stage.input(self.on_stage, [self.state, self.stage], chosen, **quiet)
        gr.on(
            [self.row.input, self.column.input],
            self.on_patch,
            [self.state, self.stage, self.row, self.column],
            [self.picture, self.patch],
            **quiet,
        )
        self.segment.picture.select(
            self.on_pixel,
            [self.state, self.segment.opacity],
            [self.state, self.status, *self.segment.outputs],
            **{**_IN_ORDER, "trigger_mode": "multiple"},
        )
        self.segment.opacity.input(
            self.on_opacity, [self.state, self.segment.opacity], self.segment.picture, **quiet
        )
        made = self.make.click(self.on_zip, [self.state, self.other], self.zip, **_IN_ORDER)
        made.success(None, js="() => { document.querySelector('#pv-zip').click(); }")

    def _all_outputs(self) -> list[Any]:
        """The components that change with the image."""
        return [
            *(self.state, self.status, self.label, self.top, self.method, self.masks),
            *(self.galleries, self.stage, self.row, self.column, self.picture, self.patch),
            *(self.make, self.classifying, self.segmenting, *self.segment.outputs),
        ]

    def on_example(self, index: int) -> str:
        """The file of a chosen example."""
        return str(self.files[index])

    def on_image(
        self,
        before: Explained | Segmented | None,
        image: Mapping[str, Any] | None,
        model: str,
        label: str,
        method: str,
        threshold: str,
        fraction: float,
        opacity: float,
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
            same = isinstance(before, Segmented) and before.source == source
            pixel = before.pixel if isinstance(before, Segmented) and same else None
            explained = self.models.explain(model, source, called=called, label=wanted, pixel=pixel)
        except PacavitError as error:
            return self._emptied(views.message(str(error), error=True))
        common: dict[Any, Any] = {
            self.state: explained,
            self.status: views.message(f"{called}, explained by {model}"),
            self.label: gr.update(choices=[_TOP1, *explained.classes], value=wanted or _TOP1),
            self.make: gr.update(interactive=True),
            self.classifying: gr.update(visible=isinstance(explained, Explained)),
            self.segmenting: gr.update(visible=isinstance(explained, Segmented)),
        }
        if isinstance(explained, Segmented):
            return {**common, self.top: "", **self.segment.shown(explained, opacity)}
        return {**common, **self._classified(explained, method, threshold, fraction)}

    def _classified(
        self, explained: Explained, method: str, threshold: str, fraction: float
    ) -> dict[Any, Any]:
        """What the components show of a classified image."""
        maps = explained.explanation.maps
        if method not in maps:
            method = next(iter(maps))
        stages = explained.explanation.stages
        last = stages[-1].stage if stages else None
        return {
            self.top: views.top(explained),
            self.method: gr.update(
                choices=[(method_title(name), name) for name in maps], value=method
            ),
            self.masks: views.masks(explained, method, threshold, fraction / 100),
            self.galleries: views.galleries(explained),
            self.stage: gr.update(
                choices=[(str(one.stage), one.stage) for one in stages], value=last
            ),
            **self._patch_outputs(explained, last),
        }

    def _label(self, model: str, label: str) -> str | None:
        """The chosen class; None if the model does not have it."""
        return label if label in self.models.classes(model) else None

    def _emptied(self, status: str) -> dict[Any, Any]:
        """Outputs that show a message and clear everything of an earlier image."""
        return {
            self.state: None,
            self.status: status,
            self.label: gr.skip(),
            self.top: "",
            self.method: gr.skip(),
            self.masks: "",
            self.galleries: "",
            self.stage: gr.update(choices=[], value=None),
            self.row: gr.skip(),
            self.column: gr.skip(),
            self.picture: None,
            self.patch: "",
            self.make: gr.update(interactive=False),
            **self.segment.emptied(),
        }

    def on_threshold(
        self, explained: Explained | None, method: str, threshold: str, fraction: float
    ) -> str:
        """The mask at another threshold."""
        if explained is None:
            return ""
        return views.masks(explained, method, threshold, fraction / 100)

    def on_pixel(
        self, segmented: Segmented | None, opacity: float, event: gr.SelectData
    ) -> dict[Any, Any]:
        """The pixel that was clicked: why does its region have its class?"""
        if segmented is None:
            return {self.state: None, **self.segment.emptied()}
        try:
            found = self.models.explain(
                segmented.model,
                segmented.source,
                called=segmented.explanation.path.name,
                label=segmented.label,
                pixel=segmented.image_pixel(*event.index),
            )
        except PacavitError as error:
            return {self.status: views.message(str(error), error=True)}
        assert isinstance(found, Segmented)
        return {self.state: found, **self.segment.shown(found, opacity)}

    def on_opacity(self, segmented: Segmented | None, opacity: float) -> Any:
        """The classes at another opacity."""
        return None if segmented is None else segmentation_views.picture(segmented, opacity / 100)

    def on_click(
        self, explained: Explained | None, stage: int | None, event: gr.SelectData
    ) -> dict[Any, Any]:
        """The patch that was clicked."""
        if explained is None or stage is None:
            return self._patch_outputs(explained, None)
        x, y = event.index
        return self._patch_outputs(
            explained, stage, find_patch(explained, explained.clusters(stage), x, y)
        )

    def on_stage(self, explained: Explained | None, stage: int | None) -> dict[Any, Any]:
        """The patches of another stage."""
        return self._patch_outputs(explained, stage)

    def on_patch(
        self, explained: Explained | None, stage: int | None, row: int, column: int
    ) -> dict[Any, Any]:
        """The patch whose numbers were given."""
        found = self._patch_outputs(explained, stage, (row - 1, column - 1))
        return {part: found[part] for part in (self.picture, self.patch)}

    def _patch_outputs(
        self,
        explained: Explained | None,
        stage: int | None,
        patch: tuple[int, int] | None = None,
    ) -> dict[Any, Any]:
        if explained is None or stage is None:
            text = "" if explained is None else f"{explained.model} has no clusters."
            empty = {self.row: gr.skip(), self.column: gr.skip(), self.picture: None}
            return {**empty, self.patch: views.message(text)}
        clusters = explained.clusters(stage)
        row, column = best_patch(clusters) if patch is None else patch
        return {
            self.row: gr.update(maximum=clusters.grid.height, value=row + 1),
            self.column: gr.update(maximum=clusters.grid.width, value=column + 1),
            self.picture: views.patch_picture(explained, stage, row, column),
            self.patch: views.patch(explained, stage, row, column),
        }

    def on_compare(self, explained: Explained | Segmented | None, other: str) -> str:
        """The same image, explained by another model."""
        if not isinstance(explained, Explained) or other == _NONE:
            return views.message("Choose a second model to see both side by side.")
        try:
            return views.comparison(explained, self._explained_by(other, explained))
        except PacavitError as error:
            return views.message(str(error), error=True)

    def _explained_by(self, other: str, explained: Explained) -> Explained:
        name = explained.explanation.path.name
        found = self.models.explain(other, explained.source, called=name, label=explained.label)
        if not isinstance(found, Explained):
            raise PacavitError(f"{other} segments images; compare with a model that classifies")
        return found

    def on_zip(self, explained: Explained | Segmented | None, other: str) -> str:
        """A zip file with everything, including the comparison."""
        if explained is None:
            raise gr.Error(_START, print_exception=False)
        both = [explained]
        try:
            if other != _NONE and isinstance(explained, Explained):
                both.append(self._explained_by(other, explained))
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
