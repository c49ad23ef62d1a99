"""The profile of a forward pass, at toy size."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

LoadBenchmark = Callable[[str], ModuleType]

SETTINGS = {"model": "pacavit_nano", "size": 32, "batch_size": 16}
PRECISIONS = ("fp32", "bf16")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mkldnn_convolution", "convolutions"),
        ("aten::_slow_conv2d_forward", "convolutions"),
        ("aten::addmm", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::_softmax", "attention"),
        ("aten::native_layer_norm", "normalization"),
        ("aten::copy_", "copies"),
        ("aten::_to_copy", "the rest"),  # its time is that of the copy inside
        ("aten::gelu", "the rest"),
    ],
)
def test_operators_have_kinds(load_benchmark: LoadBenchmark, name: str, kind: str) -> None:
    assert load_benchmark("inference_profile").kind_of(name) == kind


@pytest.mark.parametrize("precision", PRECISIONS)
def test_fractions_and_copies_of_both_networks(
    load_benchmark: LoadBenchmark,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    out = tmp_path / "profile.json"
    words = ["pacavit_nano", "--size", "32", "--batch-size", "16", "--precision", precision]
    out.write_text(json.dumps({"rows": [{**SETTINGS, "precision": each} for each in PRECISIONS]}))
    load_benchmark("inference_profile").main([*words, "--passes", "1", "--out", str(out)])
    other, found = json.loads(out.read_text("utf-8"))["rows"]
    assert {other["precision"], found["precision"]} == {*PRECISIONS}
    for name in ("as built", "optimized"):
        assert sum(found[name]["time"].values()) == pytest.approx(1)
        assert min(found[name]["operations"][kind] for kind in ("convolutions", "attention")) > 0
    assert (
        found["optimized"]["operations"]["normalization"]
        < (found["as built"]["operations"]["normalization"])
    )
    copies = [found[name]["operations"]["aten::copy_"] for name in ("as built", "optimized")]
    if precision == "bf16":
        assert copies[1] < copies[0] / 2
    else:
        assert copies[1] <= copies[0]
    printed = capsys.readouterr().out
    assert f"optimized: {copies[1]} copies in a pass" in printed
    assert "matrix products" in printed
