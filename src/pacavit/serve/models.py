"""The models of a server: loading, prediction, and reloading of weights that changed."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from pacavit.data import Batch, Placement, Sample, decode_image
from pacavit.data.placement import Region
from pacavit.engine.precision import for_prediction
from pacavit.engine.predictor import Predictor
from pacavit.engine.system import pick_device
from pacavit.engine.weights.format import CHECKPOINTS
from pacavit.engine.weights.load import load_model, weights_digest
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import CheckpointError, DataError, PacavitError
from pacavit.serve.batching import Batcher
from pacavit.serve.metrics import Metrics
from pacavit.serve.options import ServeOptions
from pacavit.serve.refusals import Refusal, overloaded
from pacavit.tasks import ImageClassifier
from pacavit.tasks.dense import DenseConfig
from pacavit.utils.text import one_line, shown

__all__ = ["Job", "Models", "ServedModel", "Weights", "model_sources"]

Returned = TypeVar("Returned")
Stamp: TypeAlias = tuple[tuple[str, int, int], ...]

_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_VERSION = 12  # digits of the SHA-256
_WATCHED = frozenset({".safetensors", ".json", ".onnx", ".xml", ".bin", ".pt2"})
_EXPLANATIONS = 4  # that wait or are made, per model
_log = logging.getLogger("pacavit.serve")


def model_sources(models: Sequence[str]) -> dict[str, str]:
    """The sources of models by the names that they are served under.

    Args:
        models: run folders, files or packaged names, each perhaps with its name: ``NAME=SOURCE``.

    Raises:
        PacavitError: there are none, or a name is taken or cannot be part of a URL.
    """
    found: dict[str, str] = {}
    for text in models:
        given, sign, source = text.partition("=")
        if not sign or not _NAME.fullmatch(given):
            given, source = "", text
        name = given or _own_name(source)
        if not _NAME.fullmatch(name):
            raise PacavitError(
                f"{shown(source)!r} cannot be served under the name {shown(name)!r}; give one of "
                f"letters, digits, dots, dashes and underscores, such as NAME={shown(source)}"
            )
        if name in found:
            raise PacavitError(
                f"two models have the name {name!r}; give them names, such as NAME={shown(source)}"
            )
        found[name] = source
    if not found:
        raise PacavitError("give at least one model: run folder, weights file or packaged name")
    return found


def _own_name(source: str) -> str:
    if source in packaged_names():
        return source
    path = Path(os.path.abspath(source))  # noqa: PTH100 (keeps the name of a link)
    return path.name if path.is_dir() else path.stem


@dataclass(frozen=True, eq=False)
class Job:
    """An image on its way through the network.

    Attributes:
        weights: for which it was prepared, and which predict it.
        name: of the image in messages.
        fitted: as ``Predictor.fit`` returns it; None if the image is normalized already.
        normalized: (3, height, width); None for fitted images.
    """

    weights: Weights
    name: str
    fitted: tuple[Sample, Placement] | None = None
    normalized: Tensor | None = None

    @property
    def key(self) -> Hashable:
        """Jobs of the same key may share a batch."""
        return id(self.weights), self.fitted is None


class Weights:
    """One version of the weights of a model.

    Args:
        source: run folder, file or packaged name.
        options: of the server.

    Attributes:
        predictor: of the model, optimized.
        model: as it was trained, which explanations need.
        version: the first digits of the SHA-256 of the weights.

    Raises:
        PacavitError: they cannot be loaded.
    """

    def __init__(self, source: str, options: ServeOptions) -> None:
        device = pick_device(options.device, option="--device")
        self.model = load_model(source)
        fast = for_prediction(self.model, "fp32")
        self.predictor = Predictor(fast, device, batch_size=options.max_batch)
        self.version = weights_digest(self.model)[:_VERSION]
        self._max_pixels = options.image_pixels

    def decoded(self, data: bytes, name: str, *, still: bool = False) -> Tensor:
        """An image file -> (3, H, W) uint8.

        Raises:
            DataError: it is no image, broken, or beyond the limits.
        """
        return decode_image(data, name, max_pixels=self._max_pixels, still=still)

    def job(self, image: Tensor, name: str) -> Job:
        """The job of an image (3, H, W) uint8.

        Raises:
            DataError: it is beyond the limits, or would be once it is resized for the network.
        """
        size = (image.shape[1], image.shape[2])
        config = self.model.task.config
        resized = config.resized(size) if isinstance(config, DenseConfig) else size
        for height, width in (size, resized):
            if height * width > self._max_pixels:
                after = "" if (height, width) == size else ", once resized for the network"
                raise DataError(
                    f"{name} has {width} x {height} pixels{after}, more than the limit of "
                    f"{self._max_pixels / 1e6:g} million; scale it down"
                )
        return Job(self, name, self.predictor.reader.fit(image))

    def normalized_job(self, image: Tensor, name: str) -> Job:
        """The job of an image (3, height, width) that the preprocessing was applied to.

        Raises:
            DataError: the model has no single input size, the image another one, or it has numbers
                that are not finite.
        """
        size = self.input_size
        if size is None or tuple(image.shape[1:]) != size:
            need = "images of pixels" if size is None else f"{size[0]} x {size[1]} (height x width)"
            raise DataError(
                f"{name} is {image.shape[1]} x {image.shape[2]} normalized, and the model needs "
                f"{need}; send the pixels as 'images', and they are resized and normalized"
            )
        if not bool(image.isfinite().all()):
            raise DataError(f"{name} has values that are not finite numbers")
        return Job(self, name, normalized=image)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) of the network's input; None if it depends on the image."""
        if not isinstance(self.model.task, ImageClassifier):
            return None
        _, placement = self.predictor.reader.fit(self.blank)
        return placement.input_size

    @property
    def blank(self) -> Tensor:
        """A black image of the size of the stored ones: (3, H, W) uint8."""
        return torch.zeros(3, *self.model.info.image_size, dtype=torch.uint8)

    def records(self, jobs: Sequence[Job]) -> Sequence[Any]:
        """The predictions for jobs of these weights and one key.

        Raises:
            Refusal: the network returns numbers that are not finite.
        """
        fitted = [job.fitted for job in jobs if job.fitted is not None]
        if fitted:
            batch = self.predictor.reader.collate(fitted).to(self.predictor.device)
        else:
            images = torch.stack([job.normalized for job in jobs if job.normalized is not None])
            size = (images.shape[2], images.shape[3])
            placement = Placement(size, Region(0, 0, *size), size)
            images = images.contiguous(memory_format=torch.channels_last)
            batch = Batch.unlabeled(images, [placement] * len(jobs)).to(self.predictor.device)
        try:
            return self.predictor.records(batch)
        except CheckpointError:
            status = 500 if fitted else 400
            raise Refusal(
                status, f"the network returns values for {jobs[0].name} that are not numbers"
            ) from None

    def public(self, text: str) -> str:
        """A message without the paths of the weights on this machine."""
        path = self.model.path
        for secret in (path, path.parent):
            for form in {str(secret), str(secret.absolute()), shown(secret)}:
                if os.sep in form[1:]:
                    text = text.replace(form, "the model")
        return text


