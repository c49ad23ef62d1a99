"""Checkpoints: one directory each, written atomically, without pickled code.

``checkpoints/step-N/`` holds ``model.safetensors`` and ``ema.safetensors`` (each a complete
weights file), ``best.safetensors`` (likewise, of the best epoch so far, if the run keeps that),
``optimizer.safetensors`` with ``optimizer.json``, ``rng.safetensors`` (the random
generators of every process), ``state.json``, and ``manifest.json`` with the sizes and hashes of the
others (see ``manifest``). Except for ``rng.safetensors``, the files do not depend on the number of
processes, or on whether each held a copy or a shard of the network.
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
    "data_info",
    "load",
    "newest",
    "newest_intact",
    "remove_leftovers",
    "save",
]

_PREFIX = "step-"
_SET_ASIDE = "broken-"
_BEST = "best.safetensors"


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        step: finished optimizer steps.
        epoch: finished epochs.
        batch: finished batches of the current epoch.
        loss_sum: sum of the losses of those batches.
        loss_sums: the same for each loss by name, if a task has several.
        best: best validation score of the task's main metric so far.
        best_epoch: the epoch that reached it, counted from 1.
        metrics: scores of the latest validation.
        elapsed: seconds of training so far, over all sessions.
        elapsed_cpu: CPU seconds of the first process meanwhile, the sum over its threads; unlike
            ``elapsed``, it does not count the time that other programs take.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    loss_sums: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    elapsed: float = 0.0
    elapsed_cpu: float = 0.0

    def add_losses(self, loss: float, losses: Mapping[str, float]) -> None:
        """Add the losses of one step: their sum, and each by name."""
        self.loss_sum += loss
        if len(losses) > 1:
            for name, value in losses.items():
                self.loss_sums[name] = self.loss_sums.get(name, 0.0) + value

    def mean_losses(self) -> dict[str, float]:
        """Means over the current epoch: ``train_loss``; of several losses, ``train_loss_NAME``."""
        sums = {"train_loss": self.loss_sum}
        sums |= {f"train_loss_{name}": value for name, value in self.loss_sums.items()}
        return {name: value / self.batch for name, value in sums.items()}

    def start_epoch(self) -> None:
        """Count the current epoch as finished, and start the next one."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum, self.loss_sums = 0.0, {}


@dataclass
class TrainState:
    """Everything that training changes, with the recipe and facts about the data.

    Attributes:
        model: the network.
        average: its moving average, or None.
        optimizer: over the network's parameters.
        progress: finished steps and epochs.
        recipe: of the run.
        info: of its data.
        world: the processes of the run.
        best: the weights file of the best epoch so far, if the run keeps that; only used by the
            first process.
    """

    model: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    progress: Progress
    recipe: Recipe
    info: DataInfo
    world: World = field(default_factory=World)
    best: bytes | None = None


@dataclass(frozen=True)
class Intact:
    """The checkpoint from which a run is resumed.

    Attributes:
        path: its directory; None if there is no checkpoint.
        warnings: lines on newer checkpoints that are broken, and on one that cannot be verified.
    """

    path: Path | None = None
    warnings: tuple[str, ...] = ()


