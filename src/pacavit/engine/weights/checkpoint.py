"""Checkpoints: one directory each, published by one rename, without pickled code.

``checkpoints/step-N/`` holds ``model.safetensors`` and ``ema.safetensors`` (each a complete
weights file), ``optimizer.safetensors`` with ``optimizer.json``, ``rng.safetensors`` (the random
generators of every process), ``state.json``, and ``manifest.json`` with the sizes and hashes of the
others (see ``manifest``). Except for ``rng.safetensors``, the files are the same however many
processes wrote them, and whether each held a copy or a shard of the network.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor, nn

from pacavit.data.base import DataInfo
from pacavit.engine import distributed
from pacavit.engine.distributed import World
from pacavit.engine.weights import manifest
from pacavit.engine.weights.format import load_state, read_description, weights_bytes
from pacavit.errors import CheckpointError
from pacavit.recipes.schema import Recipe
from pacavit.utils import files
from pacavit.utils.parsing import read_json
from pacavit.utils.text import one_line

__all__ = [
    "Intact",
    "Progress",
    "TrainState",
    "best_weights",
    "load",
    "newest",
    "newest_intact",
    "remove_leftovers",
    "save",
]

_PREFIX = "step-"
_SET_ASIDE = "broken-"


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done.
        batch: batches done in the epoch under way.
        loss_sum: sum of the losses of those batches.
        loss_sums: by name, where a task has several losses.
        best: best validation score of the task's main metric so far.
        metrics: scores of the latest validation.
        elapsed: seconds of training so far, over all sessions.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    loss_sums: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    elapsed: float = 0.0

    def add_losses(self, loss: float, losses: Mapping[str, float]) -> None:
        """Add the losses of one step: their sum, and each by name."""
        self.loss_sum += loss
        if len(losses) > 1:
            for name, value in losses.items():
                self.loss_sums[name] = self.loss_sums.get(name, 0.0) + value

    def mean_losses(self) -> dict[str, float]:
        """Means over the epoch under way: ``train_loss``; of several also ``train_loss_NAME``."""
        sums = {"train_loss": self.loss_sum}
        sums |= {f"train_loss_{name}": value for name, value in self.loss_sums.items()}
        return {name: value / self.batch for name, value in sums.items()}

    def start_epoch(self) -> None:
        """Count the epoch under way as done."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum, self.loss_sums = 0.0, {}


@dataclass
class TrainState:
    """Everything that training changes, with the recipe and the data facts.

    Attributes:
        model: the network.
        average: its moving average, or None.
        optimizer: over the network's parameters.
        progress: steps and epochs done.
        recipe: of the run.
        info: of its data.
        world: the processes of the run.
    """

    model: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    progress: Progress
    recipe: Recipe
    info: DataInfo
    world: World = field(default_factory=World)


@dataclass(frozen=True)
class Intact:
    """The checkpoint to go on from.

    Attributes:
        path: its directory; None if there is no checkpoint.
        warnings: lines on newer ones that are broken, and on one that cannot be verified.
    """

    path: Path | None = None
    warnings: tuple[str, ...] = ()


def save(folder: Path, state: TrainState, keep: int) -> Path:
    """Write a checkpoint into ``folder``, then drop all but the newest ``keep``.

    All processes of a run have to call this together; the first one writes.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: it cannot be written; earlier checkpoints are intact.
    """
    final = folder / f"{_PREFIX}{state.progress.step}"
    generators = _gather_generators(state.world)
    with state.world.together():
        if state.world.is_main or distributed.is_sharded(state.model):
            contents = _contents(state)
        if state.world.is_main:
            with files.writing(final):
                contents["rng.safetensors"] = files.tensor_bytes(generators)
                contents[manifest.MANIFEST] = manifest.make(contents, state.progress.step)
                _publish(final, contents)
                _set_aside_later(folder, state.progress.step)
                for old in _all(folder)[:-keep]:
                    _remove(old)
    return final


def newest(folder: Path) -> Path | None:
    """The newest checkpoint in ``folder``, or None. Unfinished ones never have its name."""
    checkpoints = _all(folder)
    return checkpoints[-1] if checkpoints else None


