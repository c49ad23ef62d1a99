"""A run on several processes, started by ``torchrun``: communication and shared errors.

Every process trains on its shard of each batch. Only the first one writes and prints. Without
``torchrun`` there is one process, and nothing is communicated.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from pacavit.detectors import Detector
from pacavit.engine import system
from pacavit.errors import CheckpointError, PacavitError, RecipeError, ReportedElsewhere
from pacavit.layers import Block

__all__ = [
    "World",
    "gradient_sync",
    "is_main_process",
    "is_sharded",
    "join",
    "like",
    "local",
    "replicate",
    "shard",
    "sync_buffers",
    "whole",
]

_MESSAGE_BYTES = 2000
_joins = itertools.count()


@dataclass(frozen=True)
class World:
    """The processes of a run, and the rank of this one.

    Attributes:
        rank: 0 .. size - 1; 0 is the first process.
        size: number of processes of the run, on all machines.
        local_rank: rank among the processes of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    @property
    def shard(self) -> tuple[int, int]:
        """The shard of each batch for this process, as loaders take it: (rank, size)."""
        return self.rank, self.size

    def device(self, name: str) -> torch.device:
        """The device of a name; each process of a machine takes a GPU of its own.

        Raises:
            RecipeError: there is no such device here, or not one for each process.
        """
        if self.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
            num = torch.cuda.device_count()
            if self.local_rank >= num:
                raise RecipeError(
                    f"this machine has fewer GPUs ({num}) than processes; start torchrun with "
                    f"--nproc-per-node {num}"
                )
            name = f"cuda:{self.local_rank}"
            torch.cuda.set_device(self.local_rank)
        elif self.size > 1 and ":" in name:
            raise RecipeError(
                f"train.device {name!r} is one device for {self.size} processes; "
                'choose "cuda", so that each takes its own'
            )
        elif self.size > 1 and name == "auto":
            name = "cpu"  # processes cannot exchange tensors of Apple's GPU
        return system.pick_device(name)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise a PacavitError of one process in all processes, so that none waits for ever.

        All processes have to enter and leave the context. The first process reports the error.
        Contexts may be nested: a process that fails between two inner contexts synchronizes, at
        the end of the outer one, with the others at the end of the next inner one. Therefore no
        other synchronization is allowed there, unless nothing can fail between it and the inner
        context before.
        """
        if self.size == 1:
            yield
            return
        error: PacavitError | None = None
        try:
            yield
        except PacavitError as caught:
            if caught.shared:
                raise
            error = caught
        self._agree(error)

    @contextmanager
    def first_on_machine(self) -> Iterator[None]:
        """Let one process of each machine run first, so that the others find its downloads.

        If it fails, all fail; errors of the others are handled by the ``together`` around this.
        """
        if self.local_rank == 0:
            with self.together():
                yield
        else:
            self._agree(None)
            yield

    def shared(self, error: PacavitError) -> PacavitError:
        """The exception that this process raises for an error of all: only the first reports it."""
        if not self.is_main:
            return ReportedElsewhere(str(error))
        error.shared = True
        return error

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether each flag is set on any process."""
        if self.size == 1:
            return flags
        counts = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(counts)
        return tuple(count > 0 for count in counts.tolist())

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes; all have the same shape."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor on the CPU over the processes; all have the same shape."""
        if self.size == 1:
            return values
        total = values.double()
        dist.all_reduce(total)
        return total / self.size

    def gather(self, values: Tensor) -> list[Tensor]:
        """The tensors of all processes by rank, on the CPU; all have the same shape and type."""
        if self.size == 1:
            return [values]
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(gathered, values)
        return gathered

    def merge(self, texts: Mapping[str, str]) -> dict[str, str]:
        """The entries of all processes, in the order of ranks; all processes have to call this."""
        if self.size == 1:
            return dict(texts)
        own = json.dumps(dict(texts)).encode()
        longest = max(int(length) for length in self.gather(torch.tensor(len(own))))
        padded = torch.frombuffer(bytearray(own.ljust(longest)), dtype=torch.uint8)
        parts = [json.loads(bytes(part.tolist())) for part in self.gather(padded)]
        return {key: text for part in parts for key, text in part.items()}

    def concatenate(self, rows: Tensor) -> Tensor:
        """The rows (N, ...) of all processes in the order of ranks, on the CPU; N may differ."""
        if self.size == 1:
            return rows.cpu()
        lengths = [int(length) for length in self.gather(torch.tensor(len(rows)))]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:], device="cpu")
        padded[: len(rows)] = rows
        pairs = zip(self.gather(padded), lengths, strict=True)
        return torch.cat([values[:length] for values, length in pairs])

    def check_same_step(self, step: int) -> None:
        """Check that all processes found the same checkpoint.

        Raises:
            CheckpointError: the machines do not see the same run folder.
        """
        steps = [int(found) for found in self.gather(torch.tensor(step))]
        if len(set(steps)) > 1:
            raise CheckpointError(
                f"the processes found checkpoints of different steps, {sorted(set(steps))}: put "
                "the run folder on a file system that all machines share"
            )

    def _agree(self, error: PacavitError | None) -> None:
        """Wait for the other processes; raise in all of them if one has an error."""
        message = next(filter(None, self._texts("" if error is None else str(error))), None)
        if message is not None:
            raise self.shared(error or PacavitError(message)) from error

    def _texts(self, text: str) -> list[str]:
        """The texts of all processes, by rank."""
        encoded = text.encode()[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b"\0")
        gathered = self.gather(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
        return [bytes(each.tolist()).rstrip(b"\0").decode(errors="ignore") for each in gathered]


def is_main_process() -> bool:
    """Whether this process writes and prints; works outside of ``join``, too."""
    return not dist.is_torchelastic_launched() or os.environ["RANK"] == "0"


@contextmanager
def join() -> Iterator[World]:
    """Connect the processes of ``torchrun`` for a run; without it there is a single process.

    Raises:
        PacavitError: another process ended during the run.
    """
    if not dist.is_torchelastic_launched():
        yield World()
        return
    store, rank, size = next(rendezvous("env://"))
    if size == 1:
        yield World()
        return
    # Each run needs its own prefix: a store that outlives a run still holds its addresses.
    store = PrefixStore(f"pacavit-{next(_joins)}", store)
    dist.init_process_group(store=store, rank=rank, world_size=size)
    try:
        yield World(rank, size, int(os.environ["LOCAL_RANK"]))
    except RuntimeError as error:
        # Gloo raises plain RuntimeErrors.
        if not (isinstance(error, dist.DistError) or "gloo/transport" in str(error)):
            raise
        raise PacavitError(
            "another process of the run ended, or cannot be reached; see its output or that of "
            "torchrun, then repeat the same command with --resume"
        ) from error
    finally:
        dist.destroy_process_group()


def replicate(task: nn.Module, device: torch.device) -> DistributedDataParallel:
    """A task whose gradients are averaged over the processes, each of which holds a copy."""
    return DistributedDataParallel(task, device_ids=[device] if device.type == "cuda" else None)


def shard(model: nn.Module, world: World, device: torch.device) -> None:
    """Shard the parameters over the processes, in place, and average gradients (FSDP).

    Parameters are gathered block by block for computing; those of a network without our blocks, all
    at once. Create optimizers afterwards. Zhao et al., "PyTorch FSDP", VLDB 2023.
    """
    mesh = init_device_mesh(device.type, (world.size,))
    model.to(memory_format=torch.contiguous_format)  # FSDP cannot shard channels-last parameters
    for module in model.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    if isinstance(model, Detector):  # its training does not go through ``forward``
        register_fsdp_forward_method(model, "losses")


def is_sharded(model: nn.Module) -> bool:
    """Whether ``shard`` was applied."""
    return isinstance(model, FSDPModule)


@contextmanager
def gradient_sync(stepper: nn.Module, model: nn.Module, wanted: bool) -> Iterator[None]:
    """Whether backward passes inside average gradients over processes, or only accumulate them.

    Args:
        stepper: the module that runs the training step, perhaps from ``replicate``.
        model: its network, perhaps from ``shard``.
        wanted: False for all but the last of several passes whose gradients are accumulated.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(wanted)
    keep_local: AbstractContextManager[None] = nullcontext()
    if isinstance(stepper, DistributedDataParallel) and not wanted:
        keep_local = stepper.no_sync()
    with keep_local:
        yield


def sync_buffers(module: nn.Module, world: World) -> None:
    """Copy the buffers (BatchNorm statistics) of the first process, which saves them, to all."""
    if world.size > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gather sharded tensors; all processes have to call this with the same ones."""
    return {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in tensors.items()
    }


def like(tensor: Tensor, reference: Tensor) -> Tensor:
    """A tensor that every process has in full, sharded like ``reference``."""
    if not isinstance(reference, DTensor):
        return tensor
    mesh = reference.device_mesh
    return distribute_tensor(
        tensor.to(reference.device), mesh, reference.placements, src_data_rank=None
    )


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
