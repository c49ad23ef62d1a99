"""The training loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from pacavit.data import Batch, Loader, describe_broken
from pacavit.engine import build, diagnostics, distributed, optim, system
from pacavit.engine.batchnorm import check_batch_norm
from pacavit.engine.distributed import World
from pacavit.engine.evaluate import measure
from pacavit.engine.run import folder
from pacavit.engine.run.log import RunLog
from pacavit.engine.run.timer import Timer
from pacavit.engine.weights import checkpoint
from pacavit.engine.weights.checkpoint import best_weights
from pacavit.engine.weights.format import CHECKPOINTS, WEIGHTS
from pacavit.engine.weights.load import naming_plugins
from pacavit.engine.weights.transfer import initialize
from pacavit.errors import DataError, Interrupted, PacavitError, RecipeError
from pacavit.recipes.schema import Recipe
from pacavit.tasks.base import Task
from pacavit.utils import files
from pacavit.utils.command import pacavit_command

__all__ = ["train"]

BROKEN_IMAGES = "broken_images.txt"
_TINY = 1e-12  # least weight of a batch, for one without labels


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
        ``out``, with ``weights.safetensors`` (the averaged weights), ``recipe.json``,
        ``environment.json``, ``metrics.jsonl``, ``checkpoints/`` and ``tensorboard/``; if images
        could not be read, ``broken_images.txt`` names them.

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
        say = _printer(progress and world.is_main)
        if finished:
            say(f"the run in {out} is finished; there is nothing to resume")
        else:
            if resume:
                stack.enter_context(naming_plugins(out))
            _train(recipe, out, world, resume=resume, overwrite=overwrite, progress=progress)
            say(f"trained model in {out}; next: {pacavit_command('evaluate', out)}")
    return out


def _train(
    recipe: Recipe, out: Path, world: World, *, resume: bool, overwrite: bool, progress: bool
) -> None:
    # Build everything before the folder is changed, so that a wrong recipe does not delete a run.
    with world.together():
        intact = checkpoint.Intact()
        if resume:
            intact = checkpoint.newest_intact(out / CHECKPOINTS, world)
        trainer = Trainer(recipe, out, world, fresh=intact.path is None)
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
                log = RunLog(
                    out,
                    first_step=step,
                    total_steps=trainer.total_steps,
                    epochs=recipe.train.epochs,
                    progress=progress,
                )
                stack.enter_context(log)
        trainer.wrap()
        stack.enter_context(_stop_signals(trainer))
        if log is not None:
            if resume:
                log.say(f"resuming after step {step} of {trainer.total_steps}")
            for line in intact.warnings:
                log.warn(line)
            for line in trainer.origin:
                log.say(line)
        trainer.fit(log)


class Trainer:
    """The objects of a run, and the training loop.

    Args:
        recipe: the complete run.
        out: the run folder; only ``fit`` writes to it.
        world: the processes of the run.
        fresh: start from the weights of ``model.init``, if set; otherwise the caller loads a
            checkpoint into ``state`` before ``fit``.

    Attributes:
        origin: lines to log first: the initial weights, if they are not random, and skipped files
            of the data.
    """

    def __init__(self, recipe: Recipe, out: Path, world: World, *, fresh: bool = True) -> None:
        self.recipe, self.config, self.out, self.world = recipe, recipe.train, out, world
        # Everything that can fail before the network is sharded, which synchronizes processes.
        with world.together():
            self.device = world.device(self.config.device)
            system.configure(self.device)
            source = build.data_source(recipe)

            # Check the recipe before the images are loaded, which may take a download.
            self.info = source.expected_info
            torch.manual_seed(self.config.seed)
            self.task = build.task(recipe, self.info).to(self.device)
            self.origin: list[str] = []
            if fresh and recipe.model.init is not None:
                self.origin = initialize(self.task.model, self.info, recipe.model.init)
            if source.note is not None:
                self.origin.append(source.note)
            build.check(self.task, recipe, self.info)
            check_batch_norm(self.task, recipe, self.info, world.size)
            ema = self.config.ema
            self.average = None if ema is None else optim.create_average(self.task, ema)
        self.best_task: Task = self.task if self.average is None else self.average.module
        self.sharded = world.size > 1 and self.config.parallel == "fsdp"
        if self.sharded:
            for task in dict.fromkeys((self.task, self.best_task)):
                distributed.shard(task.model, world, self.device)
            if self.average is not None:
                self.average.foreach = False  # cannot mix sharded weights and plain buffers
        self.optimizer = optim.create_optimizer(self.task.model, self.config)
        # Loading data must not change the generator, whose state continues from initialization.
        # Other processes get their own seeds, so that they do not drop the same paths.
        if not world.is_main:
            torch.manual_seed(self.config.seed + world.rank * 1_000_003)
        with torch.random.fork_rng(devices=[]), world.together(), world.first_on_machine():
            self.info = source.info
            self.images = build.image_set(source, "train", self.device)
            val_images = build.image_set(source, "val", self.device)
        self.val_loader = build.eval_loader(recipe, val_images, self.info, world.shard)
        loader = self._train_loader(0)
        self.num_chunks = _num_chunks(loader, self.config.micro_batch)
        self.steps_per_epoch = len(loader)
        self.total_steps = self.steps_per_epoch * self.config.epochs

        self.timer = Timer(self._step_costs(), self.steps_per_epoch)
        self.degenerations = diagnostics.DegenerationReport(self.config.epochs)

        # The module that runs a training step, which ``wrap`` replaces; all else uses the task.
        self.stepper: nn.Module = self.task
        self.run_step: Callable[[Batch], dict[str, Tensor]] = self.task
        self.progress = checkpoint.Progress()
        self.state = checkpoint.TrainState(
            model=self.task.model,
            average=None if self.average is None else self.best_task.model,
            optimizer=self.optimizer,
            progress=self.progress,
            recipe=recipe,
            info=self.info,
            world=world,
        )
        self.stop_requested = False
        self.num_broken = 0
        self.loss_names: tuple[str, ...] = ()
        self.unread: list[tuple[Tensor, float]] = []
        # Reading a loss waits for the GPU, so several losses are read at a time.
        self.read_every = 20 if self.device.type == "cuda" else 1

    def wrap(self) -> None:
        """Wrap the training step for several processes and compile it, as the recipe says."""
        if self.world.size > 1 and not self.sharded:
            self.stepper = distributed.replicate(self.task, self.device)
        self.run_step = torch.compile(self.stepper) if self.config.compile else self.stepper

    def fit(self, log: RunLog | None) -> None:
        """Train to the end, or until stopped by a signal, and write the final weights.

        Args:
            log: of the session; None in all processes but the first.
        """
        self.clock = self.saved_at = time.monotonic()
        self._report_broken(log)
        while self.progress.epoch < self.config.epochs:
            try:
                self._train_epoch(log)
                self._finish_epoch(log)
            except DataError:
                self._keep_steps(log)
                raise
        with self.world.together():
            newest = checkpoint.newest(self.out / CHECKPOINTS)
            if self.world.is_main and newest is not None:
                with files.reading(newest):
                    content = best_weights(newest).read_bytes()
                with files.writing(self.out / WEIGHTS):
                    files.replace_file(self.out / WEIGHTS, content)

    def _train_epoch(self, log: RunLog | None) -> None:
        progress, config = self.progress, self.config
        loader = self._train_loader(progress.epoch)
        self.task.train()
        self.timer.pause()
        for batch in loader.epoch(progress.epoch, start=progress.batch):
            lr = optim.lr_at(progress.step, self.total_steps, config)
            optim.set_lr(self.optimizer, lr)
            losses = self._train_step(batch)
            progress.step += 1
            progress.batch += 1
            if self.average is not None:
                self.average.update(self.task, step=progress.step)
            self.unread.append((losses, lr))
            last = progress.batch == len(loader)
            # Several processes can only stop together, when they exchange their losses.
            stop = self.stop_requested and self.world.size == 1
            if last or stop or len(self.unread) >= self.read_every:
                self._read_losses(log)
                # The end of an epoch saves a checkpoint anyway.
                if not last:
                    self._stop_or_save()

    def _keep_steps(self, log: RunLog | None) -> None:
        """Save the steps before images could not be read; stop if that was requested."""
        if self.world.size > 1:
            return  # processes can only save together, and the others do not know of the error
        if self.unread:
            self._read_losses(log)
        if self.stop_requested:
            self._stop_or_save()
        elif self.progress.batch:
            self._save()

    def _train_step(self, batch: Batch) -> Tensor:
        """One optimizer step.

        Returns:
            (losses,) of this process in the order of ``loss_names``, on the device; their mean over
            the processes is the loss of the whole batch.
        """
        if self.sharded:
            distributed.sync_buffers(self.task, self.world)
        chunks = batch.chunk(self.num_chunks)
        weights = torch.stack([self.task.loss_weight(chunk) for chunk in chunks])
        # Gradients are averaged over processes, and summed over chunks.
        factors = weights * self.world.size / self.world.sum(weights.sum()).clamp_min(_TINY)
        losses = [
            self._backward(chunk, factor, last=chunk is chunks[-1])
            for chunk, factor in zip(chunks, factors, strict=True)
        ]
        if self.config.clip is not None:
            clip_grad_norm_(self.task.parameters(), self.config.clip)
        self.optimizer.step()
        # On a CPU, keeping the memory of gradients is faster than allocating it in every step.
        self.optimizer.zero_grad(set_to_none=self.device.type != "cpu")
        self.loss_names = tuple(losses[0])
        return torch.stack(
            [torch.stack([chunk[name] for chunk in losses]).sum() for name in self.loss_names]
        )

    def _backward(self, chunk: Batch, factor: Tensor, *, last: bool) -> dict[str, Tensor]:
        """Accumulate the gradients of a chunk of a batch; returns its weighted losses."""
        with distributed.gradient_sync(self.stepper, self.task.model, last):
            with (
                system.autocast(self.device, self.config.precision),
                system.training_kernels(self.device),
            ):
                losses = self.run_step(chunk)
                loss = torch.stack(list(losses.values())).sum()
                loss = loss * factor.to(loss)
            loss.backward()
        return {name: value.detach() * factor.to(value) for name, value in losses.items()}

    def _finish_epoch(self, log: RunLog | None) -> None:
        """Validate, log and save."""
        progress = self.progress
        distributed.sync_buffers(self.best_task, self.world)
        with diagnostics.collect_statistics(self.best_task.model) as clusters:
            scores = measure(
                self.best_task,
                self.val_loader,
                self.device,
                precision=self.config.precision,
                world=self.world,
            ).scalars()
        progress.metrics = {f"val_{name}": value for name, value in scores.items()}
        score = scores[self.task.main_metric]
        progress.best = score if progress.best is None else max(score, progress.best)
        losses = progress.mean_losses()
        progress.start_epoch()
        self._count_time()
        self.timer.pause()
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            **losses,
            "lr": optim.lr_at(progress.step - 1, self.total_steps, self.config),
            "images_per_second": self.timer.end_epoch() * self.config.batch_size,
            "elapsed": progress.elapsed,
            **progress.metrics,
            **clusters.means(),
        }
        with self.world.together():
            if log is not None:
                log.epoch(row, self.task.main_metric, self.timer)
                for line in self.degenerations.lines(clusters.degenerate(), progress.epoch):
                    log.warn(line)
        self._report_broken(log)
        self._save()
        if progress.epoch < self.config.epochs:
            self._stop_or_save()

    def _read_losses(self, log: RunLog | None) -> None:
        """Fetch the latest losses from the device; PacavitError if one is not finite."""
        progress = self.progress
        first = progress.step - len(self.unread) + 1
        rows = self.world.mean(torch.stack([losses for losses, _ in self.unread]).cpu()).tolist()
        self.timer.lap(len(rows), progress.epoch)
        with self.world.together():
            for step, (row, (_, lr)) in enumerate(zip(rows, self.unread, strict=True), first):
                losses = dict(zip(self.loss_names, row, strict=True))
                loss = sum(row)
                if not math.isfinite(loss):
                    raise self._diverged(f"{_not_finite(losses)} in step {step}")
                progress.add_losses(loss, losses)
                if log is not None:
                    log.step(step, loss, lr, losses)
        self.unread.clear()
        if log is not None:
            log.show(progress.step, progress.epoch, loss, self.timer, self.config.batch_size)

    def _report_broken(self, log: RunLog | None) -> None:
        """Log the images that could not be read, if there are more of them than before."""
        broken = self.world.merge({**self.images.broken, **self.val_loader.images.broken})
        if len(broken) == self.num_broken:
            return
        self.num_broken = len(broken)
        with self.world.together():
            if log is not None:
                path = self.out / BROKEN_IMAGES
                # The file may list others from earlier sessions.
                with files.reading(path):
                    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
                lines = "".join(f"{line}\n" for line in dict.fromkeys([*known, *broken.values()]))
                with files.writing(path):
                    files.replace_file(path, lines.encode())
                log.say(f"{describe_broken(broken)}; {path} lists all")

    def _stop_or_save(self) -> None:
        """Save if it is time to, or if a stop was requested; then stop."""
        minutes = (time.monotonic() - self.saved_at) / 60
        due = self.world.is_main and minutes >= self.config.checkpoint_minutes
        stop, due = self.world.any(self.stop_requested, due)
        if not (stop or due):
            return
        if self.progress.batch:
            self._save()
        if stop:
            raise self.world.shared(
                Interrupted(
                    f"stopped after step {self.progress.step} of {self.total_steps}; "
                    "repeat the same command with --resume to continue"
                )
            )

    def _save(self) -> None:
        weights = (distributed.local(parameter) for parameter in self.task.parameters())
        (broken,) = self.world.any(not all(weight.isfinite().all() for weight in weights))
        if broken:
            what = f"the weights are not finite after step {self.progress.step}"
            raise self.world.shared(self._diverged(what))
        self._count_time()
        checkpoint.save(self.out / CHECKPOINTS, self.state, self.config.keep_checkpoints)
        self.saved_at = time.monotonic()
        self.timer.pause()

    def _diverged(self, what: str) -> PacavitError:
        newest = checkpoint.newest(self.out / CHECKPOINTS)
        kept = "there is no checkpoint yet" if newest is None else f"{newest} is intact"
        return PacavitError(
            f"{what}; {kept}; start a new run with a lower train.lr, or train.clip=1"
        )

    def _count_time(self) -> None:
        now = time.monotonic()
        self.progress.elapsed += now - self.clock
        self.clock = now

    def _train_loader(self, epoch: int) -> Loader:
        size = self._smaller_size(epoch)
        return build.train_loader(self.recipe, self.images, self.info, size, self.world.shard)

    def _smaller_size(self, epoch: int) -> int | None:
        """The image size of an epoch with smaller images; None for the task's own size."""
        done = epoch / self.config.epochs
        sizes = (size for until, size in self.config.progressive or () if done < until)
        return next(sizes, None)

    def _step_costs(self) -> list[float]:
        """Pixels per image in each epoch; the time of a step is about proportional to them."""
        own = self.recipe.task.image_size
        height, width = self.info.image_size if own is None else (own, own)
        smaller = [self._smaller_size(epoch) for epoch in range(self.config.epochs)]
        return [height * width if size is None else size**2 for size in smaller]