def newest_intact(folder: Path, world: World) -> Intact:
    """The newest checkpoint whose files are those that were written.

    All processes of a run have to call this together; the first one verifies.

    Raises:
        CheckpointError: there are checkpoints, and none is intact.
    """
    found = Intact()
    with world.together():
        if world.is_main:
            found = _find_intact(folder)
    # Machines may see the folder at different times: what the first process found counts.
    step = -1 if found.path is None else _step(found.path)
    step = int(world.gather(torch.tensor(step))[0])
    return Intact(None if step < 0 else folder / f"{_PREFIX}{step}", found.warnings)


def best_weights(checkpoint: Path) -> Path:
    """The weights file of a checkpoint to use: the averaged ones if there are any.

    Raises:
        CheckpointError: it is not the file that was written.
    """
    name = "ema.safetensors"
    name = name if (checkpoint / name).is_file() else "model.safetensors"
    try:
        manifest.verify(checkpoint, _step(checkpoint), only=name)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; put the file back, or remove the folder") from error
    return checkpoint / name


def remove_leftovers(folder: Path) -> None:
    """Remove what interrupted saves left in ``folder``; a run folder has one writer."""
    for pattern in (".tmp-*", ".old-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def load(path: Path, state: TrainState) -> None:
    """Restore the objects of a run and the random generators from a checkpoint, in place.

    A process without stored generators keeps its own: the run may have more processes now.

    Raises:
        CheckpointError: a file is missing, truncated, or does not fit, or the data are not those
            of the checkpoint.
    """
    _check_data(path / "model.safetensors", state.info)
    for name, model in (("model", state.model), ("ema", state.average)):
        if model is not None:
            file = path / f"{name}.safetensors"
            load_state(model, _tensors(file)[0], file)
    tensors, _ = _tensors(path / "optimizer.safetensors")
    generators, _ = _tensors(path / "rng.safetensors")
    try:
        _restore_optimizer(state.optimizer, tensors, _json(path / "optimizer.json"))
        progress = _read_progress(path)
        _restore_generators(generators, state.world)
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint {path} is broken: {one_line(error, kind=True)}; "
            "remove it to go on from an earlier one"
        ) from error
    state.progress.__dict__.update(progress.__dict__)


def _contents(state: TrainState) -> dict[str, bytes]:
    """The files of a checkpoint but for the generators, by name."""
    metrics = state.progress.metrics
    contents = {"model.safetensors": weights_bytes(state.model, state.recipe, state.info, metrics)}
    if state.average is not None:
        contents["ema.safetensors"] = weights_bytes(
            state.average, state.recipe, state.info, metrics
        )
    tensors, numbers = _split_optimizer(state.optimizer)
    contents["optimizer.safetensors"] = files.tensor_bytes(distributed.whole(tensors))
    contents["optimizer.json"] = json.dumps(numbers).encode()
    contents["state.json"] = json.dumps(asdict(state.progress), indent=2).encode()
    return contents


def _find_intact(folder: Path) -> Intact:
    warnings: list[str] = []
    checkpoints = _all(folder)
    for path in reversed(checkpoints):
        try:
            verified = manifest.verify(path, _step(path))
            _read_progress(path)
        except CheckpointError as error:
            warnings.append(f"{error}; the checkpoint is left out")
            continue
        if not verified:
            warnings.append(
                f"{path} was written by an earlier release, without {manifest.MANIFEST}: its files "
                "cannot be verified"
            )
        return Intact(path, tuple(warnings))
    if checkpoints:
        reason = warnings[0].partition("; the checkpoint")[0]
        more = f" (and {len(warnings) - 1} more)" if len(warnings) > 1 else ""
        raise CheckpointError(
            f"no checkpoint in {folder} is intact: {reason}{more}; put the file back, or remove "
            "it with its folder to begin the run again"
        )
    return Intact()


def _read_progress(path: Path) -> Progress:
    """The progress that a checkpoint stores, which must be that of its name."""
    file = path / "state.json"
    stored = _json(file)
    try:
        progress = pydantic.TypeAdapter(Progress).validate_python(stored)
    except ValueError as error:
        raise CheckpointError(f"{file} is broken: {one_line(error)}") from error
    if "step" not in stored or progress.step != _step(path):
        raise CheckpointError(
            f"{file} is broken: it is of step {stored.get('step')!r}, and its folder is named "
            f"{path.name}"
        )
    return progress