def save(folder: Path, state: TrainState, keep: int) -> Path:
    """Write a checkpoint into ``folder``, then remove all but the newest ``keep``.

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
    """The newest complete checkpoint in ``folder``, or None."""
    checkpoints = _all(folder)
    return checkpoints[-1] if checkpoints else None


def newest_intact(folder: Path, world: World) -> Intact:
    """The newest checkpoint whose files match its manifest.

    All processes of a run have to call this together; the first one verifies.

    Raises:
        CheckpointError: there are checkpoints, and none is intact.
    """
    found = Intact()
    with world.together():
        if world.is_main:
            found = _find_intact(folder)
    # Machines may see different states of the folder, so all use what the first process found.
    step = -1 if found.path is None else _step(found.path)
    step = int(world.gather(torch.tensor(step))[0])
    return Intact(None if step < 0 else folder / f"{_PREFIX}{step}", found.warnings)


def best_weights(checkpoint: Path) -> Path:
    """The weights file of a checkpoint to use: of the best epoch, else averaged weights, if any.

    Raises:
        CheckpointError: the file does not match the manifest.
    """
    names = (_BEST, "ema.safetensors", "model.safetensors")
    name = next((name for name in names if (checkpoint / name).is_file()), names[-1])
    try:
        manifest.verify(checkpoint, _step(checkpoint), only=name)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; restore the file, or remove the folder") from error
    return checkpoint / name


def remove_leftovers(folder: Path) -> None:
    """Remove incomplete files of interrupted saves in ``folder``, which has a single writer."""
    for pattern in (".tmp-*", ".old-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def load(path: Path, state: TrainState) -> None:
    """Restore the objects of a run and the random generators from a checkpoint, in place.

    A process without stored generators keeps its own, because the run may have more processes now.

    Raises:
        CheckpointError: a file is missing, truncated, or does not fit, or the data differ from
            those of the checkpoint.
    """
    _check_data(path, state.info)
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
            "remove it to resume from an earlier one"
        ) from error
    state.progress.__dict__.update(progress.__dict__)
    best = path / _BEST
    with files.reading(best):
        state.best = best.read_bytes() if best.is_file() else None


def _contents(state: TrainState) -> dict[str, bytes]:
    """The files of a checkpoint by name, without the random generators."""
    metrics = state.progress.metrics
    contents = {"model.safetensors": weights_bytes(state.model, state.recipe, state.info, metrics)}
    if state.average is not None:
        contents["ema.safetensors"] = weights_bytes(
            state.average, state.recipe, state.info, metrics
        )
    if state.best is not None:
        contents[_BEST] = state.best
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
            warnings.append(f"{error}; the checkpoint is ignored")
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
            f"no checkpoint in {folder} is intact: {reason}{more}; restore the file, or remove "
            "the folder to start the run again"
        )
    return Intact()


def _read_progress(path: Path) -> Progress:
    """The progress stored in a checkpoint, whose step must be that in its name."""
    file = path / "state.json"
    stored = _json(file)
    try:
        progress = pydantic.TypeAdapter(Progress).validate_python(stored)
    except ValueError as error:
        raise CheckpointError(f"{file} is broken: {one_line(error)}") from error
    if "step" not in stored or progress.step != _step(path):
        raise CheckpointError(
            f"{file} is broken: it is of step {stored.get('step')!r}, but its folder is named "
            f"{path.name}"
        )
    return progress


def data_info(path: Path) -> DataInfo:
    """Facts about the data that the model of a checkpoint was trained on.

    Raises:
        CheckpointError: its file is missing, truncated or foreign.
    """
    file = path / "model.safetensors"
    return read_description(files.read_header(file)[1], file).info


def _check_data(path: Path, info: DataInfo) -> None:
    """Raise CheckpointError unless the data are those of a checkpoint."""
    trained = asdict(data_info(path))
    present = asdict(info)
    for name in ("version", "class_names", "mean", "std"):
        if trained[name] != present[name]:
            raise CheckpointError(
                f"the run cannot be resumed with other data: {name} was {trained[name]!r} and is "
                f"now {present[name]!r}; give the folder of the original data"
            )


def _split_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state: tensors named "<parameter>.<key>" or "group.<number>.<key>"; numbers.

    Of parameter groups, tensors and numbers are stored, because some optimizers count their steps
    there; everything else is determined by the recipe.
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
            # Fused kernels need the same memory layout for state and parameter.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(
                distributed.like(value, parameter)
            )
        restored.setdefault(int(index), {})[key] = value
    for group, saved in zip(groups, numbers["groups"], strict=True):
        group.update(saved)
    optimizer.load_state_dict({"state": restored, "param_groups": groups})


def _gather_generators(world: World) -> dict[str, Tensor]:
    """States of the random generators of all processes, by the names of ``_generator_key``."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
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
    mps = states.get(_generator_key("mps", world.rank))
    if mps is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(mps)


def _generator_key(name: str, rank: int) -> str:
    return name if rank == 0 else f"process-{rank}.{name}"


def _publish(final: Path, contents: dict[str, bytes]) -> None:
    """Write a folder of files atomically: it exists complete and synced, or not at all."""
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
            # This step was saved before: validation images could not be read at the epoch's end.
            final.rename(folder / f".old-{final.name}")
        temporary.rename(final)
        remove_leftovers(folder)
        files.sync_folder(folder)
    except OSError:
        # Leftovers that cannot be removed now are removed at the next start.
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _all(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [
        path
        for path in folder.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdecimal() and (path / "state.json").is_file()
    ]
    return sorted(found, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(_PREFIX))


def _set_aside_later(folder: Path, step: int) -> None:
    """Rename checkpoints of later steps, which are broken: the run was resumed from before."""
    for later in _all(folder):
        if _step(later) > step:
            aside = later.with_name(_SET_ASIDE + later.name)
            if aside.exists():
                shutil.rmtree(aside)
            later.rename(aside)


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint atomically: rename it, then remove its files."""
    doomed = checkpoint.with_name(f".old-{checkpoint.name}")
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)


def _tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """``files.read_tensors``; the error message also says how to resume without the file."""
    try:
        return files.read_tensors(file)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}, or remove {file.parent} to resume from an earlier checkpoint"
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
