"""The wire format of the Open Inference Protocol V2, with its extension for binary data.

A request is a JSON object; with the header ``Inference-Header-Content-Length`` the body is that
object followed by the bytes of its binary inputs, in their order. Specifications:
https://github.com/kserve/open-inference-protocol and Triton's extensions "binary_tensor_data" and
"classification".
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pacavit.serve.refusals import Refusal

__all__ = [
    "HEADER_LENGTH",
    "InferRequest",
    "InputTensor",
    "OutputRequest",
    "Values",
    "encode_response",
    "parse_request",
]

HEADER_LENGTH = "inference-header-content-length"
"""Header with the length of the JSON part of a body, if binary data follow it."""

Values: TypeAlias = "NDArray[Any] | list[bytes]"
"""A tensor; of BYTES, its items in one list."""

# "BYTES" are kept as lists. All are little-endian.
_TYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_MOST_AXES = 8


@dataclass(frozen=True)
class InputTensor:
    """A tensor of a request.

    Attributes:
        name: of the input.
        datatype: as the protocol calls it.
        shape: of the tensor.
        values: an array of that shape, or for BYTES a list with all items.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values


@dataclass(frozen=True)
class OutputRequest:
    """An output that a request asks for.

    Attributes:
        name: of the output.
        binary: as bytes after the JSON object.
        classes: number of the highest values to return as "value:index:class"; 0: the tensor.
    """

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True)
class InferRequest:
    """A request for inference.

    Attributes:
        id: that the response repeats; None for none.
        inputs: by name.
        outputs: that are asked for; None: all.
        binary: whether outputs are binary that do not say.
    """

    id: str | None
    inputs: Mapping[str, InputTensor]
    outputs: tuple[OutputRequest, ...] | None
    binary: bool


def parse_request(body: bytes, header_length: str | None) -> InferRequest:
    """The request in a body.

    Args:
        body: of the HTTP request.
        header_length: value of the header ``Inference-Header-Content-Length``; None if there is
            none.

    Raises:
        Refusal: the body is not a request of this protocol.
    """
    text, binary = _split(body, header_length)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "the body" if header_length is None else f"the first {len(text)} bytes of the body"
        raise Refusal(400, f"{what} cannot be read as JSON ({_reason(error)})") from None
    found = _mapping(found, "the request")
    inputs: dict[str, InputTensor] = {}
    for number, each in enumerate(_listed(found.get("inputs"), "inputs")):
        tensor, binary = _input(_mapping(each, f"input {number}"), number, binary)
        if tensor.name in inputs:
            raise Refusal(400, f"the input {tensor.name!r} is given twice")
        inputs[tensor.name] = tensor
    if len(binary):
        raise Refusal(400, f"{len(binary)} bytes are left in the body after the data of all inputs")
    default = _flag(_parameters(found, "the request"), "binary_data_output")
    outputs = None
    if found.get("outputs"):
        listed = _listed(found["outputs"], "outputs")
        outputs = tuple(
            _output(_mapping(each, f"output {number}"), number, default)
            for number, each in enumerate(listed)
        )
    id_ = found.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise Refusal(400, "id must be a text")
    return InferRequest(id_, inputs, outputs, default)


