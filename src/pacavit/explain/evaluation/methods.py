"""Faithfulness and speed of explanation methods, measured on the same images for all of them."""

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
from pacavit.explain.evaluation.cache import Cache, batch_key, no_cache
from pacavit.explain.evaluation.clusters import StageScores
from pacavit.explain.evaluation.metrics import (
    area_under_curve,
    energy_inside,
    gini,
    max_sensitivity,
    perturbation_curves,
    pointing_game,
    randomized,
    rank_correlation,
    road,
    still_top1,
    top_area,
)
from pacavit.explain.evaluation.metrics.faithfulness import Predict
from pacavit.explain.methods.base import Method
from pacavit.layers import optimize
from pacavit.utils.statistics import Interval, mean_interval, paired_difference

__all__ = [
    "AREA",
    "MEASURES",
    "TARGETS",
    "ExplanationScores",
    "Measure",
    "MethodScores",
    "evaluate_methods",
]

AREA = 0.25
"""Fraction of the pixels that are kept for "kept", and removed for "removed"."""

_NOISY = 4  # sensitivity, which needs four more maps, is measured on every fourth image

TARGETS = ("predicted", "true")
"""Which class the map is for: the top-1 class, or the true class."""

_SECONDS = "seconds"


class Measure(NamedTuple):
    """A measure of an explanation method, a column of the table of results.

    Attributes:
        better: 1 if higher is better, -1 if lower is better, 0 if neither.
        meaning: a short description.
    """

    better: int
    meaning: str


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "insertion": Measure(
            1, "area under the class probability while pixels enter the blurred image"
        ),
        "deletion": Measure(
            -1, "area under the class probability while pixels take the mean color"
        ),
        "difference": Measure(1, "insertion minus deletion"),
        "kept": Measure(1, f"class is still top-1 with only {AREA:.0%} of the pixels"),
        "removed": Measure(-1, f"class is still top-1 without {AREA:.0%} of the pixels"),
        "ROAD": Measure(
            1, "probability with the least important pixels imputed minus the most, halved"
        ),
        "randomized": Measure(
            -1, "rank correlation with the map of a network with shuffled weights"
        ),
        "sensitivity": Measure(-1, "largest relative change of the map under noise of 0.02"),
        "sparseness": Measure(0, "Gini index of the map"),
        "pointing": Measure(1, "the highest pixel lies on the object"),
        "energy": Measure(1, "fraction of the map's sum on the object"),
    }
)
"""By name, in the order of the columns; the last two need masks of the objects."""


@dataclass(frozen=True, eq=False)
class MethodScores:
    """The scores of one method.

    Attributes:
        method: its registered name.
        class_specific: whether its map depends on the class.
        values: by target and measure, (images,) float64; NaN where an image has no value.
        seconds: per image, the median over batches.
    """

    method: str
    class_specific: bool
    values: Mapping[str, Mapping[str, Tensor]]
    seconds: float

    def interval(self, target: str, measure: str) -> Interval | None:
        """Mean over the images with its 95 % interval; None if it was not measured."""
        found = self.values[target].get(measure)
        return None if found is None else mean_interval(found)

    def minus(self, other: MethodScores, target: str, measure: str) -> Interval | None:
        """Mean paired difference to another method over the images; None if not measured."""
        first, second = (each.values[target].get(measure) for each in (other, self))
        return None if first is None or second is None else paired_difference(first, second)


@dataclass(frozen=True, eq=False)
class ExplanationScores:
    """The scores of explanation methods and clusters on the same images.

    Attributes:
        num_images: number of images.
        accuracy: of the network on them.
        rows: one per method, in the order given.
        left_out: by method, why it cannot explain the network.
        clusters: one per stage with clusters.
        data: version of the data, if known.
    """

    num_images: int
    accuracy: float
    rows: Sequence[MethodScores]
    left_out: Mapping[str, str] = field(default_factory=dict)
    clusters: Sequence[StageScores] = ()
    data: str = ""


def evaluate_methods(
    network: nn.Module,
    methods: Mapping[str, type[Method]],
    batches: Iterable[Batch],
    *,
    objects: Callable[[Tensor], Tensor] | None = None,
    steps: int = 10,
    precision: str = "fp32",
    cache: Cache = no_cache,
) -> ExplanationScores:
    """Measure explanation methods on batches of images.

    The results of a batch do not depend on the batches before it.

    Args:
        network: a classifier in evaluation mode, on the device of the batches.
        methods: classes by name.
        batches: normalized images with int64 labels.
        objects: from indices (B,) of images in their split to masks (B, H, W) bool of the object.
        steps: number of steps of the insertion and deletion curves.
        precision: "fp32" or "bf16", for predictions on altered images; maps are computed in the
            precision of the network.
        cache: of the results by method and batch.

    Raises:
        PacavitError: a method cannot explain this network.
    """
    shuffled = randomized(network)
    predict = _predictor(network, precision)
    measuring = {
        name: _Measuring(predict, kind(network), kind(shuffled), steps)
        for name, kind in methods.items()
    }
    gathered: dict[str, list[dict[str, Tensor]]] = {name: [] for name in methods}
    hits: list[Tensor] = []
    for batch in batches:
        key = batch_key(batch)
        with torch.no_grad():
            predicted = network(batch.images).argmax(1)
        hits.append(predicted == batch.targets)
        inside = None if objects is None else objects(batch.indices).to(batch.images.device)
        for name, method in measuring.items():
            measure = partial(method.measure, batch, predicted, inside)
            gathered[name].append(cache(f"maps-{name}-{key}", measure))
    rows = [
        _method_scores(name, measuring[name].method.class_specific, results)
        for name, results in gathered.items()
    ]
    correct = torch.cat(hits)
    return ExplanationScores(len(correct), correct.double().mean().item(), rows)


