"""The wire format of the protocol V2: what is read, what is written, and what is refused."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pacavit.serve.refusals import Refusal
from pacavit.serve.tensors import OutputRequest, Values, encode_response, parse_request


def request(*inputs: Mapping[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def pixels(**changes: Any) -> dict[str, Any]:
    """An input (1, 3, 1, 2) with changes; None removes a field."""
    fields = {"name": "images", "datatype": "UINT8", "shape": [1, 3, 1, 2], "data": [*range(6)]}
    return {name: value for name, value in (fields | changes).items() if value is not None}


def test_json_data_may_be_flat_or_nested() -> None:
    nested = np.arange(6).reshape(1, 3, 1, 2).tolist()
    for data in (list(range(6)), nested):
        parsed = parse_request(request(pixels(data=data), id="7"), None)
        tensor = parsed.inputs["images"]
        assert isinstance(tensor.values, np.ndarray)
        assert tensor.values.dtype == np.uint8
        assert tensor.values.tolist() == nested
        assert (parsed.id, parsed.outputs, parsed.binary) == ("7", None, False)


def test_binary_data_follow_the_json_object_in_the_order_of_the_inputs() -> None:
    first, second = np.arange(6, dtype=np.uint8), np.array([1.5, -2], "<f4")
    files = b"\x03\x00\x00\x00abc\x00\x00\x00\x00"
    head = request(
        pixels(data=None, parameters={"binary_data_size": 6}),
        {"name": "b", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
        {"name": "c", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
        parameters={"binary_data_output": True},
        outputs=[
            {"name": "x"},
            {"name": "y", "parameters": {"binary_data": False, "classification": 2}},
        ],
    )
    body = head + first.tobytes() + second.tobytes() + files
    parsed = parse_request(body, str(len(head)))
    values = {name: tensor.values for name, tensor in parsed.inputs.items()}
    assert np.array_equal(values["images"], first.reshape(1, 3, 1, 2))
    assert np.array_equal(values["b"], second)
    assert values["c"] == [b"abc", b""]
    assert parsed.outputs == (OutputRequest("x", True), OutputRequest("y", False, 2))


def test_bytes_in_json_are_base64() -> None:
    field = {"name": "images", "datatype": "BYTES", "shape": [1], "data": ["YWJj"]}
    assert parse_request(request(field), None).inputs["images"].values == [b"abc"]


BINARY = {"data": None, "parameters": {"binary_data_size": 6}}
REFUSED = {
    "no JSON": (b"{", None, "the body cannot be read as JSON"),
    "no UTF-8": (b"\xff\xfe", None, "the body cannot be read as JSON"),
    "too deep": (b"[" * 100_000, None, "nested too deep"),
    "no object": (b"[]", None, "the request must be a JSON object"),
    "no inputs": (b"{}", None, "inputs must be a list"),
    "input is text": (b'{"inputs": ["a"]}', None, "input 0 must be a JSON object"),
    "no name": (request(pixels(name=None)), None, "input 0 has no name"),
    "unknown datatype": (request(pixels(datatype="UINT9")), None, "has the datatype 'UINT9'"),
    "no shape": (request(pixels(shape=None)), None, "the shape of the input 'images' must be"),
    "negative side": (request(pixels(shape=[-1, 3])), None, "must be a list of numbers above 0"),
    "side is text": (request(pixels(shape=["1"])), None, "must be a list of numbers above 0"),
    "side is true": (request(pixels(shape=[True])), None, "must be a list of numbers above 0"),
    "no data": (request(pixels(data=None)), None, "neither data nor binary_data_size"),
    "too few": (request(pixels(data=[1, 2])), None, "needs 6 values, but has 2"),
    "ragged": (request(pixels(data=[[1], [2, 3]])), None, "are no list of UINT8 values"),
    "texts": (request(pixels(data=["a"] * 6)), None, "are no list of UINT8 values"),
    "fractions": (request(pixels(data=[0.5] * 6)), None, "are no list of UINT8 values"),
    "too high": (request(pixels(data=[256] * 6)), None, "outside 0 to 255"),
    "far too high": (request(pixels(data=[10**400] * 6)), None, "are no list of UINT8 values"),
    "no base64": (
        request(pixels(datatype="BYTES", shape=[1], data=["é"])),
        None,
        "must be texts in base64",
    ),
    "twice": (request(pixels(), pixels()), None, "the input 'images' is given twice"),
    "size is text": (
        request(pixels(data=None, parameters={"binary_data_size": "6"})),
        None,
        "which is no size",
    ),
    "parameters is list": (request(pixels(parameters=[1])), None, "must be a JSON object"),
    "header is text": (request(pixels()), "x", "is 'x', and the body has"),
    "header too long": (request(pixels()), "100000", "is '100000', and the body has"),
    "truncated": (request(pixels(**BINARY)) + b"abc", "+", "6 bytes, but only 3 are left"),
    "bytes left": (request(pixels(**BINARY)) + b"abcdefgh", "+", "2 bytes are left in the body"),
    "wrong size": (
        request(pixels(**BINARY, shape=[1, 3, 2, 2])) + b"abcdef",
        "+",
        "needs 12 bytes, but has 6",
    ),
    "item too long": (
        request(pixels(**BINARY, datatype="BYTES", shape=[1])) + b"\xff\xff\xff\xffab",
        "+",
        "are longer than its binary_data_size",
    ),
    "output has no name": (request(pixels(), outputs=[{}]), None, "output 0 has no name"),
    "flag is text": (
        request(pixels(), parameters={"binary_data_output": "yes"}),
        None,
        "binary_data_output must be true or false",
    ),
    "id is number": (request(pixels(), id=1), None, "id must be a text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_requests_are_refused_in_one_line(case: str) -> None:
    body, header, message = REFUSED[case]
    if header == "+":  # the length of the JSON object
        header = str(body.rindex(b"}") + 1)
    with pytest.raises(Refusal) as refusal:
        parse_request(body, header)
    assert refusal.value.status == 400
    assert message in refusal.value.message
    assert len(refusal.value.message.splitlines()) == 1
    assert len(refusal.value.message) < 300


def test_responses_hold_json_then_binary_data() -> None:
    values = np.array([[1.5, 2]], np.float32)
    outputs: list[tuple[OutputRequest, Values, tuple[int, ...]]] = [
        (OutputRequest("a", False), values, (1, 2)),
        (OutputRequest("b", True), values, (1, 2)),
        (OutputRequest("c", True), [b"xy"], (1, 1)),
    ]
    body, headers = encode_response({"model_name": "m"}, outputs)
    length = int(headers["inference-header-content-length"])
    assert json.loads(body[:length]) == {
        "model_name": "m",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]},
            {
                "name": "b",
                "datatype": "FP32",
                "shape": [1, 2],
                "parameters": {"binary_data_size": 8},
            },
            {
                "name": "c",
                "datatype": "BYTES",
                "shape": [1, 1],
                "parameters": {"binary_data_size": 6},
            },
        ],
    }
    assert body[length:] == values.tobytes() + b"\x02\x00\x00\x00xy"
    assert "inference-header-content-length" not in encode_response({}, outputs[:1])[1]
