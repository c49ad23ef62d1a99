"""A bench of a trained classifier on images of its data, which goes on where it was killed."""

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
from pacavit.engine.scoring import check_classes
from pacavit.engine.system import environment
from pacavit.errors import DataError, PacavitError
from pacavit.explain.evaluation.clusters import bench_clusters
from pacavit.explain.evaluation.images import Bench, run_bench
from pacavit.explain.evaluation.parts import BenchParts, measured_anew
from pacavit.explain.images import default_method
from pacavit.explain.methods.base import METHODS
from pacavit.utils import files

__all__ = ["bench_model"]


def bench_model(
    model: LoadedModel,
    *,
    split: Split = "test",
    root: Path | None = None,
    methods: Sequence[str] | None = None,
    limit: int = 1000,
    skip: int = 0,
    precision: str = "fp32",
    device: torch.device,
    parts: BenchParts | None = None,
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
        precision: "fp32" or "bf16", of what the network answers to altered images.
        device: where to compute.
        parts: keeps what is measured, so that a bench that was killed goes on; None keeps nothing.
        progress: show a progress bar.

    Raises:
        UnknownNameError: there is no such method.
        PacavitError: a method cannot explain the model, or the model is no classifier.
            Or the parts are those of another bench.
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
    if root is not None:
        config = config.model_copy(update={"root": root})
    source = build.data_source(config, model.info.class_names)
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
    if parts is not None:
        settings = {
            "weights": _fingerprint(model),
            "methods": names,
            "data": source.info.copy,
            "split": split,
            "limit": limit,
            "skip": skip,
            "precision": precision,
        }
        parts.begin(settings | _machine(device))
    keep = measured_anew if parts is None else parts
    batches = _some(loader, few, "maps" if progress else None)
    found = run_bench(network, chosen, batches, objects=subjects, precision=precision, keep=keep)
    batches = _some(loader, few, "clusters" if progress else None)
    clusters = bench_clusters(network, batches, objects=instances, keep=keep)
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


def _fingerprint(model: LoadedModel) -> str:
    """Of the network: its values, and how it is built."""
    digest = hashlib.sha256(files.tensor_bytes(model.task.state_dict()))
    digest.update(model.recipe.model.model_dump_json().encode())
    return digest.hexdigest()[:16]


def _machine(device: torch.device) -> dict[str, Any]:
    """What rounding and times depend on, by name."""
    facts = environment(device)
    versions = {f"version of {name}": each for name, each in facts.pop("versions").items()}
    return versions | {name.replace("_", " "): fact for name, fact in facts.items()}


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
