"""Evaluate a trained model on a split of its data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from pacavit.data import DataInfo, ImageSet, Split, describe_broken
from pacavit.engine import build
from pacavit.engine.evaluate import Evaluation, Observer, evaluate
from pacavit.engine.precision import AUTO, for_prediction
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import DataError
from pacavit.recipes.schema import Recipe
from pacavit.utils.progress import show_progress
from pacavit.utils.text import shown

__all__ = ["SplitScore", "check_classes", "score_model"]


class SplitScore(NamedTuple):
    """A model's scores on a split.

    Attributes:
        evaluation: the scores.
        images: that were scored.
        info: facts about their data.
        note: lines on skipped files, and on data that differ from those of the training.
    """

    evaluation: Evaluation
    images: ImageSet
    info: DataInfo
    note: str | None

    def notes(self) -> list[str]:
        """The note, and a line on images that could not be read."""
        broken = [describe_broken(self.images.broken)] if self.images.broken else []
        return ([self.note] if self.note else []) + broken

    def image_name(self, position: int) -> str:
        """The path of an image in the folder of the data; "NAME #POSITION" of packed data."""
        file = self.images.file(position)
        return f"{self.info.name} #{position}" if file is None else shown(file)


def score_model(
    model: LoadedModel,
    split: Split | None,
    *,
    root: Path | None = None,
    device: torch.device,
    precision: str | None = None,
    observe: Observer | None = None,
    progress: bool = False,
) -> SplitScore:
    """Evaluate a loaded model on a split.

    Args:
        model: its recipe names the data set.
        split: which images; None: those of all splits.
        root: folder with the data, instead of the recipe's.
        device: where to compute.
        precision: evaluate a copy that is optimized for predictions, in "fp32", "bf16" or "auto",
            see ``for_prediction``; None evaluates the model itself.
        observe: is called with the predictions for each batch.
        progress: show a progress bar.

    Raises:
        DataError: the data are missing or broken, their classes are not those of the model, or
            all splits are wanted of a data set that has its own.
    """
    recipe = model.recipe if split is not None else _without_sizes(model.recipe)
    with show_progress(Console() if progress else None):
        source = build.data_source(recipe, root, model.info, split)
        check_classes(source.info, model.info)
        images = (source.load_all() if split is None else source.load(split)).to(device)
    loader = build.eval_loader(model.recipe, images, model.info, preprocess=model.preprocess())
    if precision is not None:
        first = None if precision != AUTO else next(loader.epoch(0)).to(device).images
        model = for_prediction(model, precision, first)
    evaluation = evaluate(
        model.task,
        loader,
        model.info.class_names,
        device=device,
        precision=model.precision,
        observe=observe,
        progress=progress,
    )
    other = _other_data(source.info, model.info, split, len(images))
    note = "\n".join(filter(None, (source.note, other))) or None
    return SplitScore(evaluation, images, source.info, note)


def check_classes(data: DataInfo, trained: DataInfo) -> None:
    """Raise DataError unless the data have the classes that a model was trained on."""
    found, known = data.class_names, trained.class_names
    if found == known:
        return
    if len(found) != len(known):
        what = f"{len(found)} classes, and the model knows {len(known)}"
    else:
        first = next(i for i, pair in enumerate(zip(found, known, strict=True)) if len({*pair}) > 1)
        what = f"class {first} named {found[first]!r}, which the model knows as {known[first]!r}"
    raise DataError(
        f"{data.version} has {what}; give the data that the model was trained on: {trained.version}"
    )


def _without_sizes(recipe: Recipe) -> Recipe:
    """The recipe without sizes of splits, which need not fit other data."""
    options = {name: value for name, value in recipe.data.options.items() if name != "test_size"}
    config = recipe.data.model_copy(update={"val_size": None, "options": options})
    return recipe.model_copy(update={"data": config})


def _other_data(data: DataInfo, trained: DataInfo, split: Split | None, num: int) -> str | None:
    """A warning if the images may be, or certainly are, among those of the training."""
    which = f"all {num:,} images" if split is None else f"the {num:,} images of the {split} split"
    if data.version != trained.version:
        return (
            f"note: these are {which} of {data.version}; the model was trained on "
            f"{trained.version}, and images that it has seen may be among them"
        )
    if split is None:
        return f"note: these are {which} of {data.version}; the model was trained on some of them"
    return None
