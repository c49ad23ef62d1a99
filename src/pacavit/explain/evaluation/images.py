"""All methods beside each other on the same images: how true their maps are, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pacavit.data import Batch
from pacavit.engine.system import autocast
from pacavit.explain.evaluation.clusters import StageScores
from pacavit.explain.evaluation.metrics import (
    Interval,
    area_under_curve,
    energy_inside,
    gini,
    max_sensitivity,
    mean_interval,
    paired_difference,
    perturbation_curves,
    pointing_game,
    predicted_right,
    randomised,
    rank_correlation,
    road,
    top_area,
)
from pacavit.explain.evaluation.metrics.faithfulness import Predict
from pacavit.explain.evaluation.parts import Keep, batch_key, measured_anew
from pacavit.explain.methods.base import Method

__all__ = [
    "AREA",
    "MEASURES",
    "TARGETS",
    "Bench",
    "Measure",
    "MethodScores",
    "run_bench",
]

AREA = 0.25
"""Share of the pixels that is kept, or removed, for every method alike."""

_SHAKEN = 4  # of so many images of a batch, one gets a sensitivity: it takes that many maps

TARGETS = ("predicted", "true")
"""Whose map is measured: of the likeliest class, or of the right one."""

_SECONDS = "seconds"


class Measure(NamedTuple):
    """What a column of the table is.

    Attributes:
        better: 1: the higher the better; -1: the lower; 0: neither.
        meaning: in a few words.
    """

    better: int
    meaning: str


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "insertion": Measure(1, "probability while pixels come into the blurred image, area"),
        "deletion": Measure(-1, "probability while pixels turn into the mean colour, area"),
        "difference": Measure(1, "insertion minus deletion"),
        "kept": Measure(1, f"class still likeliest with {AREA:.0%} of the pixels only"),
        "removed": Measure(-1, f"class still likeliest without {AREA:.0%} of the pixels"),
        "ROAD": Measure(1, "half of what is left without the least important, minus the most"),
        "randomised": Measure(-1, "rank correlation with the map of a shuffled network"),
        "sensitivity": Measure(-1, "largest relative change of the map by noise of 0.02"),
        "sparseness": Measure(0, "Gini index of the map"),
        "pointing": Measure(1, "highest pixel on the object"),
        "energy": Measure(1, "share of the map on the object"),
    }
)
"""The columns, in order; the last two need masks of the objects."""


@dataclass(frozen=True, eq=False)
class MethodScores:
    """What one method scored.

    Attributes:
        method: its name.
        class_specific: its map depends on the class.
        values: by target and measure, a number an image; NaN where it has none.
        seconds: an image, the median over batches.
    """

    method: str
    class_specific: bool
    values: Mapping[str, Mapping[str, Tensor]]
    seconds: float

    def interval(self, target: str, measure: str) -> Interval | None:
        """Mean over the images and 95 % bootstrap interval; None where nothing was measured."""
        found = self.values[target].get(measure)
        return None if found is None else mean_interval(found)

    def beyond(self, other: MethodScores, target: str, measure: str) -> Interval | None:
        """How much higher than another method's, image by image; None where nothing was."""
        own, its = (each.values[target].get(measure) for each in (self, other))
        return None if own is None or its is None else paired_difference(its, own)


@dataclass(frozen=True, eq=False)
class Bench:
    """All methods on the same images.

    Attributes:
        num_images: measured.
        accuracy: of the network on them.
        rows: one a method, in the order in which they were asked for.
        left_out: why the other methods are not among them.
        clusters: what the clusters are worth, a stage each; empty for models without.
        data: which copy of the data the images are from, if known.
    """

    num_images: int
    accuracy: float
    rows: Sequence[MethodScores]
    left_out: Mapping[str, str] = field(default_factory=dict)
    clusters: Sequence[StageScores] = ()
    data: str = ""


def run_bench(
    network: nn.Module,
    methods: Mapping[str, type[Method]],
    batches: Iterable[Batch],
    *,
    objects: Callable[[Tensor], Tensor] | None = None,
    steps: int = 10,
    precision: str = "fp32",
    keep: Keep = measured_anew,
) -> Bench:
    """Measure methods on images, batch by batch.

    What a batch gives depends on nothing that was measured before it.

    Args:
        network: a classifier in evaluation mode, on the device of the batches.
        methods: by name.
        batches: normalised images with int64 labels.
        objects: indices (B,) of images in their split to (B, H, W) bool, where the object is.
        steps: of the curves of insertion and deletion.
        precision: "fp32" or "bf16", of what the network answers to altered images; maps are
            made in that of the network.
        keep: may know the numbers of a method on a batch already.

    Raises:
        PacavitError: a method cannot explain this network.
    """
    shuffled = randomised(network)
    answers = _answers(network, precision)
    measuring = {
        name: _Measuring(answers, kind(network), kind(shuffled), steps)
        for name, kind in methods.items()
    }
    gathered: dict[str, list[dict[str, Tensor]]] = {name: [] for name in methods}
    right: list[Tensor] = []
    for batch in batches:
        key = batch_key(batch)
        with torch.no_grad():
            predicted = network(batch.images).argmax(1)
        right.append(predicted == batch.targets)
        inside = None if objects is None else objects(batch.indices).to(batch.images.device)
        for name, method in measuring.items():
            measure = partial(method.measure, batch, predicted, inside)
            gathered[name].append(keep(f"maps-{name}-{key}", measure))
    rows = [
        _method_scores(name, measuring[name].method.class_specific, parts)
        for name, parts in gathered.items()
    ]
    correct = torch.cat(right)
    return Bench(len(correct), correct.double().mean().item(), rows)


