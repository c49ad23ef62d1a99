"""Load a trained network from a run, a file, the package, or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from pacavit import layers
from pacavit.data import Preprocess
from pacavit.data.base import DataInfo
from pacavit.engine import build
from pacavit.engine.exported.model import ExportedModel, find_exported, open_exported
from pacavit.engine.run.environment import needed_plugins
from pacavit.engine.system import check_precision
from pacavit.engine.weights import checkpoint, hub
from pacavit.engine.weights.fit import build_to_fit
from pacavit.engine.weights.format import CHECKPOINTS, WEIGHTS, load_state, read_description
from pacavit.engine.weights.packaged import packaged_file, packaged_names
from pacavit.errors import CheckpointError, PacavitError, UnknownNameError
from pacavit.recipes import io
from pacavit.recipes.schema import Recipe
from pacavit.tasks import ImageClassifier, Task
from pacavit.tasks.classification import Calibration
from pacavit.utils import files
from pacavit.utils.text import shown

__all__ = [
    "LoadedModel",
    "load_model",
    "load_network",
    "naming_plugins",
    "optimized",
    "warn_of_changed_plugins",
    "weights_digest",
]


@dataclass(frozen=True)
class LoadedModel:
    """A trained network with all that is needed to use it.

    Attributes:
        task: on the CPU, in evaluation mode.
        recipe: how it was trained; with folders only if it was loaded from a run folder.
        info: the data it was trained on: class names, mean, standard deviation.
        metrics: validation scores when the weights were written.
        path: the file the weights came from.
        calibration: of the probabilities, with the temperature of the task; None if there is none.
        precision: of the arithmetic, "fp32" or "bf16". In bf16 the task must run under
            ``torch.autocast``, as ``Predictor`` and ``score_model`` run it.
        exported: of a file that ``pacavit export`` wrote; None for networks of torch.
    """

    task: Task
    recipe: Recipe
    info: DataInfo
    metrics: Mapping[str, float]
    path: Path
    calibration: Calibration | None = None
    precision: str = "fp32"
    exported: ExportedModel | None = None

    @property
    def classifier(self) -> ImageClassifier:
        """The task, if it classifies images; CheckpointError for all other tasks."""
        if not isinstance(self.task, ImageClassifier):
            raise CheckpointError(
                f"{self.path} was trained for the task {self.recipe.task.name!r} and does not "
                "classify images; this needs a model that does"
            )
        return self.task

    def preprocess(self) -> Preprocess:
        """The path from stored images to the network, without augmentation."""
        own = None if self.exported is None else self.exported.preprocess()
        return build.eval_preprocess(self.recipe, self.info) if own is None else own


def load_model(
    source: str | Path, *, optimize: bool = False, precision: str = "fp32"
) -> LoadedModel:
    """A trained network, ready to use.

    With ``optimize`` it is for predictions only: faster, with results equal to 1e-4 in fp32 (see
    :func:`pacavit.layers.optimize`). ``predict`` and ``evaluate`` load models so. Trainings,
    explanations and what writes the weights need the network as it was trained.

    Args:
        source: a run folder (for an unfinished run, its newest checkpoint is loaded), a folder of
            ``save_pretrained``, ``hf-hub:USER/NAME`` for such a folder on the Hugging Face hub, a
            weights file, a file or folder that ``pacavit export`` wrote, or the name of packaged
            weights, which takes precedence over a folder of that name (``./NAME``).
            Half-precision weights become fp32. A warning names plug-ins that have changed since
            the run was trained.
        optimize: fold layers, and keep weights in the precision of the arithmetic. Exported files
            stay as they are.
        precision: "fp32", or "bf16", which needs ``optimize`` and gives other numbers: measure what
            it costs with ``pacavit evaluate --precision bf16``.

    Raises:
        UnknownNameError: no packaged weights have that name, or there is no such precision.
        CheckpointError: the file is missing, truncated, not of this package, or does not fit its
            own recipe.
        RecipeError: no model can be built from the recipe inside, or it exceeds a bound.
    """
    check_precision(precision)
    if precision != "fp32" and not optimize:
        raise PacavitError(f"precision {precision!r} needs optimize=True")
    loaded = _load(source)
    return optimized(loaded, precision, in_place=True) if optimize else loaded


def optimized(
    model: LoadedModel, precision: str = "fp32", *, in_place: bool = False
) -> LoadedModel:
    """A model for predictions only, see :func:`load_model`.

    Args:
        model: as it was trained.
        precision: "fp32" or "bf16".
        in_place: change the model's own network, instead of a copy.

    Raises:
        CheckpointError: bf16 of an exported file, which has a precision of its own.
    """
    half = check_precision(precision) == "bf16"
    if model.exported is not None:
        if half:
            raise CheckpointError(
                f"{shown(model.path)} is an exported file and keeps its precision; export the "
                "network with --precision bf16 instead"
            )
        return model
    task = layers.optimize(model.task, half=half, in_place=in_place)
    return replace(model, task=task, precision=precision)


def _load(source: str | Path) -> LoadedModel:
    if isinstance(source, str) and source in packaged_names():
        with resources.as_file(packaged_file(source)) as file:
            return _load_file(file)
    path = hub.fetch(source) if str(source).startswith(hub.PREFIX) else Path(source)
    if (path / hub.CONFIG).is_file():
        return _load_file(path / hub.WEIGHTS)
    exported = find_exported(path)
    if exported is not None:
        return _load_exported(exported)
    if path.is_dir():
        with naming_plugins(path):
            loaded = _load_file(_newest_weights(path))
            loaded = replace(loaded, recipe=io.load(path))
        warn_of_changed_plugins(path, loaded.task, loaded.recipe)
        return loaded
    if path.is_file():
        with naming_plugins(path.parent):
            loaded = _load_file(path)
        warn_of_changed_plugins(path.parent, loaded.task, loaded.recipe)
        return loaded
    name = str(source)
    if isinstance(source, Path) or os.sep in name or name.endswith(".safetensors"):
        raise CheckpointError(f"no run folder or weights file at {path}")
    raise UnknownNameError("run folder, weights file or packaged weights", name, packaged_names())


def load_network(source: str | Path) -> LoadedModel:
    """The same as ``load_model`` for what needs the weights, which exported files do not give.

    Raises:
        PacavitError: as ``load_model``, or the source is an exported file.
    """
    loaded = load_model(source)
    if loaded.exported is not None:
        raise CheckpointError(
            f"{shown(loaded.path)} is an exported file, whose weights only its engine can use; "
            "give the run folder or weights file that it was made from"
        )
    return loaded


def weights_digest(model: LoadedModel) -> str:
    """The SHA-256 of a model's file, stored in evaluations to identify the weights."""
    with model.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def naming_plugins(run: Path) -> Iterator[None]:
    """Within it, an error about an unknown name also names the plug-ins that the run needs."""
    try:
        yield
    except PacavitError as error:
        needed = needed_plugins(run)
        unknown = isinstance(error, UnknownNameError) or isinstance(
            error.__cause__, UnknownNameError
        )
        if not needed or not unknown:
            raise
        raise CheckpointError(
            f"{shown(run)} was trained with the plug-in {_listed(needed)}; name it with "
            f"--plugin FILE.py before the verb, or pacavit.load_plugin: {error}"
        ) from error


