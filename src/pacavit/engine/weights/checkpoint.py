"""Checkpoints: one directory each, published by one rename, without pickled code.

``checkpoints/step-N/`` holds ``model.safetensors`` and ``ema.safetensors`` (each a complete
weights file), ``optimizer.safetensors`` with ``optimizer.json``, ``rng.safetensors`` (the random
generators of every process) and ``state.json``. How many processes wrote it, and whether each held
a copy or a part of the network, makes no difference to what the other files hold.
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
from pacavit.engine.weights.load import METADATA_KEY, load_state, weights_bytes
from pacavit.errors import CheckpointError
from pacavit.recipes.schema import Recipe
from pacavit.utils import files
from pacavit.utils.text import one_line

__all__ = ["Progress", "TrainState", "load", "newest", "remove_leftovers", "save"]

_PREFIX = "step-"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: optimiser steps done.
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
    """Everything that training changes, and what describes it.

    Attributes:
        model: the network.
        average: its moving average, or None.
        optimizer: over the network's parameters.
        progress: how far the run is.
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
                _publish(final, contents | {"rng.safetensors": files.tensor_bytes(generators)})
                for old in _all(folder)[:-keep]:
                    _remove(old)
    return final


def newest(folder: Path) -> Path | None:
    """The newest checkpoint in ``folder``, or None. Unfinished ones never have its name."""
    checkpoints = _all(folder)
    return checkpoints[-1] if checkpoints else None


def remove_leftovers(folder: Path) -> None:
    """Remove what interrupted saves left in ``folder``; a run folder has one writer."""
    for pattern in (".tmp-*", ".old-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def load(path: Path, state: TrainState) -> None:
    """Bring a run's objects and the random generators to where a checkpoint left them, in place.

    A process that the checkpoint knows nothing of keeps its generators as they are: there may be
    more of them now.

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
        _restore_optimizer(state.optimizer, tensors, json.loads(_text(path / "optimizer.json")))
        progress = pydantic.TypeAdapter(Progress).validate_json(_text(path / "state.json"))
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


def _check_data(file: Path, info: DataInfo) -> None:
    """Refuse to go on with other data than those that a checkpoint's model was trained on."""
    _, metadata = _tensors(file)
    try:
        stored = json.loads(metadata[METADATA_KEY])["data"]
        stored.setdefault("version", stored.get("copy"))  # its name in earlier releases
        was = {name: stored[name] for name in ("version", "class_names", "mean", "std")}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} does not tell its data; remove its folder") from error
    present = json.loads(json.dumps(asdict(info)))
    for name, value in was.items():
        if value != present[name]:
            raise CheckpointError(
                f"the run cannot go on with other data: {name} was {value!r} and is now "
                f"{present[name]!r}; give the folder of the data it began with"
            )


def _split_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors "<parameter>.<key>" or "group.<number>.<key>", and numbers.

    Of the parameter groups only tensors and numbers are kept: some optimisers count their steps
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
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