def _answers(network: nn.Module, precision: str) -> Predict:
    """The network, computing in some precision: (B, 3, H, W) -> (B, K)."""

    def predict(images: Tensor) -> Tensor:
        with autocast(images.device, precision):
            found: Tensor = network(images)
        return found

    return predict


def _method_scores(
    name: str, class_specific: bool, parts: Sequence[Mapping[str, Tensor]]
) -> MethodScores:
    """All batches together."""
    values: dict[str, dict[str, Tensor]] = {target: {} for target in TARGETS}
    for part in parts[0]:
        if part != _SECONDS:
            target, _, measure = part.partition("/")
            values[target][measure] = torch.cat([found[part] for found in parts])
    seconds = median(found[_SECONDS].item() for found in parts)
    return MethodScores(name, class_specific, values, seconds)


class _Measuring:
    """A method, and the same on a network that has learned nothing, on one batch after another."""

    def __init__(self, answers: Predict, method: Method, control: Method, steps: int) -> None:
        self.answers, self.method, self.control, self.steps = answers, method, control, steps
        self.warm = False

    def measure(self, batch: Batch, predicted: Tensor, inside: Tensor | None) -> dict[str, Tensor]:
        """By target/measure a number an image, and the seconds an image took.

        Maps are of the likeliest classes, and anew of the right ones where those are others.
        """
        images, labels = batch.images, batch.targets
        maps, seconds = self._timed(images, predicted)
        shaken = torch.arange(len(images), device=images.device) % _SHAKEN == 0
        likeliest = self._scores(images, maps, predicted, inside, shaken)
        right = likeliest
        wrong = predicted != labels
        if wrong.any():
            other = maps[wrong]
            if self.method.class_specific:
                other = self.method(images[wrong], labels[wrong])
            part = None if inside is None else inside[wrong]
            again = self._scores(images[wrong], other, labels[wrong], part, shaken[wrong])
            right = {name: values.clone() for name, values in likeliest.items()}
            for name, values in again.items():
                right[name][wrong.cpu()] = values
        found = {
            f"{target}/{name}": values
            for target, scores in zip(TARGETS, (likeliest, right), strict=True)
            for name, values in scores.items()
        }
        return found | {_SECONDS: torch.tensor(seconds, dtype=torch.float64)}

    def _timed(self, images: Tensor, classes: Tensor) -> tuple[Tensor, float]:
        """Maps, and how many seconds each of them took."""
        if not self.warm:
            self.method(images, classes)  # the first time is slower
            self.warm = True
        _wait(images.device)
        start = time.perf_counter()
        maps = self.method(images, classes)
        _wait(images.device)
        return maps, (time.perf_counter() - start) / len(images)

    def _scores(
        self,
        images: Tensor,
        maps: Tensor,
        classes: Tensor,
        inside: Tensor | None,
        shaken: Tensor,
    ) -> dict[str, Tensor]:
        found = _faithfulness(self.answers, images, maps, classes, self.steps)
        found |= {"sparseness": gini(maps)}
        if inside is not None:
            found["pointing"] = pointing_game(maps, inside)
            found["energy"] = energy_inside(maps, inside)
        found |= _changes(self.method, self.control, images, maps, classes, shaken)
        return {name: values.double().cpu() for name, values in found.items()}


def _faithfulness(
    answers: Predict, images: Tensor, maps: Tensor, classes: Tensor, steps: int
) -> dict[str, Tensor]:
    """What the network answers to images that were changed as the maps say."""
    insertion, deletion = (
        area_under_curve(
            perturbation_curves(answers, images, maps, classes, insert=insert, steps=steps)
        )
        for insert in (True, False)
    )
    masks = top_area(maps, AREA)
    return {
        "insertion": insertion,
        "deletion": deletion,
        "difference": insertion - deletion,
        "kept": predicted_right(answers, images, masks, classes, keep=True),
        "removed": predicted_right(answers, images, masks, classes, keep=False),
        "ROAD": road(answers, images, maps, classes),
    }


def _changes(
    method: Method,
    control: Method,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    shaken: Tensor,
) -> dict[str, Tensor]:
    """How the maps change with the network, and those of some images with a little noise."""
    sensitivity = maps.new_full((len(images),), torch.nan)
    if shaken.any():
        explain = partial(method, classes=classes[shaken])
        sensitivity[shaken] = max_sensitivity(explain, images[shaken], maps[shaken])
    return {
        "randomised": rank_correlation(maps, control(images, classes)),
        "sensitivity": sensitivity,
    }


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked for; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
