"""The models of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from torch import Tensor

from pacavit.data import read_image
from pacavit.demo.classification.classified import Classified
from pacavit.demo.detection.detected import Detected
from pacavit.demo.explained import NOWHERE, Place
from pacavit.demo.segmentation.segmented import Segmented
from pacavit.engine.system import pick_device
from pacavit.engine.weights.load import LoadedModel, load_model
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import DataError, UnknownNameError
from pacavit.explain import (
    DetectionExplanation,
    ExplainOptions,
    Explanation,
    ImageExplanation,
    SegmentationExplanation,
    explainer_of,
    find_class,
)

__all__ = ["AnyExplained", "Models"]

_FIRST = "cifar10_nano_conv"  # without a model of the user's own

AnyExplained: TypeAlias = Classified | Segmented | Detected


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
        self.names = tuple(dict.fromkeys((*own, _FIRST, *packaged_names())))
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
        place: Place = NOWHERE,
    ) -> AnyExplained:
        """Explain an image file of any size and mode.

        Args:
            name: of the weights.
            source: the image file.
            called: the user's name of the file, for messages and pages.
            label: name of the class to explain; None is the top-1 class, that of the pixel, or that
                of the object.
            place: of what the explanation is. By default a segmentation is explained at the center
                of the image, and a detection for the object with the highest score. Classifiers
                ignore it.

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
            chosen = None if label is None else find_class(label, model.info)
            if model.task.target != "mask":
                place = place._replace(pixel=None)
            elif place.pixel is None:
                place = Place(pixel=(image.shape[2] // 2, image.shape[1] // 2))
            found = _explain(model, image, Path(called), chosen, place)
        classes = model.info.class_names
        if isinstance(found, SegmentationExplanation):
            assert place.pixel is not None
            return Segmented(name, classes, source, label, found, place.pixel)
        if isinstance(found, DetectionExplanation):
            return Detected(name, classes, source, label, found)
        assert isinstance(found, ImageExplanation)
        return Classified(name, classes, source, label, found)

    def _load(self, name: str) -> LoadedModel:
        if name not in self.names:  # a manipulated request must not read other files
            raise UnknownNameError("choice of weights", name, self.names)
        if name not in self._loaded:
            model = load_model(name)
            explainer_of(model)(model, ExplainOptions(), pick_device("auto"))  # or says why not
            self._loaded[name] = model
        return self._loaded[name]


def _explain(
    model: LoadedModel, image: Tensor, path: Path, label: int | None, place: Place
) -> Explanation:
    """The explanation of a class at a place; None is the class that is predicted there."""
    explainer, device = explainer_of(model), pick_device("auto")

    def explain(options: ExplainOptions) -> Explanation:
        found: Explanation = explainer(model, options, device)(image, path)
        return found

    if model.task.target not in ("boxes", "instances"):
        return explain(ExplainOptions(label=label, region=place.pixel))
    if place.box is not None:
        return explain(ExplainOptions(label=label, box=place.box))
    found = explain(ExplainOptions(most=1))
    assert isinstance(found, DetectionExplanation)
    if label is None or not found.boxes:
        return found
    # The class may be another one than the object's: why is it not of this class?
    return explain(ExplainOptions(label=label, box=found.boxes[0].box))
