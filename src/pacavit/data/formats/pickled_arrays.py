"""Read pickled uint8 arrays, as in CIFAR-10's official batches, without running pickled code.

A pickle is a program that may call any function that it can import. Here it can import nothing: the
few names that a numpy array needs are mapped to the substitutes below, every other name is refused
before anything is called, and numpy gets only a buffer of bytes and its shape.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacavit.errors import DataError
from pacavit.utils.text import one_line

__all__ = ["load_pickled_arrays"]


class _PickledArray:
    """An array whose state follows in the pickle: (version, shape, dtype, fortran order, data)."""

    array: NDArray[np.uint8]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _from_buffer(data, dtype, shape, "F" if fortran else "C")


class _PickledDtype:
    """The dtype of unsigned bytes, the only one that is supported."""

    def __setstate__(self, state: object) -> None:
        """Ignore byte order, fields and alignment: they have no effect on bytes."""


# A pickle can set attributes on any object that it names, so it gets functions, never the classes.
def _reconstruct(*_: object) -> _PickledArray:
    """Replaces numpy's function of that name, which makes an empty array to be filled."""
    return _PickledArray()


def _dtype(name: str, *_: object) -> _PickledDtype:
    """Replaces ``numpy.dtype``."""
    if name not in ("u1", "|u1", "uint8"):
        raise pickle.UnpicklingError(f"holds an array of type {name!r} instead of bytes")
    return _PickledDtype()


def _from_buffer(
    data: bytes | str, dtype: _PickledDtype, shape: tuple[int, ...], order: str
) -> NDArray[np.uint8]:
    """Replaces numpy's function of that name; Python 2 wrote the data as a string."""
    if not isinstance(dtype, _PickledDtype):
        raise pickle.UnpicklingError("holds an array without a type")
    raw = data.encode("latin1") if isinstance(data, str) else data
    if len(raw) != math.prod(shape):
        raise pickle.UnpicklingError(f"holds {len(raw)} bytes for an array of shape {shape}")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str) -> bytes:
    """Replaces ``_codecs.encode``, with which Python 3 writes bytes into old pickle protocols."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"holds bytes encoded as {encoding!r}")
    return text.encode("latin1")


# numpy 1 and 2 have their functions in differently named modules. ndarray is only ever an argument
# of _reconstruct, which needs none.
_NAMES: dict[tuple[str, str], Callable[..., object] | None] = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): None,
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object] | None:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"asks for {module}.{name}, which is neither a numpy array nor a builtin value; "
                "nothing in it was run"
            ) from None


def load_pickled_arrays(data: bytes, name: str) -> dict[str, Any]:
    """Unpickle a dictionary of plain values and uint8 arrays; strings of Python 2 become str.

    Args:
        data: the pickle.
        name: of the file in error messages.

    Raises:
        DataError: the pickle is broken, is no dictionary, or asks for any other class or function.
    """
    try:
        content = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        return {_key(key): _value(value) for key, value in content.items()}
    # Broken pickles fail in arbitrary ways: wrong opcodes, missing operands, wrong arguments.
    except Exception as error:
        raise DataError(f"{name} cannot be read: {one_line(error)}") from error


def _key(key: object) -> str:
    # Copies of the batches that were saved again by Python 3 may have bytes as keys.
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _value(value: object) -> object:
    return value.array if isinstance(value, _PickledArray) else value
