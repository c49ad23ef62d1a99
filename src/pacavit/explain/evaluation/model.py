"""Evaluate the explanations of a trained classifier on images of its data set; resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from pacavit.data import Batch, Loader, Split
from pacavit.engine import LoadedModel, build
from pacavit.engine.run.environment import environment
from pacavit.engine.scoring import check_classes
from pacavit.errors import DataError, PacavitError
from pacavit.explain.choice import default_method
from pacavit.explain.evaluation.cache import FileCache, no_cache
from pacavit.explain.evaluation.clusters import evaluate_clusters
from pacavit.explain.evaluation.methods import ExplanationScores, evaluate_methods
from pacavit.explain.methods.base import METHODS
from pacavit.utils import files

__all__ = ["evaluate_explanations"]


def evaluate_explanations(
    model: LoadedModel,
    *,
    split: Split = "test",
    root: Path | None = None,
    methods: Sequence[str] | None = None,
    limit: int = 1000,
    skip: int = 0,
    precision: str = "fp32",
    device: torch.device,
    cache: FileCache | None = None,
    progress: bool = False,
) -> ExplanationScores:
    """Measure explanation methods and clusters of a trained classifier on images of its data set.

    Args:
        model: its recipe names the data set.
        split: the split of the images.
        root: folder with the data, instead of the recipe's.
        methods: registered names; None takes all methods that can explain the model.
        limit: number of images, taken from the split in a fixed random order.
        skip: number of images of that order to leave out first, such as those used to choose a
            method.
        precision: "fp32" or "bf16", for predictions on altered images.
        device: where to compute.
        cache: stores intermediate results so that an interrupted evaluation resumes; None stores
            nothing.
        progress: show a progress bar.

    Raises:
        UnknownNameError: a method is not registered.
        PacavitError: a method cannot explain the model, the model is not a classifier, or the cache
            holds results of other settings.
        DataError: the data are missing or broken, their classes are not those of the model, or
            ``skip`` leaves no images.
    """
    network = model.classifier.to(device).eval().model
    if model.task.target != "label":
        raise PacavitError(
            f"explanations are measured with one class per image, and the task "
            f"{model.recipe.task.name!r} has several; explain shows them for any class"
        )
    left_out: dict[str, str] = {}
    if methods is None:
        names, left_out = _able(network)
    else:
        names = [METHODS.canonical(name) for name in methods]
    kinds = {name: METHODS.get(name) for name in names}
    source = build.data_source(model.recipe, root, model.info, split)
    check_classes(source.info, model.info)
    images = build.image_set(source, split, device)
    loader = build.eval_loader(
        model.recipe, images, model.info, shuffle=True, preprocess=model.preprocess()
    )
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
    chosen = range(skip, min(skip + limit, len(images)))
    if cache is not None:
        settings = {
            "weights": _fingerprint(model),
            "methods": names,
            "data": source.info.version,
            "split": split,
            "limit": limit,
            "skip": skip,
            "precision": precision,
        }
        cache.begin(settings | _machine(device))
    results = no_cache if cache is None else cache
    batches = _batches(loader, chosen, "maps" if progress else None)
    found = evaluate_methods(
        network, kinds, batches, objects=subjects, precision=precision, cache=results
    )
    batches = _batches(loader, chosen, "clusters" if progress else None)
    clusters = evaluate_clusters(network, batches, objects=instances, cache=results)
    return replace(found, left_out=left_out, clusters=clusters, data=source.info.version)


def _able(network: nn.Module) -> tuple[list[str], dict[str, str]]:
    """The methods that can explain a network, the default first, and why the others cannot."""
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


def _fingerprint(model: LoadedModel) -> str:
    """A hash of the weights and the model section of the recipe."""
    digest = hashlib.sha256(files.tensor_bytes(model.task.state_dict()))
    digest.update(model.recipe.model.model_dump_json().encode())
    return digest.hexdigest()[:16]


def _machine(device: torch.device) -> dict[str, Any]:
    """Machine and versions by name: rounding and times depend on them."""
    facts = environment(device)
    versions = {f"version of {name}": each for name, each in facts.pop("versions").items()}
    return versions | {name.replace("_", " "): fact for name, fact in facts.items()}


def _batches(loader: Loader, chosen: range, what: str | None) -> Iterator[Batch]:
    """The batches of a loader, cut to a range of its images.

    Args:
        loader: of images.
        chosen: positions in its order.
        what: is measured, for the progress bar; None shows no bar.
    """
    start = 0
    with Progress(disable=not what, transient=True, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"measuring {what}", total=len(chosen))
        for batch in loader.epoch(0):
            cut = batch[max(0, chosen.start - start) : max(0, chosen.stop - start)]
            if len(cut):
                yield cut
                bar.update(task, advance=len(cut))
            start += len(batch)
            if start >= chosen.stop:
                return