def _predictor(network: nn.Module, precision: str) -> Predict:
    """An optimized copy of the network, under autocast: (B, 3, H, W) -> (B, K).

    Altered images take most of the time, and only need predictions. Maps are made with the network
    itself: they need its gradients and records.
    """
    fast = optimize(network, half=precision == "bf16")

    def predict(images: Tensor) -> Tensor:
        with autocast(images.device, precision):
            found: Tensor = fast(images)
        return found

    return predict


def _method_scores(
    name: str, class_specific: bool, results: Sequence[Mapping[str, Tensor]]
) -> MethodScores:
    """Join the results of all batches."""
    values: dict[str, dict[str, Tensor]] = {target: {} for target in TARGETS}
    for key in results[0]:
        if key != _SECONDS:
            target, _, measure = key.partition("/")
            values[target][measure] = torch.cat([found[key] for found in results])
    seconds = median(found[_SECONDS].item() for found in results)
    return MethodScores(name, class_specific, values, seconds)


class _Measuring:
    """Measures a method on batches, and compares it with its maps of a randomized network."""

    def __init__(self, predict: Predict, method: Method, control: Method, steps: int) -> None:
        self.predict, self.method, self.control, self.steps = predict, method, control, steps
        self.warm = False

    def measure(self, batch: Batch, predicted: Tensor, inside: Tensor | None) -> dict[str, Tensor]:
        """Values (B,) float64 by "target/measure", and the time per image by "seconds".

        The scores for the true class are computed again only where it is not the top-1 class.
        """
        images, labels = batch.images, batch.targets
        maps, seconds = self._timed(images, predicted)
        noisy = torch.arange(len(images), device=images.device) % _NOISY == 0
        top1 = self._scores(images, maps, predicted, inside, noisy)
        true = top1
        wrong = predicted != labels
        if wrong.any():
            other = maps[wrong]
            if self.method.class_specific:
                other = self.method(images[wrong], labels[wrong])
            objects = None if inside is None else inside[wrong]
            again = self._scores(images[wrong], other, labels[wrong], objects, noisy[wrong])
            true = {name: values.clone() for name, values in top1.items()}
            for name, values in again.items():
                true[name][wrong.cpu()] = values
        found = {
            f"{target}/{name}": values
            for target, scores in zip(TARGETS, (top1, true), strict=True)
            for name, values in scores.items()
        }
        return found | {_SECONDS: torch.tensor(seconds, dtype=torch.float64)}

    def _timed(self, images: Tensor, classes: Tensor) -> tuple[Tensor, float]:
        """Maps (B, H, W), and the seconds per map."""
        if not self.warm:
            self.method(images, classes)  # the first call is slower
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
        noisy: Tensor,
    ) -> dict[str, Tensor]:
        found = _faithfulness(self.predict, images, maps, classes, self.steps)
        found |= {"sparseness": gini(maps)}
        if inside is not None:
            found["pointing"] = pointing_game(maps, inside)
            found["energy"] = energy_inside(maps, inside)
        found |= _changes(self.method, self.control, images, maps, classes, noisy)
        return {name: values.double().cpu() for name, values in found.items()}


def _faithfulness(
    predict: Predict, images: Tensor, maps: Tensor, classes: Tensor, steps: int
) -> dict[str, Tensor]:
    """Measures of predictions on images that are altered in the order of the maps."""
    insertion, deletion = (
        area_under_curve(
            perturbation_curves(predict, images, maps, classes, insert=insert, steps=steps)
        )
        for insert in (True, False)
    )
    masks = top_area(maps, AREA)
    return {
        "insertion": insertion,
        "deletion": deletion,
        "difference": insertion - deletion,
        "kept": still_top1(predict, images, masks, classes, keep=True),
        "removed": still_top1(predict, images, masks, classes, keep=False),
        "ROAD": road(predict, images, maps, classes),
    }


def _changes(
    method: Method,
    control: Method,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    noisy: Tensor,
) -> dict[str, Tensor]:
    """How maps change when the network is randomized, and some of them under noise."""
    sensitivity = maps.new_full((len(images),), torch.nan)
    if noisy.any():
        explain = partial(method, classes=classes[noisy])
        sensitivity[noisy] = max_sensitivity(explain, images[noisy], maps[noisy])
    return {
        "randomized": rank_correlation(maps, control(images, classes)),
        "sensitivity": sensitivity,
    }


def _wait(device: torch.device) -> None:
    """Wait until the device is idle, so that times are complete."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
