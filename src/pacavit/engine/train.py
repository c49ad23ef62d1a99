"""Start a training run, or resume one, in its folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from pacavit.engine import build, distributed
from pacavit.engine.distributed import World
from pacavit.engine.run import folder
from pacavit.engine.run.log import RunLog
from pacavit.engine.run.signals import stop_signals
from pacavit.engine.trainer import Trainer
from pacavit.engine.weights import checkpoint
from pacavit.engine.weights.format import (
    CHECKPOINTS,
    WEIGHTS,
)
from pacavit.engine.weights.load import naming_plugins, warn_of_changed_plugins
from pacavit.recipes.schema import Recipe
from pacavit.utils.command import pacavit_command
from pacavit.utils.progress import announce, show_progress

__all__ = ["train"]


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Train a model, and write a run folder with all that is needed to use it.

    Args:
        recipe: the complete run.
        out: the run folder; must not exist yet, or be empty.
        resume: resume the interrupted run in ``out``, with the same result as without the
            interruption; on its data folder, unless ``recipe`` names one. A finished run is not
            changed.
        overwrite: replace the run in ``out``.
        progress: show progress on the terminal.

    Returns:
        ``out``, with ``weights.safetensors`` (of the last or the best epoch; averaged, if the
        recipe says so), ``recipe.json``, ``environment.json``, ``metrics.jsonl``, ``checkpoints/``
        and what the loggers write. ``broken_images.txt`` names images that could not be read,
        ``duplicates.csv`` those that are in two splits, if there are any.

    Raises:
        CheckpointError: ``out`` is in use, is no run to resume, was trained on other data, or
            cannot be written.
        RecipeError: the recipe does not fit, or is not that of the run to resume.
        DataError: the images cannot be read.
        Interrupted: after Ctrl-C or SIGTERM; a checkpoint was written.
        PacavitError: the loss is no longer a number.
    """
    out = Path(out)
    with distributed.join() as world, ExitStack() as stack:
        with world.together():
            if world.is_main:
                folder.check(out, resume=resume, overwrite=overwrite)
                stack.enter_context(folder.lock_run_folder(out))
                folder.check(out, resume=resume, overwrite=overwrite)  # again, with the lock
        with world.together():
            recipe = folder.recipe_to_resume(recipe, out) if resume else recipe
            finished = resume and (out / WEIGHTS).is_file()
        console = Console(quiet=not (progress and world.is_main))
        with show_progress(console):
            if finished:
                announce(f"the run in {out} is finished; there is nothing to resume")
            else:
                if resume:
                    stack.enter_context(naming_plugins(out))
                _train(recipe, out, world, resume=resume, overwrite=overwrite, console=console)
                announce(f"trained model in {out}; next: {pacavit_command('evaluate', out)}")
    return out


def _train(
    recipe: Recipe, out: Path, world: World, *, resume: bool, overwrite: bool, console: Console
) -> None:
    # Build everything before the folder is changed, so that a wrong recipe does not delete a run.
    with world.together():
        intact = checkpoint.Intact()
        if resume:
            intact = checkpoint.newest_intact(out / CHECKPOINTS, world)
        trained_on = None if intact.path is None else checkpoint.data_info(intact.path)
        trainer = Trainer(recipe, out, world, trained_on=trained_on)
        if resume and world.is_main:
            warn_of_changed_plugins(out, trainer.task, recipe)
        if intact.path is not None:
            checkpoint.load(intact.path, trainer.state)
    step = trainer.progress.step
    with ExitStack() as stack:
        with world.together():
            world.check_same_step(step)
            log = None
            if world.is_main:
                folder.prepare(
                    out,
                    recipe,
                    trainer.device,
                    world.size,
                    plugins=build.plugins(trainer.task, recipe),
                    overwrite=overwrite,
                )
                trainer.duplicates.save(out)
                log = RunLog(
                    out,
                    recipe,
                    first_step=step,
                    total_steps=trainer.total_steps,
                    console=console,
                )
                stack.enter_context(log)
        trainer.wrap()
        stack.enter_context(stop_signals(trainer.request_stop, alone=world.size == 1))
        if log is not None:
            if resume:
                log.say(f"resuming after step {step} of {trainer.total_steps}")
            for line in intact.warnings:
                log.warn(line)
            for line in [*trainer.origin, *trainer.summary, *trainer.duplicates.lines]:
                log.say(line)
            for line in trainer.duplicates.warnings:
                log.warn(line)
        trainer.fit(log)
