"""The training loop."""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from pacavit.data import Batch, Loader, describe_broken
from pacavit.engine import build, checkpoint, files, optim, system
from pacavit.engine.evaluate import measure
from pacavit.engine.log import RunLog
from pacavit.engine.transfer import initialise
from pacavit.engine.weights import CHECKPOINTS, WEIGHTS, save_weights
from pacavit.errors import CheckpointError, Interrupted, PacavitError, RecipeError
from pacavit.recipes import io
from pacavit.recipes.schema import Recipe
from pacavit.tasks.base import Task

__all__ = ["train"]

BROKEN_IMAGES = "broken_images.txt"


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Train a model and leave a run folder that holds all that is needed to use it.

    Args:
        recipe: the complete run.
        out: the run folder; must not exist yet, or be empty.
        resume: go on with the interrupted run in ``out``, as if it had not been interrupted; on
            its data folder, unless ``recipe`` names one. Of a finished run nothing changes.
        overwrite: replace the run in ``out``.
        progress: show progress on the terminal.

    Returns:
        ``out``, with ``weights.safetensors`` (the averaged weights), ``recipe.json``,
        ``environment.json``, ``metrics.jsonl``, ``checkpoints/`` and ``tensorboard/``; if images
        could not be read, ``broken_images.txt`` names them.

    Raises:
        CheckpointError: ``out`` is in the way, is no run to resume, was trained on other data, or
            cannot be written.
        RecipeError: the recipe does not fit, or is not the one of the run to resume.
        DataError: the images cannot be read.
        Interrupted: after Ctrl-C or SIGTERM; a checkpoint was written.
        PacavitError: the loss is no longer a number.
    """
    out = Path(out)
    _check_folder(out, resume=resume, overwrite=overwrite)
    if resume:
        recipe = _recipe_to_resume(recipe, out)
        if (out / WEIGHTS).is_file():
            finished = f"the run in {out} is finished; there is nothing to resume"
            Console(quiet=not progress).print(
                finished, highlight=False, markup=False, soft_wrap=True
            )
            return out
    newest = checkpoint.newest(out / CHECKPOINTS) if resume else None
    # Built before the folder is touched: a recipe that does not work costs nobody an old run.
    trainer = Trainer(recipe, out, fresh=newest is None)
    if newest is not None:
        checkpoint.load(newest, trainer.state)
    _prepare_folder(out, recipe, trainer.device, overwrite=overwrite)
    step = trainer.progress.step
    log = RunLog(
        out,
        first_step=step,
        total_steps=trainer.total_steps,
        epochs=recipe.train.epochs,
        progress=progress,
    )
    with log, _stop_signals(trainer):
        if resume:
            log.say(f"going on after step {step} of {trainer.total_steps}")
        for line in trainer.origin:
            log.say(line)
        trainer.fit(log)
    return out


class Trainer:
    """One run: its objects, and the loop that moves them on.

    Args:
        recipe: the complete run.
        out: the run folder; only written to by ``fit``.
        fresh: begin, from the weights of ``model.init`` if there are any; otherwise a checkpoint
            is loaded into ``state`` before ``fit``.

    Attributes:
        origin: lines that tell which weights the run begins with, if not with random ones.
    """

    def __init__(self, recipe: Recipe, out: Path, *, fresh: bool = True) -> None:
        self.recipe, self.config, self.out = recipe, recipe.train, out
        self.device = system.pick_device(self.config.device)
        system.configure(self.device)
        source = build.data_source(recipe.data)

        # Before the images, which may take a download: most mistakes in a recipe show here.
        self.info = source.expected_info
        torch.manual_seed(self.config.seed)
        self.task = build.task(recipe, len(self.info.class_names)).to(self.device)
        self.origin: list[str] = []
        if fresh and recipe.model.init is not None:
            self.origin = initialise(self.task.model, self.info, recipe.model.init)
        build.check(self.task, recipe, self.info)
        self.optimizer = optim.create_optimizer(self.task.model, self.config)
        # Training draws on from where the weights left the generator, whatever loading draws.
        with torch.random.fork_rng(devices=[]):
            self.info = source.info
            self.images = build.image_set(source, "train", self.device)
            val_images = build.image_set(source, "val", self.device)
        self.val_loader = build.eval_loader(recipe, val_images, self.info)
        self.steps_per_epoch = len(self._train_loader(0))
        self.total_steps = self.steps_per_epoch * self.config.epochs

        # What runs a training step; wrappers go here, and everything else keeps the task itself.
        self.stepper = torch.compile(self.task) if self.config.compile else self.task
        ema = self.config.ema
        self.average = None if ema is None else optim.create_average(self.task, ema)
        self.best_task: Task = self.task if self.average is None else self.average.module
        self.progress = checkpoint.Progress()
        self.state = checkpoint.TrainState(
            model=self.task.model,
            average=None if self.average is None else self.best_task.model,
            optimizer=self.optimizer,
            progress=self.progress,
            recipe=recipe,
            info=self.info,
        )
        self.stop_requested = False
        self.num_broken = 0
        self.unread: list[tuple[Tensor, float]] = []
        # Reading a loss waits for a GPU, so there losses are read many at a time.
        self.read_every = 20 if self.device.type == "cuda" else 1

    def fit(self, log: RunLog) -> None:
        """Train to the end, or until asked to stop, and write the final weights."""
        self.clock = self.saved_at = time.monotonic()
        self._report_broken(log)
        while self.progress.epoch < self.config.epochs:
            self._train_epoch(log)
            self._finish_epoch(log)
        save_weights(
            self.out / WEIGHTS,
            self.best_task.model,
            self.recipe,
            self.info,
            self.progress.metrics,
        )

    def _train_epoch(self, log: RunLog) -> None:
        progress, config = self.progress, self.config
        loader = self._train_loader(progress.epoch)
        self.task.train()
        self.epoch_start = time.monotonic(), progress.batch
        for batch in loader.epoch(progress.epoch, start=progress.batch):
            lr = optim.lr_at(progress.step, self.total_steps, config)
            optim.set_lr(self.optimizer, lr)
            loss = self._train_step(batch)
            progress.step += 1
            progress.batch += 1
            if self.average is not None:
                self.average.update(self.task, step=progress.step)
            self.unread.append((loss, lr))
            last = progress.batch == len(loader)
            if last or len(self.unread) >= self.read_every:
                self._read_losses(log)
            # The end of an epoch writes its own checkpoint.
            if not last:
                self._stop_or_save()

    def _train_step(self, batch: Batch) -> Tensor:
        """One optimiser step; returns the loss, still on the device."""
        with (
            system.autocast(self.device, self.config.precision),
            system.training_kernels(self.device),
        ):
            losses: dict[str, Tensor] = self.stepper(batch)
            loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        if self.config.clip is not None:
            clip_grad_norm_(self.task.parameters(), self.config.clip)
        self.optimizer.step()
        # Keeping the memory of gradients saves a CPU from asking for it anew in every step.
        self.optimizer.zero_grad(set_to_none=self.device.type != "cpu")
        return loss.detach()

    def _finish_epoch(self, log: RunLog) -> None:
        """Measure, record and save."""
        progress = self.progress
        started, first_batch = self.epoch_start
        seconds = time.monotonic() - started
        images = (progress.batch - first_batch) * self.config.batch_size
        scores = measure(
            self.best_task, self.val_loader, self.device, precision=self.config.precision
        ).scalars()
        progress.metrics = {f"val_{name}": value for name, value in scores.items()}
        score = scores[self.task.main_metric]
        progress.best = score if progress.best is None else max(score, progress.best)
        loss = progress.loss_sum / progress.batch
        progress.epoch, progress.batch, progress.loss_sum = progress.epoch + 1, 0, 0.0
        self._count_time()
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            "train_loss": loss,
            "lr": optim.lr_at(progress.step - 1, self.total_steps, self.config),
            "images_per_second": images / seconds,
            "elapsed": progress.elapsed,
            **progress.metrics,
        }
        log.epoch(row, self.task.main_metric)
        self._report_broken(log)
        self._save()
        if progress.epoch < self.config.epochs:
            self._stop_or_save()

    def _read_losses(self, log: RunLog) -> None:
        """Fetch the latest losses from the device; none is kept that is not a number."""
        progress = self.progress
        first = progress.step - len(self.unread) + 1
        losses = torch.stack([loss for loss, _ in self.unread]).tolist()
        for step, (loss, (_, lr)) in enumerate(zip(losses, self.unread, strict=True), first):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} in step {step}")
            progress.loss_sum += loss
            log.step(step, progress.epoch, loss, lr, self.config.batch_size)
        self.unread.clear()

    def _report_broken(self, log: RunLog) -> None:
        """Tell of images that could not be read, if there are more of them than before."""
        broken = {**self.images.broken, **self.val_loader.images.broken}
        if len(broken) > self.num_broken:
            self.num_broken = len(broken)
            path = self.out / BROKEN_IMAGES
            with files.writing(path):
                files.replace_file(path, "".join(f"{line}\n" for line in broken.values()).encode())
            log.say(f"{describe_broken(broken)}; {path} names all")

    def _stop_or_save(self) -> None:
        """Save if it is time to, or if the run shall stop; then stop."""
        minutes = (time.monotonic() - self.saved_at) / 60
        if not (self.stop_requested or minutes >= self.config.checkpoint_minutes):
            return
        if self.progress.batch:
            self._save()
        if self.stop_requested:
            raise Interrupted(
                f"stopped after step {self.progress.step} of {self.total_steps}; "
                "repeat the same command with --resume to go on"
            )

    def _save(self) -> None:
        if not all(parameter.isfinite().all() for parameter in self.task.parameters()):
            raise self._diverged(f"the weights are not finite after step {self.progress.step}")
        self._count_time()
        checkpoint.save(self.out / CHECKPOINTS, self.state, self.config.keep_checkpoints)
        self.saved_at = time.monotonic()

    def _diverged(self, what: str) -> PacavitError:
        newest = checkpoint.newest(self.out / CHECKPOINTS)
        kept = "there is no checkpoint yet" if newest is None else f"{newest} is intact"
        return PacavitError(f"{what}; {kept}; try a lower train.lr, or train.clip = 1.0")

    def _count_time(self) -> None:
        now = time.monotonic()
        self.progress.elapsed += now - self.clock
        self.clock = now

    def _train_loader(self, epoch: int) -> Loader:
        done = epoch / self.config.epochs
        sizes = (size for until, size in self.config.progressive or () if done < until)
        return build.train_loader(self.recipe, self.images, self.info, next(sizes, None))


def _prepare_folder(out: Path, recipe: Recipe, device: torch.device, *, overwrite: bool) -> None:
    """Make the run folder, an old run removed where asked for, and write what the run is."""
    with files.writing(out):
        if overwrite and out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        io.dump(recipe, out / io.RECIPE_FILE)
        # The first session's, which made the random weights, stays.
        if not (out / system.ENVIRONMENT).exists():
            facts = json.dumps(system.environment(device), indent=2)
            files.replace_file(out / system.ENVIRONMENT, facts.encode())


def _check_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to train into a folder that holds anything but the run to go on with or to replace."""
    if resume and overwrite:
        raise CheckpointError("choose one of resume and overwrite, not both")
    is_run = (out / io.RECIPE_FILE).is_file()
    if resume:
        if not is_run:
            raise CheckpointError(f"no run to resume in {out}: it holds no {io.RECIPE_FILE}")
    elif out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file; choose another folder")
    elif out.is_dir() and any(out.iterdir()):
        if not is_run:
            raise CheckpointError(
                f"{out} holds other files than a run's and is left alone; choose another folder"
            )
        if not overwrite:
            raise CheckpointError(
                f"{out} holds a run; give --resume, --overwrite or another folder"
            )


def _recipe_to_resume(recipe: Recipe, out: Path) -> Recipe:
    """The recipe, which must be that of the run in ``out``; names the run's data if it names none.

    Raises:
        RecipeError: the run has another recipe.
    """
    own = io.load(out)
    changed = io.difference(own, recipe)
    if changed is not None:
        raise RecipeError(
            f"the run in {out} cannot go on with another recipe: {changed}; "
            "repeat its settings, or start a new run in another folder"
        )
    return own if recipe.data.root is None else recipe


@contextmanager
def _stop_signals(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C and SIGTERM let the step under way finish; a second Ctrl-C stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def request(number: int, frame: FrameType | None) -> None:
        if trainer.stop_requested and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        trainer.stop_requested = True

    previous = {
        number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
