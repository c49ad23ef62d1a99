"""The part of the demo's page for classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from pacavit.demo import parts
from pacavit.demo.classification import views
from pacavit.demo.classification.classified import Classified, best_patch, find_patch
from pacavit.demo.explained import Explained
from pacavit.demo.views import message
from pacavit.errors import PacavitError
from pacavit.explain import method_title

__all__ = ["ClassifyParts"]

_NONE = "none"
_THRESHOLDS = [
    ("fraction of the area", "quantile"),
    ("fraction of the map's sum", "mass"),
    ("Otsu", "otsu"),
]


class ClassifyParts(parts.TaskParts[Classified]):
    """The components that show a classified image: maps, clusters, patches, a comparison.

    Args:
        names: of the weights that the model can be compared with.

    Attributes:
        other: the weights that it is compared with.
    """

    shows = Classified

    def __init__(self, names: Sequence[str]) -> None:
        with gr.Tabs():
            self._map_parts()
            with gr.Tab("Clusters"):
                self.galleries = parts.html("pv-galleries")
            self._patch_parts()
            with gr.Tab("Compare"):
                self.other = gr.Dropdown(
                    [_NONE, *names], value=_NONE, label="Compare with", elem_id="pv-other"
                )
                self.comparison = parts.html("pv-comparison")
        self.controls = [self.method, self.threshold, self.fraction]
        self.outputs = [
            *(self.method, self.masks, self.galleries),
            *(self.stage, self.row, self.column, self.picture, self.patch),
        ]

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
            self.masks = parts.html("pv-masks")

    def _patch_parts(self) -> None:
        with gr.Tab("Patches"):
            with gr.Row():
                with gr.Column(min_width=280):
                    gr.HTML(message("Click a patch, or choose its row and column."))
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
            self.patch = parts.html("pv-patch")

    def summary(self, explained: Classified) -> str:
        """The top classes."""
        return views.top(explained)

    def shown(self, explained: Classified, *values: Any) -> dict[Any, Any]:
        """What the components show of an image, with method, threshold and fraction in percent."""
        method, threshold, fraction = values
        maps = explained.explanation.maps
        if method not in maps:
            method = next(iter(maps))
        stages = explained.explanation.stages
        last = stages[-1].stage if stages else None
        return {
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

    def emptied(self) -> dict[Any, Any]:
        """What the components show without an image."""
        return {
            self.method: gr.skip(),
            self.masks: "",
            self.galleries: "",
            self.stage: gr.update(choices=[], value=None),
            self.row: gr.skip(),
            self.column: gr.skip(),
            self.picture: None,
            self.patch: "",
        }

    def connect(self, page: parts.Page) -> None:
        """Connect the threshold, the patches and the comparison."""
        self.page = page
        compare = ([page.state, self.other], self.comparison)
        page.explained.then(self.on_compare, *compare, **parts.IN_ORDER)
        self.other.input(self.on_compare, *compare, **parts.IN_ORDER)
        gr.on(
            [self.method.input, self.threshold.input, self.fraction.input],
            self.on_threshold,
            [page.state, self.method, self.threshold, self.fraction],
            self.masks,
            **parts.QUIET,
        )
        self.threshold.input(
            lambda threshold: gr.update(interactive=threshold != "otsu"),
            self.threshold,
            self.fraction,
            **parts.QUIET,
        )
        chosen = [self.row, self.column, self.picture, self.patch]
        self.picture.select(
            self.on_click,
            [page.state, self.stage],
            chosen,
            **{**parts.EVERY, "show_progress": "hidden"},
        )
        self.stage.input(self.on_stage, [page.state, self.stage], chosen, **parts.QUIET)
        gr.on(
            [self.row.input, self.column.input],
            self.on_patch,
            [page.state, self.stage, self.row, self.column],
            [self.picture, self.patch],
            **parts.QUIET,
        )

    def on_threshold(
        self, explained: Classified | None, method: str, threshold: str, fraction: float
    ) -> str:
        """The mask at another threshold."""
        if explained is None:
            return ""
        return views.masks(explained, method, threshold, fraction / 100)

    def on_click(
        self, explained: Classified | None, stage: int | None, event: gr.SelectData
    ) -> dict[Any, Any]:
        """The patch that was clicked."""
        if explained is None or stage is None:
            return self._patch_outputs(explained, None)
        x, y = event.index
        return self._patch_outputs(
            explained, stage, find_patch(explained, explained.clusters(stage), x, y)
        )

    def on_stage(self, explained: Classified | None, stage: int | None) -> dict[Any, Any]:
        """The patches of another stage."""
        return self._patch_outputs(explained, stage)

    def on_patch(
        self, explained: Classified | None, stage: int | None, row: int, column: int
    ) -> dict[Any, Any]:
        """The patch whose numbers were given."""
        found = self._patch_outputs(explained, stage, (row - 1, column - 1))
        return {part: found[part] for part in (self.picture, self.patch)}

    def _patch_outputs(
        self,
        explained: Classified | None,
        stage: int | None,
        patch: tuple[int, int] | None = None,
    ) -> dict[Any, Any]:
        if explained is None or stage is None:
            text = "" if explained is None else f"{explained.model} has no clusters."
            empty = {self.row: gr.skip(), self.column: gr.skip(), self.picture: None}
            return {**empty, self.patch: message(text)}
        clusters = explained.clusters(stage)
        row, column = best_patch(clusters) if patch is None else patch
        return {
            self.row: gr.update(maximum=clusters.grid.height, value=row + 1),
            self.column: gr.update(maximum=clusters.grid.width, value=column + 1),
            self.picture: views.patch_picture(explained, stage, row, column),
            self.patch: views.patch(explained, stage, row, column),
        }

    def on_compare(self, explained: Explained[Any] | None, other: str) -> str:
        """The same image, explained by another model."""
        if not isinstance(explained, Classified) or other == _NONE:
            return message("Choose a second model to see both side by side.")
        try:
            return views.comparison(*self.compared(explained, other))
        except PacavitError as error:
            return message(str(error), error=True)

    def compared(self, explained: Classified, other: str) -> list[Classified]:
        """An image, and the same image explained by another model, if there is one.

        Raises:
            PacavitError: the other model cannot explain it, or does not classify images.
        """
        if other == _NONE:
            return [explained]
        name = explained.explanation.path.name
        found = self.page.models.explain(
            other, explained.source, called=name, label=explained.label
        )
        if not isinstance(found, Classified):
            raise PacavitError(f"{other} does not classify images; compare with a model that does")
        return [explained, found]
