"""The folder of a run: lock, checks, and files that are written before training starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from pacavit.engine.run.environment import ENVIRONMENT, environment
from pacavit.engine.weights import checkpoint
from pacavit.engine.weights.format import CHECKPOINTS
from pacavit.errors import CheckpointError, RecipeError
from pacavit.recipes import io
from pacavit.recipes.schema import Recipe
from pacavit.utils import files
from pacavit.utils.registry import Plugin

__all__ = ["check", "lock_run_folder", "prepare", "recipe_to_resume"]


@contextmanager
def lock_run_folder(out: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is created if it is missing.

    Raises:
        CheckpointError: another process holds the lock, or the folder cannot be written.
    """
    lock = FileLock(out / files.LOCK, timeout=0)
    with files.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise CheckpointError(
                f"another process is training in {out}; wait for it, or stop it first"
            ) from None
    try:
        yield
    finally:
        (out / files.LOCK).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # removes the folder if it is empty: the run did not start
            out.rmdir()


def check(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds anything but the run to resume or to replace."""
    if resume and overwrite:
        raise CheckpointError("choose one of resume and overwrite, not both")
    is_run = (out / io.RECIPE_FILE).is_file()
    if resume:
        if not is_run:
            raise CheckpointError(f"no run to resume in {out}: it holds no {io.RECIPE_FILE}")
    elif out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file; choose another folder")
    elif out.is_dir() and any(not files.is_leftover(path) for path in out.iterdir()):
        if not is_run:
            raise CheckpointError(
                f"{out} holds other files than a run and is not changed; choose another folder"
            )
        if not overwrite:
            raise CheckpointError(
                f"{out} holds a run; give --resume, --overwrite or another folder"
            )


def recipe_to_resume(recipe: Recipe, out: Path) -> Recipe:
    """The recipe for resuming the run in ``out``, with the run's data folder if it has none.

    Raises:
        RecipeError: the run has another recipe.
    """
    own = io.load(out)
    changed = io.difference(own, recipe)
    if changed is not None:
        raise RecipeError(
            f"the run in {out} cannot be resumed with another recipe: {changed}; "
            "repeat its settings, or start a new run in another folder"
        )
    return own if recipe.data.root is None else recipe


def prepare(
    out: Path,
    recipe: Recipe,
    device: torch.device,
    processes: int,
    *,
    plugins: Sequence[Plugin] = (),
    overwrite: bool,
) -> None:
    """Write recipe and environment into the locked folder; ``overwrite`` removes an old run."""
    with files.writing(out):
        if overwrite:
            files.empty_folder(out, last=io.RECIPE_FILE)
        files.remove_leftovers(out)
        checkpoint.remove_leftovers(out / CHECKPOINTS)
        io.dump(recipe, out / io.RECIPE_FILE)
        # Keep the environment of the first session, which initialized the weights.
        if not (out / ENVIRONMENT).exists():
            facts = environment(device, plugins) | {"processes": processes}
            files.replace_file(out / ENVIRONMENT, json.dumps(facts, indent=2).encode())
