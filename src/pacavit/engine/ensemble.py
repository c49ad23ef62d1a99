"""Several classifiers whose probabilities are averaged.

Each model keeps its own preprocessing and temperature. Lakshminarayanan et al., "Simple and
scalable predictive uncertainty estimation using deep ensembles", NeurIPS 2017.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pacavit.data import Batch, Split
from pacavit.engine.evaluate import Evaluation, Measurement, Observer, summarize
from pacavit.engine.inputs import Input
from pacavit.engine.precision import AUTO, check_choice, for_prediction
from pacavit.engine.predictor import (
    ImageInput,
    InputReader,
    Predicted,
    Predictor,
    PreparedInputs,
    decode_input,
)
from pacavit.engine.scoring import SplitScore, score_model
from pacavit.engine.test_time import augment_test_time
from pacavit.engine.weights.load import LoadedModel, load_model
from pacavit.errors import CheckpointError, DataError
from pacavit.recipes.schema import Recipe
from pacavit.tasks.classification import Predictions, mean_predictions
from pacavit.utils.text import first_few, shown

__all__ = [
    "Ensemble",
    "EnsemblePredictor",
    "EnsembleReader",
    "EnsembleScore",
    "load_predictor",
    "model_names",
    "score_ensemble",
]

_STORED_SIZE = "image_size"  # option of data sets: the size that images are stored with


class Ensemble:
    """Models that predict the same classes, in the order of the first model.

    Args:
        models: one or more; those with another order of the classes are replaced.

    Raises:
        CheckpointError: the models do not classify images, or differ in task or classes.
    """

    def __init__(self, models: Sequence[LoadedModel]) -> None:
        for model in models:
            _check_member(models[0], model)
        names = models[0].info.class_names
        self.models = tuple(_with_order(model, names) for model in models)


class EnsemblePredictor:
    """Predicts images with an ensemble, as ``Predictor`` does with one model.

    Args:
        ensemble: of the models.
        device: where to compute.
        batch_size: largest number of images in a batch.
    """

    def __init__(
        self, ensemble: Ensemble, device: torch.device | str = "cpu", *, batch_size: int = 16
    ) -> None:
        self.models, self.model = ensemble.models, ensemble.models[0]
        self._predictors = [
            Predictor(model, device, batch_size=batch_size) for model in ensemble.models
        ]

    def __call__(self, inputs: Iterable[ImageInput]) -> list[Predicted]:
        """One result per input, in order; images that cannot be read have their ``error`` set."""
        return list(self.stream(inputs))

    def stream(self, inputs: Iterable[ImageInput]) -> Iterator[Predicted]:
        """The same as an iterator, which reads one batch of inputs at a time."""
        copies = itertools.tee(inputs, len(self._predictors))
        streams = [
            predictor.stream(copy) for predictor, copy in zip(self._predictors, copies, strict=True)
        ]
        for found in zip(*streams, strict=True):
            yield self._mean(found)

    @property
    def reader(self) -> EnsembleReader:
        """Reads inputs for all members; worker processes can have a copy."""
        return EnsembleReader([predictor.reader for predictor in self._predictors])

    def answer(self, prepared: Sequence[PreparedInputs]) -> list[Predicted]:
        """One result for each input that ``reader`` has read, in order."""
        members = [
            predictor.answer(own) for predictor, own in zip(self._predictors, prepared, strict=True)
        ]
        return [self._mean(found) for found in zip(*members, strict=True)]

    def _mean(self, found: Sequence[Predicted]) -> Predicted:
        """The result of the ensemble for one input, from those of its members."""
        for each in found:
            if each.error is not None:
                return each
        single = [Predictions(*(value[None] for value in each.record)) for each in found]
        return replace(found[0], record=mean_predictions(single)[0])


class EnsembleReader:
    """Reads inputs into the batches of several networks.

    Args:
        readers: of the networks.
    """

    def __init__(self, readers: Sequence[InputReader]) -> None:
        self.readers = readers

    def __call__(self, inputs: Sequence[Input]) -> list[PreparedInputs]:
        """The batch of each network."""
        return [reader(inputs) for reader in self.readers]


def load_predictor(
    models: str | Path | Sequence[str | Path],
    device: torch.device | str = "cpu",
    *,
    batch_size: int = 16,
    tta: str | None = None,
    precision: str = "fp32",
    examples: Sequence[ImageInput] = (),
) -> Predictor | EnsemblePredictor:
    """A predictor of one model, or of the ensemble of several; optimized for predictions.

    Args:
        models: run folder, weights file or packaged name; or several.
        device: where to compute.
        batch_size: largest number of images in a batch.
        tta: name of a test-time augmentation.
        precision: "fp32", "bf16" or "auto", see ``for_prediction``.
        examples: images by which "auto" decides; those that cannot be read are left out.

    Raises:
        PacavitError: a model cannot be loaded, or they form no ensemble.
    """
    check_choice(precision)
    loaded = []
    for name in model_names(models):
        model = augment_test_time(load_model(name), tta)
        images = _prepared(model, device, examples) if precision == AUTO else None
        loaded.append(for_prediction(model, precision, images, in_place=True))
    if len(loaded) == 1:
        return Predictor(loaded[0], device, batch_size=batch_size)
    return EnsemblePredictor(Ensemble(loaded), device, batch_size=batch_size)


def _prepared(
    model: LoadedModel, device: torch.device | str, examples: Sequence[ImageInput]
) -> Tensor | None:
    """(B, 3, height, width) of the examples that can be read, as the network gets them."""
    decoded = []
    for example in examples:
        with suppress(DataError):
            decoded.append(decode_input(example))
    return Predictor(model, device).prepare(decoded).images if decoded else None


def model_names(models: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """One or several models as a list.

    Raises:
        CheckpointError: the list is empty.
    """
    names = [models] if isinstance(models, str | Path) else [*models]
    if not names:
        raise CheckpointError("give at least one model: run folder, weights file or packaged name")
    return names


class EnsembleScore(NamedTuple):
    """Scores of an ensemble on a split.

    Attributes:
        score: of the ensemble; images and facts are those of the first model, notes of all.
        members: the evaluation of each model alone.
    """

    score: SplitScore
    members: tuple[Evaluation, ...]


def score_ensemble(
    ensemble: Ensemble,
    split: Split | None,
    *,
    root: Path | None = None,
    device: torch.device,
    precision: str | None = None,
    observe: Observer | None = None,
    progress: bool = False,
) -> EnsembleScore:
    """Evaluate an ensemble on a split of the data set of its first model.

    Args:
        ensemble: of the models.
        split: which images; None: those of all splits.
        root: folder with the data, instead of that of the first model's recipe.
        device: where to compute.
        precision: as for ``score_model``.
        observe: is called once with all predictions, and a batch without pixels.
        progress: show a progress bar for each model.

    Raises:
        DataError: the data are missing or broken, or not the same for all models.
    """
    first = ensemble.models[0]
    scores, columns = [], []
    for model in ensemble.models:
        collected = _Collected()
        on_same_data = replace(model, recipe=_with_data_of(first.recipe, model.recipe))
        scores.append(
            score_model(
                on_same_data,
                split,
                root=root,
                device=device,
                precision=precision,
                observe=collected,
                progress=progress,
            )
        )
        columns.append(collected.gather())
    indices, _, targets = columns[0]
    which = "images" if split is None else f"{split} images"
    for model, (own_indices, _, own_targets) in zip(ensemble.models, columns, strict=True):
        if not (torch.equal(own_indices, indices) and torch.equal(own_targets, targets)):
            raise DataError(
                f"{shown(model.path)} does not find the same {which} as "
                f"{shown(first.path)}; give the folder of the data for all models"
            )
    mean = mean_predictions([predictions for _, predictions, _ in columns])
    task = copy.copy(first.task)
    task.temperature = 1.0  # the probabilities are calibrated already
    metrics = task.metrics()
    metrics.update(mean, targets)
    if observe is not None:
        observe(mean, Batch(torch.empty(len(targets), 0), targets, indices))
    members = tuple(score.evaluation for score in scores)
    notes = dict.fromkeys(score.note for score in scores if score.note)
    speed = 1 / sum(1 / member.images_per_second for member in members)
    evaluation = summarize(
        task, Measurement(metrics.compute(), len(targets), speed), first.info.class_names
    )
    score = scores[0]._replace(evaluation=evaluation, note="\n".join(notes) or None)
    return EnsembleScore(score, members)


class _Collected:
    """Observer that keeps indices, predictions and targets of all images, on the CPU."""

    def __init__(self) -> None:
        self._chunks: list[tuple[Tensor, ...]] = []

    def __call__(self, predictions: Predictions, batch: Batch) -> None:
        values = (batch.indices, predictions.logits, predictions.probabilities, batch.targets)
        self._chunks.append(tuple(value.cpu() for value in values))

    def gather(self) -> tuple[Tensor, Predictions, Tensor]:
        indices, logits, probabilities, targets = map(torch.cat, zip(*self._chunks, strict=True))
        return indices, Predictions(logits, probabilities), targets


def _check_member(first: LoadedModel, model: LoadedModel) -> None:
    """Raise CheckpointError unless a model can be in an ensemble with the first one."""
    task, other = first.classifier.config.name, model.classifier.config.name
    where = f"{shown(model.path)} and {shown(first.path)} form no ensemble"
    if task != other:
        raise CheckpointError(
            f"{where}: their tasks are {other!r} and {task!r}; give models of one task"
        )
    names, known = first.info.class_names, model.info.class_names
    if set(names) != set(known):
        differences = [
            *(f"{name!r} is missing in the former" for name in names if name not in known),
            *(f"{name!r} is missing in the latter" for name in known if name not in names),
        ]
        raise CheckpointError(
            f"{where}: their classes differ ({first_few(differences)}); give models that were "
            "trained on the same classes"
        )


class _Reordered(nn.Module):
    """A network with its outputs (..., classes) in another order."""

    columns: Tensor

    def __init__(self, model: nn.Module, columns: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits[..., self.columns]


def _with_order(model: LoadedModel, names: tuple[str, ...]) -> LoadedModel:
    """A model with its classes in the order of ``names``."""
    known = model.info.class_names
    if known == names:
        return model
    task = model.classifier
    network = _Reordered(task.model, [known.index(name) for name in names])
    reordered = type(task)(network, task.config, task.num_classes)
    reordered.temperature = task.temperature
    reordered.test_time_augmentation = task.test_time_augmentation
    return replace(model, task=reordered.eval(), info=replace(model.info, class_names=names))


def _with_data_of(first: Recipe, own: Recipe) -> Recipe:
    """A recipe with the data of another one, at its own size of stored images."""
    options = dict(first.data.options)
    if first.data.name == own.data.name:
        options.pop(_STORED_SIZE, None)
        options |= {k: v for k, v in own.data.options.items() if k == _STORED_SIZE}
    return own.model_copy(update={"data": first.data.model_copy(update={"options": options})})