def warn_of_changed_plugins(run: Path, task: Task, recipe: Recipe) -> None:
    """Warn of each plug-in in use whose content is not that which a run was trained with.

    Args:
        run: its folder; nothing is compared if it records no plug-ins.
        task: built from the run's recipe.
        recipe: of the run.
    """
    needed = needed_plugins(run)
    for plugin in build.plugins(task, recipe) if needed else []:
        if plugin.sha256 in needed.values():
            continue
        name = shown(plugin.path.name)
        before = {name: needed[name]} if name in needed else needed
        warnings.warn(
            f"the plug-in {_listed({name: plugin.sha256})} is not the one that {shown(run)} was "
            f"trained with, {_listed(before)}: results may differ",
        )


def _listed(plugins: Mapping[str, str]) -> str:
    """Names of plug-ins with the first digits of their SHA-256."""
    return " and ".join(f"{name} (SHA-256 {digest[:8]}…)" for name, digest in plugins.items())


def _newest_weights(run: Path) -> Path:
    """The weights of a run: the final ones, or those of its newest checkpoint."""
    if not (run / io.RECIPE_FILE).is_file():
        raise CheckpointError(f"{run} is no run folder: it holds no {io.RECIPE_FILE}")
    if (run / WEIGHTS).is_file():
        return run / WEIGHTS
    newest = checkpoint.newest(run / CHECKPOINTS)
    if newest is None:
        raise CheckpointError(f"the run in {run} has no checkpoint yet; train it for longer")
    return checkpoint.best_weights(newest)


def _load_exported(path: Path) -> LoadedModel:
    model = open_exported(path)
    found = model.description
    return LoadedModel(
        model.task,
        found.recipe,
        found.info,
        found.metrics,
        path,
        found.calibration,
        exported=model,
    )


def _load_file(path: Path) -> LoadedModel:
    shapes, metadata = files.read_header(path)
    found = read_description(metadata, path)

    def make() -> Task:
        return build.task(found.recipe, found.info)

    task = build_to_fit(make, shapes, path)
    load_state(task.model, files.read_tensors(path)[0], path)
    if found.calibration is not None:
        task.temperature = found.calibration.temperature
    return LoadedModel(
        task.eval(), found.recipe, found.info, found.metrics, path, found.calibration
    )
