"""Build networks described by untrusted files, only if the tensors in the file fit them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from pacavit.engine.weights.format import shape_faults
from pacavit.errors import CheckpointError, RecipeError
from pacavit.tasks import Task
from pacavit.utils.text import first_few

__all__ = ["build_to_fit"]

_Network = TypeVar("_Network", bound=nn.Module)
Shapes = Mapping[str, tuple[int, ...]]
# Tolerance: a network may register a parameter twice, replace one, or have a new classifier.
_FACTOR, _MORE_TENSORS, _MORE_NUMBERS = 2, 64, 2**26


def build_to_fit(
    make: Callable[[], _Network],
    shapes: Shapes,
    origin: str | Path,
    *,
    fresh: tuple[str, ...] = (),
) -> _Network:
    """Build a network whose size is given by a file, without trusting the file.

    The network is first built without memory for its tensors (on torch's meta device), and then
    with memory if the tensors in the file fit it. So memory and time are bounded by the size of the
    file. The state of the random generator is unchanged by the first build.

    Args:
        make: builds the network, or the task around it.
        shapes: of the tensors in the file, by name.
        origin: name of the file in error messages.
        fresh: prefixes of the names of tensors that need not fit, because they are re-initialized.

    Raises:
        CheckpointError: the tensors do not fit.
        PacavitError: raised by ``make``.
    """
    with torch.random.fork_rng(devices=[]), _bounded(shapes, origin):
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of empty tensors, which fit no file
                sketch = make()
        except RecipeError as error:
            # The constructor of a plugin may read the values of its tensors.
            if "meta" not in str(error):
                raise
        else:
            _check(sketch, shapes, origin, fresh)
        return make()


def _check(sketch: nn.Module, shapes: Shapes, origin: str | Path, fresh: tuple[str, ...]) -> None:
    network = sketch.model if isinstance(sketch, Task) else sketch
    faults = [fault for fault in shape_faults(network, shapes) if not fault.startswith(fresh)]
    if faults:
        raise CheckpointError(f"{origin} does not fit the model: {first_few(faults)}")


@contextmanager
def _bounded(shapes: Shapes, origin: str | Path) -> Iterator[None]:
    """Raise CheckpointError if this thread builds a network with far more tensors than the file."""
    tensors = _FACTOR * len(shapes) + _MORE_TENSORS
    # Parameters of both builds are counted.
    left, thread = 2 * tensors, threading.get_ident()
    numbers = 2 * (_FACTOR * sum(map(_count, shapes.values())) + _MORE_NUMBERS)

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left, numbers
        if parameter is None or threading.get_ident() != thread:
            return
        left -= 1
        numbers -= parameter.numel() if not parameter.is_meta else 0
        if left < 0 or numbers < 0:
            raise CheckpointError(
                f"{origin} does not fit the model: it has {len(shapes)} tensors, and the model "
                "that it describes is far larger"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
