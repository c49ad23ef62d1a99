"""The objects of a run, and the training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from pacavit.data import SPLITS, Batch, DataInfo, ImageSet, Loader, Split, describe_broken
from pacavit.engine import build, diagnostics, distributed, optim, system
from pacavit.engine.batchnorm import check_batch_norm
from pacavit.engine.calibration import calibrate
from pacavit.engine.class_weights import named_weights, weigh_classes
from pacavit.engine.distillation import load_distiller
from pacavit.engine.distributed import World
from pacavit.engine.duplicates import FoundDuplicates, check_duplicates
from pacavit.engine.evaluate import measure
from pacavit.engine.freezing import Freezing
from pacavit.engine.run.log import RunLog, read_metrics
from pacavit.engine.run.loggers import check_loggers
from pacavit.engine.run.summary import describe_data, describe_training
from pacavit.engine.run.timer import Timer
from pacavit.engine.selection import describe_outcome, has_ended, is_better
from pacavit.engine.weights import checkpoint
from pacavit.engine.weights.checkpoint import best_weights
from pacavit.engine.weights.foreign import normalization
from pacavit.engine.weights.format import (
    CHECKPOINTS,
    WEIGHTS,
    calibrated_bytes,
    load_state,
    weights_bytes,
)
from pacavit.engine.weights.transfer import initialize
from pacavit.engine.whitening import check_whitening, whiten
from pacavit.errors import DataError, Interrupted, PacavitError
from pacavit.recipes.schema import Recipe
from pacavit.tasks import ImageClassifier, Task
from pacavit.tasks.classification import Calibration
from pacavit.utils import files
from pacavit.utils.progress import announce

__all__ = ["BROKEN_IMAGES", "Trainer"]

BROKEN_IMAGES = "broken_images.txt"
_TINY = 1e-12  # least weight of a batch, for one without labels


class Trainer:
    """The objects of a run, and the training loop.

    Args:
        recipe: the complete run.
        out: the run folder; only ``fit`` writes to it.
        world: the processes of the run.
        trained_on: data facts of the checkpoint that the caller loads into ``state`` before
            ``fit``; None: start, from the weights of ``model.init`` if set.

    Attributes:
        origin: lines to log first: the initial weights, if they are not random, and skipped files
            of the data.
        summary: lines about the data, the network and the steps.
        duplicates: images in two splits; the first process looks for them when a run starts.
    """

    def __init__(
        self, recipe: Recipe, out: Path, world: World, *, trained_on: DataInfo | None = None
    ) -> None:
        self.recipe, self.config, self.out, self.world = recipe, recipe.train, out, world
        # Everything that can fail before the network is sharded, which synchronizes processes.
        with world.together():
            self.device = world.device(self.config.device)
            system.configure(self.device)
            check_loggers(self.config.loggers)
            announce(f"reading {recipe.data.name}")
            source = build.data_source(recipe)

            # Check the recipe before the images are loaded, which may take a download.
            # Weights of other libraries expect images as they were trained on.
            normalize = None
            if recipe.model.init is not None:
                normalize = (
                    (trained_on.mean, trained_on.std)
                    if trained_on is not None
                    else normalization(recipe.model.init, recipe.model.name)
                )
            self.info = source.expected_info.normalized_by(normalize)
            torch.manual_seed(self.config.seed)
            self.task = build.task(recipe, self.info).to(self.device)
            self.origin: list[str] = []
            if trained_on is None and recipe.model.init is not None:
                self.origin = initialize(self.task.model, self.info, recipe.model.init)
            self.origin += [
                line for line in (source.note, build.enlarged(recipe, self.info)) if line
            ]
            build.check(self.task, recipe, self.info)
            if isinstance(self.config.class_weights, Mapping):
                named_weights(self.config.class_weights, self.info)
            check_batch_norm(self.task, recipe, self.info, world.size)
            self.freezing = Freezing(self.task.model, recipe)
            if self.config.whitening is not None:
                check_whitening(self.task.model)
            ema = self.config.ema
            self.average = None if ema is None else optim.create_average(self.task, ema)
            distiller = load_distiller(recipe, self.info, self.device)
            if distiller is not None:  # after the average, which would copy the teacher
                assert isinstance(self.task, ImageClassifier)
                self.task.distiller = distiller
        num_parameters = sum(parameter.numel() for parameter in self.task.parameters())
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
            self.info = source.info.normalized_by(normalize)
            self.images = build.image_set(source, "train", self.device)
            val_images = build.image_set(source, "val", self.device)
            for images in (self.images, val_images):
                self.task.check_data(images)
        self.val_loader = build.eval_loader(recipe, val_images, self.info, world.shard)
        loader = self._train_loader(0)
        self.num_chunks = build.num_chunks(loader, self.config.micro_batch)
        self.steps_per_epoch = len(loader)
        self.total_steps = self.steps_per_epoch * self.config.epochs
        splits: dict[Split, ImageSet] = {"train": self.images, "val": val_images}
        self.summary = [
            *describe_data(recipe, self.info, splits, {s: source.files(s) for s in SPLITS}),
            *describe_training(recipe, num_parameters, self.device, len(loader), world.size),
        ]
        self.duplicates = FoundDuplicates()
        with world.together():
            self.summary += weigh_classes(self.task, self.config, self.info, self.images)
            if trained_on is None and self.config.whitening is not None:
                models = [task.model for task in dict.fromkeys((self.task, self.best_task))]
                self.summary.append(whiten(models, recipe, self.images, self.info))
            self.summary += self.freezing.lines
            if trained_on is None and world.is_main:
                self.duplicates = check_duplicates(recipe.data, source, splits)
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
        self.read_every = 1 if self.device.type == "cpu" else 20

    def wrap(self) -> None:
        """Wrap the training step for several processes and compile it, as the recipe says."""
        if self.world.size > 1 and not self.sharded:
            self.stepper = distributed.replicate(self.task, self.device)
        self.run_step = torch.compile(self.stepper) if self.config.compile else self.stepper

    def request_stop(self) -> bool:
        """Stop after the current step; returns whether that was requested before."""
        before, self.stop_requested = self.stop_requested, True
        return before

    def fit(self, log: RunLog | None) -> None:
        """Train to the end, or until stopped by a signal, and write the final weights.

        Args:
            log: of the session; None in all processes but the first.
        """
        self.clock = self.saved_at = time.monotonic()
        self.cpu_clock = time.process_time()
        self._report_broken(log)
        while not self._has_ended():
            try:
                self._train_epoch(log)
                self._finish_epoch(log)
            except DataError:
                self._keep_steps(log)
                raise
        calibration = self._calibrate(log)
        with self.world.together():
            newest = checkpoint.newest(self.out / CHECKPOINTS)
            if self.world.is_main and newest is not None:
                with files.reading(newest):
                    content = calibrated_bytes(best_weights(newest), calibration)
                with files.writing(self.out / WEIGHTS):
                    files.replace_file(self.out / WEIGHTS, content)
            if log is not None:
                rows = read_metrics(self.out)
                for line in describe_outcome(rows, self.task.main_metric, self.config):
                    log.say(line)

    def _has_ended(self) -> bool:
        return has_ended(self.progress.epoch, self.progress.best_epoch, self.config)

    def _calibrate(self, log: RunLog | None) -> Calibration | None:
        """Fit the temperature of the final weights, if the recipe says so."""
        if not self.best_task.calibrates:
            return None
        newest = checkpoint.newest(self.out / CHECKPOINTS)
        if self.config.keep == "best" and newest is not None:
            with self.world.together():
                tensors, _ = files.read_tensors(best_weights(newest))
                load_state(self.best_task.model, tensors, newest)
        found = calibrate(
            self.best_task,
            self.val_loader,
            len(self.info.class_names),
            device=self.device,
            world=self.world,
        )
        if log is not None:
            log.say(str(found))
        return found if isinstance(found, Calibration) else None

    def _train_epoch(self, log: RunLog | None) -> None:
        progress, config = self.progress, self.config
        loader = self._train_loader(progress.epoch)
        if self.freezing.apply(progress.epoch):
            self.wrap()  # wrappers for several processes expect gradients of what learns
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
        losses = progress.mean_losses()
        progress.start_epoch()
        self._select(scores[self.task.main_metric])
        self._count_time()
        self.timer.pause()
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            **losses,
            "lr": optim.lr_at(progress.step - 1, self.total_steps, self.config),
            "images_per_second": self.timer.end_epoch() * self.config.batch_size,
            "elapsed": progress.elapsed,
            "elapsed_cpu": progress.elapsed_cpu,
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
        if not self._has_ended():
            self._stop_or_save()

    def _select(self, score: float) -> None:
        """Note the score of a finished epoch, and its weights if they are the best so far."""
        progress, state = self.progress, self.state
        if not is_better(score, progress.best):
            return
        progress.best, progress.best_epoch = score, progress.epoch
        if self.config.keep == "best" and (self.world.is_main or self.sharded):
            state.best = weights_bytes(
                self.best_task.model, self.recipe, self.info, progress.metrics
            )

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
        now, cpu = time.monotonic(), time.process_time()
        self.progress.elapsed += now - self.clock
        self.progress.elapsed_cpu += cpu - self.cpu_clock
        self.clock, self.cpu_clock = now, cpu

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
        task, stored = self.recipe.task, self.info.image_size
        epochs = range(self.config.epochs)
        return [math.prod(task.input_size(stored, self._smaller_size(epoch))) for epoch in epochs]


def _not_finite(losses: Mapping[str, float]) -> str:
    """A text with the losses that are not finite."""
    if len(losses) == 1:
        return f"the loss is {next(iter(losses.values()))}"
    wrong = [f"{name} {value}" for name, value in losses.items() if not math.isfinite(value)]
    return f"the losses are not finite: {', '.join(wrong) or 'their sum'}"