def _check_data(file: Path, info: DataInfo) -> None:
    """Refuse to go on with other data than those that a checkpoint's model was trained on."""
    trained = asdict(read_description(files.read_header(file)[1], file).info)
    present = asdict(info)
    for name in ("version", "class_names", "mean", "std"):
        if trained[name] != present[name]:
            raise CheckpointError(
                f"the run cannot go on with other data: {name} was {trained[name]!r} and is now "
                f"{present[name]!r}; give the folder of the data it began with"
            )


def _split_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors "<parameter>.<key>" or "group.<number>.<key>", and numbers.

    Of the parameter groups only tensors and numbers are kept: some optimizers count their steps
    there, and everything else follows from the recipe.
    """
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                numbers.setdefault(str(index), {})[key] = value
    for index, group in enumerate(state["param_groups"]):
        tensors |= {f"group.{index}.{k}": v for k, v in group.items() if isinstance(v, Tensor)}
    groups = [
        {key: value for key, value in group.items() if isinstance(value, bool | int | float)}
        for group in state["param_groups"]
    ]
    return tensors, {"state": numbers, "groups": groups}


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    state = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    restored: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in numbers["state"].items()
    }
    groups = state["param_groups"]
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        if index == "group":
            index, _, key = key.partition(".")
            groups[int(index)][key] = value
            continue
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            # Fused kernels walk state and parameter side by side, so the layouts must agree.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(
                distributed.like(value, parameter)
            )
        restored.setdefault(int(index), {})[key] = value
    for group, saved in zip(groups, numbers["groups"], strict=True):
        group.update(saved)
    optimizer.load_state_dict({"state": restored, "param_groups": groups})


def _gather_generators(world: World) -> dict[str, Tensor]:
    """States of the generators of all processes, "cpu" and "cuda", the others' after their rank."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {
        _generator_key(name, rank): state
        for name, own in states.items()
        for rank, state in enumerate(world.gather(own))
    }


def _restore_generators(states: dict[str, Tensor], world: World) -> None:
    if world.is_main or _generator_key("cpu", world.rank) in states:
        torch.set_rng_state(states[_generator_key("cpu", world.rank)])
    cuda = states.get(_generator_key("cuda", world.rank))
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)


def _generator_key(name: str, rank: int) -> str:
    return name if rank == 0 else f"process-{rank}.{name}"


def _publish(final: Path, contents: dict[str, bytes]) -> None:
    """Make a folder of files appear whole and synced under its name, or not at all."""
    folder = final.parent
    temporary = folder / f".tmp-{final.name}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        temporary.mkdir()
        for name, data in contents.items():
            files.write_file(temporary / name, data)
        files.sync_folder(temporary)
        if final.exists():
            # The end of an epoch, saved when its validation images could not be read.
            final.rename(folder / f".old-{final.name}")
        temporary.rename(final)
        remove_leftovers(folder)
        files.sync_folder(folder)
    except OSError:
        # Frees the space; what this cannot remove, the next start does.
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _all(folder: Path) -> list[Path]:
    """Published checkpoints, oldest first."""
    found = [
        path
        for path in folder.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdecimal() and (path / "state.json").is_file()
    ]
    return sorted(found, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(_PREFIX))


def _set_aside_later(folder: Path, step: int) -> None:
    """Rename checkpoints of later steps: they are broken, and the run has gone on from before."""
    for later in _all(folder):
        if _step(later) > step:
            aside = later.with_name(_SET_ASIDE + later.name)
            if aside.exists():
                shutil.rmtree(aside)
            later.rename(aside)


def _remove(checkpoint: Path) -> None:
    """Take a checkpoint's name away in one step, then its files."""
    doomed = checkpoint.with_name(f".old-{checkpoint.name}")
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)


def _tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What ``files.read_tensors`` gives; its error also says how to go on without the file."""
    try:
        return files.read_tensors(file)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}, or remove {file.parent} to go on from an earlier checkpoint"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is broken: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is broken: it is not a table of values")
    return value