def _num_chunks(loader: Loader, micro_batch: int | None) -> int:
    """The number of chunks into which every process splits its shard of a batch.

    It is the same for all processes, because those of a sharded network compute together.

    Raises:
        RecipeError: the smallest shard has fewer images than chunks.
    """
    if micro_batch is None:
        return 1
    largest, smallest = loader.shard_sizes
    chunks = math.ceil(largest / micro_batch)
    if chunks > smallest:
        raise RecipeError(
            f"train.micro_batch {micro_batch} splits {largest} images into {chunks} chunks, "
            f"and one process has only {smallest}; raise it, or choose a train.batch_size that "
            "is a multiple of the number of processes"
        )
    return chunks


def _not_finite(losses: Mapping[str, float]) -> str:
    """A text with the losses that are not finite."""
    if len(losses) == 1:
        return f"the loss is {next(iter(losses.values()))}"
    wrong = [f"{name} {value}" for name, value in losses.items() if not math.isfinite(value)]
    return f"the losses are not finite: {', '.join(wrong) or 'their sum'}"


def _printer(shown: bool) -> Callable[[str], None]:
    """A function that prints plain lines, or does nothing."""
    console = Console(quiet=not shown)
    return lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _stop_signals(trainer: Trainer) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, finish the current step; a second Ctrl-C stops at once.

    With several processes, a second Ctrl-C is ignored, because torchrun forwards every signal; it
    ends them after a while.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def request(number: int, frame: FrameType | None) -> None:
        alone = trainer.world.size == 1
        if trainer.stop_requested and number == signal.SIGINT and alone:
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
