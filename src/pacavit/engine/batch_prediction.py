"""Predict many images: shards of a job, and worker processes that read ahead."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pacavit.data import available_cores
from pacavit.data.workers import map_in_workers
from pacavit.engine.ensemble import EnsemblePredictor, EnsembleReader
from pacavit.engine.inputs import Inputs
from pacavit.engine.predictor import InputReader, Predicted, Predictor
from pacavit.errors import PacavitError

__all__ = ["Shard", "launched_device", "parse_shard", "stream_inputs"]

_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
_LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))  # torchrun, Slurm
_FEW = 256  # up to this many images are read faster without worker processes


@dataclass(frozen=True)
class Shard:
    """One of several equal shards of a job, in the order of the images.

    Attributes:
        index: 0 to ``count`` - 1.
        count: number of shards.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def rows(self, num_images: int, batch_size: int) -> range:
        """The positions of its images; whole batches, so that those are the same in all jobs."""
        small, num_large = divmod(-(-num_images // batch_size), self.count)
        first = self.index * small + min(self.index, num_large)
        last = first + small + (self.index < num_large)
        return range(min(first * batch_size, num_images), min(last * batch_size, num_images))


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard of "0/4" (the first of four), or of the launcher's variables for "auto".

    Args:
        text: index and number of shards, or "auto".
        environment: with RANK and WORLD_SIZE of torchrun, or SLURM_PROCID and SLURM_NTASKS.

    Raises:
        PacavitError: it is no shard, or the variables are missing.
    """
    where = f"--shard {text}"
    if text == "auto":
        names = next((pair for pair in _LAUNCHERS if set(pair) <= environment.keys()), None)
        if names is None:
            raise PacavitError(
                "--shard auto takes the shard from RANK and WORLD_SIZE, which torchrun sets, or "
                "from SLURM_PROCID and SLURM_NTASKS, which Slurm's srun sets; there are none: give "
                "--shard 0/4 for the first of four"
            )
        text = "/".join(environment[name] for name in names)
        where = f"--shard auto: {' / '.join(names)} = {text}"
    found = _SHARD.fullmatch(text)
    if found is None:
        raise PacavitError(f"{where} is no shard; give index/number, as in 0/4 for the first of 4")
    shard = Shard(int(found[1]), int(found[2]))
    if shard.index >= shard.count:
        raise PacavitError(
            f"{where}: there is no such shard; the shards of {shard.count} are 0/{shard.count} to "
            f"{shard.count - 1}/{shard.count}"
            if shard.count
            else f"{where}: the number of shards must be at least 1"
        )
    return shard


def launched_device(environment: Mapping[str, str] = os.environ) -> str:
    """The GPU of this process among those of a launcher on its machine; "auto" without GPUs.

    Args:
        environment: with LOCAL_RANK of torchrun, or SLURM_LOCALID.
    """
    number = environment.get("LOCAL_RANK", environment.get("SLURM_LOCALID", ""))
    if not number.isdecimal() or not torch.cuda.is_available():
        return "auto"
    return f"cuda:{int(number) % torch.cuda.device_count()}"


def stream_inputs(
    predictor: Predictor | EnsemblePredictor,
    inputs: Inputs,
    rows: range,
    *,
    batch_size: int,
    num_workers: int | None = None,
) -> Iterator[Predicted]:
    """One result for each of some inputs, in order; a few batches are in memory at a time.

    Args:
        predictor: of one or several models.
        inputs: the images.
        rows: positions of those to predict, in steps of 1.
        batch_size: images in a batch.
        num_workers: processes that read ahead; 0 reads in this one; None: as many as cores, for
            more than a few images.

    Raises:
        CheckpointError: a network returns numbers that are not finite.
    """
    if num_workers is None:
        num_workers = available_cores() if len(rows) > _FEW else 0
    read = _ReadBatch(predictor.reader, inputs, rows.stop, batch_size)
    starts = range(rows.start, rows.stop, batch_size)
    for prepared in map_in_workers(read, starts, num_workers=num_workers):
        yield from predictor.answer(prepared)


class _ReadBatch:
    """Reads the batch at a position; runs inside the workers."""

    def __init__(
        self, reader: InputReader | EnsembleReader, inputs: Inputs, stop: int, batch_size: int
    ) -> None:
        self.reader, self.inputs, self.stop, self.batch_size = reader, inputs, stop, batch_size

    def __call__(self, start: int) -> Any:
        stop = min(start + self.batch_size, self.stop)
        return self.reader([self.inputs[position] for position in range(start, stop)])
