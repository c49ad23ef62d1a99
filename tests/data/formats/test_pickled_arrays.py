import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacavit.data.formats.pickled_arrays import load_pickled_arrays
from pacavit.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 12), np.uint8)

# What Python 2 wrote with protocol 2 and numpy 1.6, as the official batches are:
# {"data": numpy.array([[200, 1, 2]], "uint8"), "labels": [7]}
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
    b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87R"
    b"q\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\xc8\x01\x02tb"
    b"U\x06labels]K\x07au."
)


class Runs:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_protocol(protocol: int, order: Any) -> None:
    content = {"data": np.asarray(PIXELS, order=order), "labels": [1, 2], "filenames": ["a"]}
    loaded = load_pickled_arrays(pickle.dumps(content, protocol), "batch")
    assert np.array_equal(loaded.pop("data"), PIXELS)
    assert loaded == {"labels": [1, 2], "filenames": ["a"]}


def test_batches_of_python_2() -> None:
    loaded = load_pickled_arrays(PYTHON_2, "batch")
    assert loaded["data"].tolist() == [[200, 1, 2]]
    assert loaded["data"].dtype == np.uint8
    assert loaded["labels"] == [7]


def test_keys_that_are_bytes() -> None:
    assert load_pickled_arrays(pickle.dumps({b"labels": [1]}), "batch") == {"labels": [1]}


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_code_is_refused_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    attacks = [
        Runs(os.system, f"touch {trace}"),
        Runs(subprocess.Popen, ["touch", str(trace)]),
        Runs(eval, f"open({str(trace)!r}, 'w')"),
        Runs(open, str(trace), "w"),
        Runs(np.save, str(trace), PIXELS),
        Runs(np.memmap, str(trace), "uint8", "w+", 0, (1,)),
    ]
    for attack in attacks:
        with pytest.raises(DataError, match=r"evil cannot be read: asks for .*nothing in it was"):
            load_pickled_arrays(pickle.dumps({"data": attack}, protocol), "evil")
        assert not list(tmp_path.iterdir())


def test_other_classes_and_types_are_refused() -> None:
    for content in (
        OrderedDict(data=1),
        {"data": PIXELS.astype(np.float32)},
        {"data": np.array([{}], dtype=object)},
        {"data": np.float64(1)},
        {"data": Runs(__import__("_codecs").encode, "x", "rot13")},
        [1, 2],
    ):
        with pytest.raises(DataError, match="batch cannot be read") as caught:
            load_pickled_arrays(pickle.dumps(content, 2), "batch")
        assert "\n" not in str(caught.value)


def test_a_pickle_cannot_change_the_reader() -> None:
    """BUILD sets attributes on what a name stands for; later files must not notice."""
    for module, name in (("numpy.core.multiarray", "_reconstruct"), ("numpy", "dtype")):
        evil = f"\x80\x02c{module}\n{name}\n}}U\x08__call__K\x01s\x86b.".encode("latin1")
        with pytest.raises(DataError):
            load_pickled_arrays(evil, "evil")
    assert load_pickled_arrays(PYTHON_2, "batch")["labels"] == [7]


def test_broken_pickles() -> None:
    whole = pickle.dumps({"data": PIXELS}, 2)
    huge = PYTHON_2.replace(b"K\x01K\x03\x86c", b"J\xff\xff\xff\x7fK\x03\x86c")
    no_state = b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\n)Rs."
    for broken in (b"", b"hello", whole[:-1], whole[:40], whole[5:], huge, no_state):
        with pytest.raises(DataError, match="batch cannot be read") as caught:
            load_pickled_arrays(broken, "batch")
        assert "\n" not in str(caught.value)
