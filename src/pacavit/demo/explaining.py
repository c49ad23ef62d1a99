"""The computations of the demo: explained images, masks at a threshold, clusters of a patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from pacavit.data import read_image
from pacavit.data.placement import Region
from pacavit.demo.segmenting import Segmented
from pacavit.engine.system import pick_device
from pacavit.engine.weights.load import LoadedModel, load_model
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import DataError, UnknownNameError
from pacavit.explain import (
    ExplainOptions,
    ImageExplanation,
    Placement,
    SegmentationExplanation,
    StageClusters,
    binary_mask,
    explainer_of,
    find_class,
)
from pacavit.explain.render import display_size, thumbnail

__all__ = ["Explained", "Models", "attended", "best_patch", "find_patch", "mask", "patch_region"]


@dataclass(frozen=True)
class Explained:
    """An explained image at the size of a display.

    Attributes:
        model: name of the weights.
        classes: all classes of the model.
        source: the image file; ``explanation.path`` is the user's name of it.
        label: the chosen class; None for the top-1 class.
        explanation: of the image.
    """

    model: str
    classes: tuple[str, ...]
    source: Path
    label: str | None
    explanation: ImageExplanation

    def matches(self, model: str, source: Path, label: str | None) -> bool:
        """Whether ``Models.explain`` with these arguments would return the same."""
        return (self.model, self.source, self.label) == (model, source, label)

    @cached_property
    def placement(self) -> Placement:
        """The network's view in pixels of the picture."""
        whole = self.explanation.placement
        return whole.resized(display_size(whole.image_size))

    @cached_property
    def picture(self) -> Tensor:
        """The displayed image: (3, height, width) uint8."""
        return thumbnail(self.explanation.image, self.placement.image_size)

    def heatmap(self, method: str) -> Tensor:
        """A map over the picture: (height, width), NaN outside the network's view."""
        return self.placement.restore(self.explanation.maps[method])

    def clusters(self, stage: int) -> StageClusters:
        """The clusters of a stage.

        Raises:
            UnknownNameError: the stage has none.
        """
        for clusters in self.explanation.stages:
            if clusters.stage == stage:
                return clusters
        known = [str(clusters.stage) for clusters in self.explanation.stages]
        raise UnknownNameError("stage with clusters", str(stage), known)


class Models:
    """The weights of the demo: the user's own, loaded at the start, and the packaged ones.

    Args:
        own: run folders, weights files or packaged names; they come first.

    Attributes:
        names: of all weights.

    Raises:
        PacavitError: one of the user's own cannot be loaded, or cannot be explained.
    """

    def __init__(self, own: Sequence[str] = ()) -> None:
        self.names = tuple(dict.fromkeys((*own, *packaged_names())))
        self._loaded: dict[str, LoadedModel] = {}
        # Explaining registers hooks in the network, so only one image at a time.
        self._lock = Lock()
        for name in own:
            self._load(name)

    @property
    def first(self) -> LoadedModel:
        """The first model, for whose data the demo has examples."""
        return self._load(self.names[0])

    def classes(self, name: str) -> tuple[str, ...]:
        """All classes of a model.

        Raises:
            UnknownNameError: there are no such weights.
        """
        return self._load(name).info.class_names

    def explain(
        self,
        name: str,
        source: Path,
        *,
        called: str | None = None,
        label: str | None = None,
        pixel: tuple[int, int] | None = None,
    ) -> Explained | Segmented:
        """Explain an image file of any size and mode.

        Args:
            name: of the weights.
            source: the image file.
            called: the user's name of the file, for messages and pages.
            label: name of the class to explain; None is the top-1 class, or that of the pixel.
            pixel: (x, y) in the image, of whose region a segmentation is explained; None is its
                center. Classifiers ignore it.

        Raises:
            UnknownNameError: there are no such weights, or no such class.
            DataError: the file is not an image, or is broken, animated, too large or too small.
        """
        called = source.name if called is None else called
        try:
            image = read_image(source, still=True)
        except DataError as error:
            # The path of the file is temporary and unknown to the user.
            raise DataError(str(error).replace(str(source), called)) from error
        with self._lock:
            model = self._load(name)
            if model.task.target != "mask":
                pixel = None
            elif pixel is None:
                pixel = (image.shape[2] // 2, image.shape[1] // 2)
            chosen = None if label is None else find_class(label, model.info)
            options = ExplainOptions(label=chosen, region=pixel)
            explainer = explainer_of(model)(model, options, pick_device("auto"))
            found = explainer(image, Path(called))
        classes = model.info.class_names
        if isinstance(found, SegmentationExplanation):
            assert pixel is not None
            return Segmented(name, classes, source, label, pixel, found)
        assert isinstance(found, ImageExplanation)
        return Explained(name, classes, source, label, found)

    def _load(self, name: str) -> LoadedModel:
        if name not in self.names:  # a manipulated request must not read other files
            raise UnknownNameError("choice of weights", name, self.names)
        if name not in self._loaded:
            model = load_model(name)
            explainer_of(model)(model, ExplainOptions(), pick_device("auto"))  # or says why not
            self._loaded[name] = model
        return self._loaded[name]


def mask(explained: Explained, method: str, threshold: str, fraction: float) -> Tensor:
    """The binary mask of a map over the picture: (height, width) bool.

    Args:
        explained: the image.
        method: of the map.
        threshold: one of those of ``binary_mask``.
        fraction: of the area, or of the map's sum; ignored by "otsu".
    """
    value = None if threshold == "otsu" else fraction
    return binary_mask(explained.heatmap(method)[None], threshold, value)[0]


def best_patch(clusters: StageClusters) -> tuple[int, int]:
    """Row and column of the patch with the largest weight in the most important cluster."""
    row, column = divmod(int(clusters.weights[clusters.ranking()[0]].argmax()), clusters.grid.width)
    return row, column


def find_patch(
    explained: Explained, clusters: StageClusters, x: float, y: float
) -> tuple[int, int]:
    """Row and column of the patch at, or nearest to, a pixel of the picture."""
    region, grid = explained.placement.grid_region(clusters.grid, *clusters.sampling), clusters.grid
    row = math.floor((y + 0.5 - region.top) / region.height * grid.height)
    column = math.floor((x + 0.5 - region.left) / region.width * grid.width)
    return min(max(row, 0), grid.height - 1), min(max(column, 0), grid.width - 1)


def patch_region(explained: Explained, clusters: StageClusters, row: int, column: int) -> Region:
    """The area of a patch in the picture."""
    region = explained.placement.grid_region(clusters.grid, *clusters.sampling)
    height, width = region.height / clusters.grid.height, region.width / clusters.grid.width
    return Region(region.top + row * height, region.left + column * width, height, width)


def attended(clusters: StageClusters, row: int, column: int) -> list[tuple[int, float]]:
    """The clusters that a patch attends to, with their attention weights, the largest first.

    Raises:
        DataError: there is no such patch on the grid.
    """
    grid = clusters.grid
    if not (0 <= row < grid.height and 0 <= column < grid.width):
        raise DataError(
            f"no patch in row {row + 1}, column {column + 1}: stage {clusters.stage} has "
            f"{grid.height} x {grid.width}"
        )
    fractions = clusters.attention[row * grid.width + column]
    order = torch.argsort(fractions, descending=True, stable=True).tolist()
    return [(index, float(fractions[index])) for index in order if clusters.valid[index]]
