"""The profile of an exported network, at toy size."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(name, reason="the extra export is not installed")


@pytest.mark.slow
def test_both_precisions_by_kind(
    load_benchmark: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    results = tmp_path / "profile.json"
    words = ["pacavit_nano", "--size", "32", "--passes", "2", "--results", str(results)]
    load_benchmark("engine_profile").main(words)
    recorded = json.loads(results.read_text("utf-8"))
    assert recorded["command"] == "python benchmarks/engine_profile.py pacavit_nano"
    (row,) = recorded["models"]
    for precision in ("bf16", "int8"):
        assert row[precision]["operations"]["linear layers"] > 20
        assert sum(row[precision]["milliseconds"].values()) > 0


def test_an_unknown_model_is_one_line(
    load_benchmark: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="no-such-model"):
        load_benchmark("engine_profile").main(
            ["no-such-model", "--results", str(tmp_path / "profile.json")]
        )