class ServedModel:
    """A model under its name: its present weights, its queue, and the watch over its source.

    Args:
        name: in URLs.
        source: run folder, file or packaged name.
        options: of the server.
        metrics: that are updated.
        pool: for decoding and loading.

    Attributes:
        weights: the present ones; None until they have answered once.
    """

    def __init__(
        self,
        name: str,
        source: str,
        options: ServeOptions,
        metrics: Metrics,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.name, self.source, self.options, self.metrics = name, source, options, metrics
        self.weights: Weights | None = None
        self._pool = pool
        self._explaining = 0
        self._stamp: Stamp | None = None
        self.batcher: Batcher[Job, Any] = Batcher(
            lambda jobs: jobs[0].weights.records(jobs),
            key=lambda job: job.key,
            max_batch=options.max_batch,
            max_delay=options.max_delay / 1000,
            capacity=options.queue,
            observe=self._observe,
        )
        metrics.ready.labels(name).set(0)
        metrics.in_work.labels(name).set(0)

    @property
    def present(self) -> Weights:
        """The present weights.

        Raises:
            Refusal: they have not answered yet.
        """
        if self.weights is None:
            raise overloaded(f"the model {self.name!r} is being loaded; try again later", 2)
        return self.weights

    async def load(self) -> None:
        """Load the weights, and let them answer once; the queue must be running.

        Raises:
            PacavitError: they cannot be loaded, or do not answer.
        """
        self._stamp = await self._look()  # before, so that no later change is missed
        self.weights = await self._answering()
        self.metrics.ready.labels(self.name).set(1)

    async def watch(self) -> None:
        """Load the weights again whenever they change, until it is cancelled."""
        if not self.options.reload or self._stamp is None:
            return
        seen: Stamp | None = self._stamp
        while True:
            await asyncio.sleep(self.options.reload)
            now = await self._look()
            if now == seen:
                continue
            await asyncio.sleep(min(self.options.reload, 1))
            if now != await self._look():
                continue  # somebody is still writing
            seen = now
            await self._reload()

    @contextmanager
    def reserve(self, number: int) -> Iterator[None]:
        """Keep room in the queue for images from before they are decoded until they are predicted.

        Raises:
            Refusal: there is no room, or never for so many.
        """
        if number > min(self.options.max_images, self.options.queue):
            most = min(self.options.max_images, self.options.queue)
            raise Refusal(413, f"{number} images in one request are more than the limit of {most}")
        with self.batcher.reserve(number):
            in_work = self.metrics.in_work.labels(self.name)
            in_work.inc(number)
            try:
                yield
            finally:
                in_work.dec(number)

    async def in_pool(self, function: Callable[[], Returned]) -> Returned:
        """Call a function in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def predict(self, jobs: Sequence[Job]) -> list[Any]:
        """The records of jobs for which there is room in the queue."""
        records = await self.batcher.submit(jobs)
        self.metrics.images.labels(self.name).inc(len(jobs))
        return records

    async def explain(self, function: Callable[[], Returned]) -> Returned:
        """Call a function that registers hooks in the network, while no batch is computed.

        Raises:
            Refusal: too many explanations wait already.
        """
        if self._explaining >= _EXPLANATIONS:
            raise overloaded("too many explanations are being made; try again later", 5)
        self._explaining += 1
        try:
            return await self.batcher.call(function)
        finally:
            self._explaining -= 1

    async def _look(self) -> Stamp | None:
        """The stamp of the source; file systems may take long to answer."""
        return await self.in_pool(partial(_stamp, self.source))

    async def _answering(self) -> Weights:
        """New weights that have answered once."""
        weights = await self.in_pool(partial(Weights, self.source, self.options))
        try:
            job = await self.in_pool(lambda: weights.job(weights.blank, "a black image"))
            await self.batcher.submit([job])
        except Refusal as refusal:
            raise CheckpointError(
                f"{shown(self.source)} cannot be served: {refusal.message}"
            ) from refusal
        return weights

    async def _reload(self) -> None:
        before = self.present
        try:
            weights = await self._answering()
            if weights.version == before.version:
                return
            _check_same_answers(before, weights)
        except Exception as error:
            self.metrics.reloads.labels(self.name, "failed").inc()
            _log.warning(
                "the changed weights of %s are not used, the old ones stay (version %s): %s",
                self.name,
                before.version,
                one_line(error),
            )
            return
        self.weights = weights
        self.metrics.reloads.labels(self.name, "loaded").inc()
        _log.warning("%s has new weights, version %s", self.name, weights.version)

    def _observe(self, size: int, seconds: float) -> None:
        self.metrics.batches.labels(self.name).observe(size)
        self.metrics.network_seconds.labels(self.name).observe(seconds)


class Models:
    """All models of a server.

    Args:
        sources: by name, as ``model_sources`` returns them.
        options: of the server.
        metrics: that are updated.
    """

    def __init__(self, sources: Mapping[str, str], options: ServeOptions, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="images")
        self._served = {
            name: ServedModel(name, source, options, metrics, self._pool)
            for name, source in sources.items()
        }

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._served.values())

    @property
    def ready(self) -> bool:
        """Whether every model has answered once."""
        return all(model.weights is not None for model in self)

    def find(self, name: str | None) -> ServedModel:
        """A model by its name; without one, the only model.

        Raises:
            Refusal: there is no such model, or several and no name.
        """
        names = ", ".join(self._served)
        if name is None:
            if len(self._served) > 1:
                raise Refusal(400, f"name a model: ?model=NAME with one of {names}")
            (name,) = self._served
        if name not in self._served:
            raise Refusal(404, f"there is no model {name!r}; there are {names}")
        return self._served[name]

    async def run(self, *, loaded: Callable[[BaseException | None], None]) -> None:
        """Load all models, then compute and watch until it is cancelled.

        Args:
            loaded: is called once, with None when all have answered, or with the error.
        """
        async with asyncio.TaskGroup() as tasks:
            queues = [tasks.create_task(model.batcher.run()) for model in self]
            try:
                for model in self:
                    await model.load()
            except Exception as error:
                loaded(error)
                for queue in queues:
                    queue.cancel()
                return
            loaded(None)
            for model in self:
                tasks.create_task(model.watch())

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _check_same_answers(before: Weights, after: Weights) -> None:
    """Raise CheckpointError if new weights are for another task or other classes."""
    for what, old, new in (
        ("task", before.model.recipe.task.name, after.model.recipe.task.name),
        ("classes", before.model.info.class_names, after.model.info.class_names),
    ):
        if old != new:
            raise CheckpointError(f"their {what} differ; start the server anew to serve them")


def _stamp(source: str) -> Stamp | None:
    """Names, sizes and times of the files that weights come from; None if they cannot change."""
    if source in packaged_names():
        return None
    path = Path(source)
    try:
        if not path.is_dir():
            found = [path]
        else:
            found = [each for each in path.iterdir() if each.suffix in _WATCHED]
            if (path / CHECKPOINTS).is_dir():
                found += (path / CHECKPOINTS).iterdir()
        stats = [(each.name, each.stat()) for each in found]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats))
