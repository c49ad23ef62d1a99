"""All methods beside each other on the same images: how true their maps are, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from pacavit.data import Batch, Loader, Split
from pacavit.engine import LoadedModel, build
from pacavit.engine.scoring import check_classes
from pacavit.errors import DataError, PacavitError
from pacavit.explain.cluster_bench import StageScores, bench_clusters
from pacavit.explain.images import default_method
from pacavit.explain.methods import METHODS, Method
from pacavit.explain.metrics import (
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

__all__ = [
    "AREA",
    "MEASURES",
    "TARGETS",
    "Bench",
    "Measure",
    "MethodScores",
    "bench_model",
    "run_bench",
]

AREA = 0.25
"""Share of the pixels that is kept, or removed, for every method alike."""

_SHAKEN = 4  # of so many images of a batch, one gets a sensitivity: it takes that many maps

TARGETS = ("predicted", "true")
"""Whose map is measured: of the likeliest class, or of the right one."""


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


@dataclass
class _Gathered:
    """What is known of a method so far."""

    values: dict[str, dict[str, list[Tensor]]] = field(
        default_factory=lambda: {target: {} for target in TARGETS}
    )
    seconds: list[float] = field(default_factory=list)


def bench_model(
    model: LoadedModel,
    *,
    split: Split = "test",
    root: Path | None = None,
    methods: Sequence[str] | None = None,
    limit: int = 1000,
    skip: int = 0,
    device: torch.device,
    progress: bool = False,
) -> Bench:
    """Measure methods on a trained classifier and images of its data.

    Args:
        model: its recipe names the data set.
        split: which images.
        root: folder with the data, instead of the recipe's.
        methods: registered names; None is all that can explain the model.
        limit: images, drawn from the split once and for all.
        skip: images that come before those, for example because something was chosen with them.
        device: where to compute.
        progress: show a progress bar.

    Raises:
        UnknownNameError: there is no such method.
        PacavitError: a method cannot explain the model, or the model is no classifier.
        DataError: the data are missing or broken, or their classes are not those of the model, or
            nothing is left of them.
    """
    network = model.classifier.to(device).eval().model
    left_out: dict[str, str] = {}
    if methods is None:
        names, left_out = _able(network)
    else:
        names = list(methods)
    chosen = {name: METHODS.get(name) for name in names}
    config = model.recipe.data
    source = build.data_source(config if root is None else config.model_copy(update={"root": root}))
    check_classes(source.info, model.info)
    images = build.image_set(source, split, device)
    loader = build.eval_loader(model.recipe, images, model.info, shuffle=True)
    instances, subjects = None, None
    if source.instances(split, torch.tensor([0])) is not None:

        def instances(indices: Tensor) -> Tensor:
            found = source.instances(split, indices)
            assert found is not None
            return found

        def subjects(indices: Tensor) -> Tensor:
            return instances(indices) == 1

    if skip >= len(images):
        raise DataError(f"--skip {skip} leaves none of the {len(images)} images of {split}")
    few = range(skip, min(skip + limit, len(images)))
    batches = _some(loader, few, "maps" if progress else None)
    found = run_bench(network, chosen, batches, objects=subjects)
    batches = _some(loader, few, "clusters" if progress else None)
    clusters = bench_clusters(network, batches, objects=instances)
    return replace(found, left_out=left_out, clusters=clusters, data=source.info.copy)


def _able(network: nn.Module) -> tuple[list[str], dict[str, str]]:
    """The methods that can explain a network, and why the others cannot."""
    names, others = [], {}
    default = default_method(network)
    for name in sorted(METHODS.names(), key=lambda name: name != default):
        try:
            METHODS.create(name, network, options={})
        except PacavitError as error:
            others[name] = str(error)
        else:
            names.append(name)
    return names, others


def _some(loader: Loader, few: range, measured: str | None) -> Iterator[Batch]:
    """Some of the images of a loader, in its batches, of which the first and last may be cut.

    Args:
        loader: of images.
        few: their places in its order.
        measured: what the progress bar says is measured; None is no bar.
    """
    start = 0
    with Progress(disable=not measured, transient=True, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"measuring {measured}", total=len(few))
        for batch in loader.epoch(0):
            part = slice(max(0, few.start - start), max(0, few.stop - start))
            chosen = Batch(*(tensor[part] for tensor in batch))
            if len(chosen.labels):
                yield chosen
                bar.update(task, advance=len(chosen.labels))
            start += len(batch.labels)
            if start >= few.stop:
                return


def run_bench(
    network: nn.Module,
    methods: Mapping[str, type[Method]],
    batches: Iterable[Batch],
    *,
    objects: Callable[[Tensor], Tensor] | None = None,
    steps: int = 10,
) -> Bench:
    """Measure methods on images, batch by batch.

    Args:
        network: a classifier in evaluation mode, on the device of the batches.
        methods: by name.
        batches: normalised images with int64 labels.
        objects: indices (B,) of images in their split to (B, H, W) bool, where the object is.
        steps: of the curves of insertion and deletion.

    Raises:
        PacavitError: a method cannot explain this network.
    """
    shuffled = randomised(network)
    makers = {name: (kind(network), kind(shuffled)) for name, kind in methods.items()}
    gathered = {name: _Gathered() for name in methods}
    right: list[Tensor] = []
    for batch in batches:
        images = batch.images
        with torch.no_grad():
            predicted = network(images).argmax(1)
        right.append(predicted == batch.labels)
        inside = None if objects is None else objects(batch.indices).to(images.device)
        for name, (method, control) in makers.items():
            _measure_batch(
                network, method, control, batch, predicted, inside, steps, gathered[name]
            )
    rows = [
        MethodScores(
            name,
            makers[name][0].class_specific,
            {
                target: {measure: torch.cat(parts) for measure, parts in measures.items()}
                for target, measures in found.values.items()
            },
            median(found.seconds),
        )
        for name, found in gathered.items()
    ]
    correct = torch.cat(right)
    return Bench(len(correct), correct.double().mean().item(), rows)


def _measure_batch(
    network: nn.Module,
    method: Method,
    control: Method,
    batch: Batch,
    predicted: Tensor,
    inside: Tensor | None,
    steps: int,
    gathered: _Gathered,
) -> None:
    """Maps of the likeliest classes, and anew of the right ones where those are others."""
    images, labels = batch.images, batch.labels
    if not gathered.seconds:
        method(images, predicted)  # the first time is slower
    _wait(images.device)
    start = time.perf_counter()
    maps = method(images, predicted)
    _wait(images.device)
    gathered.seconds.append((time.perf_counter() - start) / len(images))
    shaken = torch.arange(len(images), device=images.device) % _SHAKEN == 0
    found = _scores(network, images, maps, predicted, inside, steps)
    found |= _changes(method, control, images, maps, predicted, shaken)
    _append(gathered.values["predicted"], found)
    wrong = predicted != labels
    cpu = wrong.cpu()
    if wrong.any():
        other = maps[wrong]
        if method.class_specific:
            other = method(images[wrong], labels[wrong])
        part = None if inside is None else inside[wrong]
        again = _scores(network, images[wrong], other, labels[wrong], part, steps)
        again |= _changes(method, control, images[wrong], other, labels[wrong], shaken[wrong])
        found = {name: values.clone() for name, values in found.items()}
        for name, values in again.items():
            found[name][cpu] = values
    _append(gathered.values["true"], found)


def _scores(
    network: nn.Module,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    inside: Tensor | None,
    steps: int,
) -> dict[str, Tensor]:
    insertion, deletion = (
        area_under_curve(
            perturbation_curves(network, images, maps, classes, insert=insert, steps=steps)
        )
        for insert in (True, False)
    )
    masks = top_area(maps, AREA)
    found = {
        "insertion": insertion,
        "deletion": deletion,
        "difference": insertion - deletion,
        "kept": predicted_right(network, images, masks, classes, keep=True).double(),
        "removed": predicted_right(network, images, masks, classes, keep=False).double(),
        "ROAD": road(network, images, maps, classes),
        "sparseness": gini(maps),
    }
    if inside is not None:
        found["pointing"] = pointing_game(maps, inside)
        found["energy"] = energy_inside(maps, inside)
    return {name: values.double().cpu() for name, values in found.items()}


def _changes(
    method: Method,
    control: Method,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    shaken: Tensor,
) -> dict[str, Tensor]:
    """How the maps change with the network, and those of some images with a little noise."""
    sensitivity = torch.full((len(images),), torch.nan, dtype=torch.float64)
    if shaken.any():
        explain = partial(method, classes=classes[shaken])
        found = max_sensitivity(explain, images[shaken], maps[shaken])
        sensitivity[shaken.cpu()] = found.to(sensitivity)
    return {
        "randomised": rank_correlation(maps, control(images, classes)).double().cpu(),
        "sensitivity": sensitivity,
    }


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked for; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _append(values: dict[str, list[Tensor]], found: Mapping[str, Tensor]) -> None:
    for name, numbers in found.items():
        values.setdefault(name, []).append(numbers.double().cpu())