def encode_response(
    head: Mapping[str, Any], outputs: Sequence[tuple[OutputRequest, Values, tuple[int, ...]]]
) -> tuple[bytes, dict[str, str]]:
    """The body of a response, and its headers.

    Args:
        head: name and version of the model, and id of the request.
        outputs: each with its values and its shape, in order.
    """
    described, chunks = [], []
    for wanted, values, shape in outputs:
        one: dict[str, Any] = {
            "name": wanted.name,
            "datatype": _datatype(values),
            "shape": list(shape),
        }
        if wanted.binary:
            data = _to_bytes(values)
            chunks.append(data)
            one["parameters"] = {"binary_data_size": len(data)}
        elif isinstance(values, list):
            one["data"] = [each.decode() for each in values]
        else:
            one["data"] = values.ravel().tolist()
        described.append(one)
    text = json.dumps({**head, "outputs": described}, separators=(",", ":")).encode()
    if not chunks:
        return text, {"content-type": "application/json"}
    return b"".join([text, *chunks]), {
        "content-type": "application/octet-stream",
        HEADER_LENGTH: str(len(text)),
    }


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON object and the binary data of a body."""
    if header_length is None:
        return body, memoryview(b"")
    length = int(header_length) if header_length.isascii() and header_length.isdecimal() else -1
    if not 0 <= length <= len(body):
        raise Refusal(
            400,
            f"the header Inference-Header-Content-Length is {header_length!r}, and the body has "
            f"{len(body)} bytes; it must be the length of the JSON object at their start",
        )
    return body[:length], memoryview(body)[length:]


def _input(
    found: Mapping[str, Any], number: int, binary: memoryview
) -> tuple[InputTensor, memoryview]:
    """A tensor, and the binary data that follow its own."""
    name = found.get("name")
    if not isinstance(name, str):
        raise Refusal(400, f"input {number} has no name")
    where = f"the input {name!r}"
    datatype = found.get("datatype")
    if datatype != "BYTES" and (not isinstance(datatype, str) or datatype not in _TYPES):
        known = ", ".join([*_TYPES, "BYTES"])
        raise Refusal(400, f"{where} has the datatype {datatype!r}; the protocol has {known}")
    shape = _shape(found.get("shape"), where)
    size = _parameters(found, where).get("binary_data_size")
    if size is None:
        if "data" not in found:
            raise Refusal(400, f"{where} has neither data nor binary_data_size")
        return InputTensor(name, datatype, shape, _from_json(found, datatype, shape, where)), binary
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise Refusal(400, f"{where} has the binary_data_size {size!r}, which is no size")
    if size > len(binary):
        raise Refusal(
            400,
            f"the data of {where} have {size} bytes, but only {len(binary)} are left in the body; "
            "it may have been cut off",
        )
    values = _from_bytes(binary[:size], datatype, shape, where)
    return InputTensor(name, datatype, shape, values), binary[size:]


def _from_json(
    found: Mapping[str, Any], datatype: str, shape: tuple[int, ...], where: str
) -> Values:
    data, number = found["data"], math.prod(shape)
    if datatype == "BYTES":
        texts = _listed(data, f"the data of {where}")
        _check_number(len(texts), number, shape, where)
        return [_from_base64(each, where) for each in texts]
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError, RecursionError):
        values = np.asarray(None)  # lists of different lengths
    kinds = "iu" if datatype.startswith(("UINT", "INT")) else "b" if datatype == "BOOL" else "iuf"
    if values.size and values.dtype.kind not in kinds:
        raise Refusal(400, f"the data of {where} are no list of {datatype} values")
    _check_number(values.size, number, shape, where)
    wanted = np.dtype(_TYPES[datatype])
    if values.size and wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if values.min() < limits.min or values.max() > limits.max:
            raise Refusal(
                400, f"the data of {where} have values outside {limits.min} to {limits.max}"
            )
    with np.errstate(over="ignore"):  # becomes infinite, which whoever uses it refuses
        return values.astype(wanted).reshape(shape)


def _from_bytes(data: memoryview, datatype: str, shape: tuple[int, ...], where: str) -> Values:
    number = math.prod(shape)
    if datatype == "BYTES":
        items = _length_prefixed(data, where)
        _check_number(len(items), number, shape, where)
        return items
    wanted = np.dtype(_TYPES[datatype])
    if len(data) != number * wanted.itemsize:
        raise Refusal(
            400,
            f"{where} of shape {list(shape)} and datatype {datatype} needs "
            f"{number * wanted.itemsize} bytes, but has {len(data)}",
        )
    return np.frombuffer(data, wanted).reshape(shape)


def _length_prefixed(data: memoryview, where: str) -> list[bytes]:
    """Items that each follow their length, a little-endian number of four bytes."""
    items, start = [], 0
    while start < len(data):
        end = start + 4
        length = struct.unpack("<I", data[start:end])[0] if end <= len(data) else len(data)
        if end + length > len(data):
            raise Refusal(400, f"the items of {where} are longer than its binary_data_size")
        items.append(bytes(data[end : end + length]))
        start = end + length
    return items


def _from_base64(text: object, where: str) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        pass
    raise Refusal(400, f"the data of {where} must be texts in base64, for JSON cannot hold bytes")


def _check_number(given: int, number: int, shape: Sequence[int], where: str) -> None:
    if given != number:
        raise Refusal(400, f"{where} of shape {list(shape)} needs {number} values, but has {given}")


def _shape(found: object, where: str) -> tuple[int, ...]:
    sides = _listed(found, f"the shape of {where}")
    if len(sides) > _MOST_AXES or not all(type(side) is int and side > 0 for side in sides):
        raise Refusal(
            400, f"the shape of {where} must be a list of numbers above 0, not {sides!s:.80}"
        )
    return tuple(sides)


def _output(found: Mapping[str, Any], number: int, default: bool) -> OutputRequest:
    name = found.get("name")
    if not isinstance(name, str):
        raise Refusal(400, f"output {number} has no name")
    parameters = _parameters(found, f"the output {name!r}")
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise Refusal(400, f"classification of the output {name!r} must be a number of classes")
    return OutputRequest(name, _flag(parameters, "binary_data", default), classes)


def _flag(parameters: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise Refusal(400, f"{name} must be true or false")
    return value


def _parameters(found: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    return _mapping(found.get("parameters") or {}, f"parameters of {where}")


def _mapping(found: object, what: str) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise Refusal(400, f"{what} must be a JSON object")
    return found


def _listed(found: object, what: str) -> list[Any]:
    if not isinstance(found, list):
        raise Refusal(400, f"{what} must be a list")
    return found


def _datatype(values: Values) -> str:
    if isinstance(values, list):
        return "BYTES"
    (name,) = (name for name, kind in _TYPES.items() if np.dtype(kind) == values.dtype)
    return name


def _to_bytes(values: Values) -> bytes:
    if isinstance(values, list):
        return b"".join(struct.pack("<I", len(each)) + each for each in values)
    return values.tobytes()


def _reason(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error).split("\n")[0]
