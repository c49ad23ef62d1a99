"""The whole benchmark: settings, groups, failures, resuming, tables and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pacavit import api
from pacavit.api import benchmarking
from pacavit.bench import harness
from pacavit.bench.candidates import Candidate
from pacavit.bench.engines import Setting
from pacavit.bench.machine import Load
from pacavit.bench.pages import benchmark_text
from pacavit.bench.probe import Probe
from pacavit.bench.results import Benchmark, Model, Row, read_results, write_results
from pacavit.bench.tables import counts_table, growth_table, speed_table
from pacavit.bench.turns import take_turns
from pacavit.errors import CheckpointError, Interrupted, PacavitError
from pacavit_cli.main import main

NARROW = "embed_dims=[24,32,48],num_heads=[2,2,2],stem_dims=[8,24]"
OURS, FULL = f"pacavit_nano,{NARROW}", f"pacavit_nano,attention=full,{NARROW}"


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Networks are not run in processes of their own; the names that would be."""
    names: list[str] = []

    def fake(name: str, setting: Setting, file: Path) -> Probe:
        names.append(name)
        return Probe(None, "killed") if "full" in name else Probe(12.5, None)

    monkeypatch.setattr(harness, "probe", fake)
    monkeypatch.setattr(benchmarking, "current_load", lambda: Load(0.25, 0.0))
    return names


def candidate(name: str) -> Candidate:
    return Candidate(name, name, lambda _: nn.Identity())


def test_at_most_eight_networks_are_in_memory_at_once() -> None:
    names = [f"n{number}" for number in range(17)]
    settings = [Setting("eager", "fp32", 1, size, "cpu") for size in (32, 64)]
    units = harness.plan_units([candidate(name) for name in names], settings)
    groups = [[each.name for each in unit.group] for unit in units]
    assert [len(group) for group in groups] == [8, 8, 8, 8, 3, 3]
    assert all(group[0] == "n0" for group in groups)
    assert [name for group in groups[::2] for name in group[1:]] == names[1:]
    assert [unit.is_first for unit in units] == [True, True, False, False, False, False]
    assert len(harness.plan_units([candidate("alone")], settings)) == 2


def test_a_unit_is_done_if_all_its_rows_are_there() -> None:
    setting = Setting("eager", "fp32", 1, 32, "cpu")
    unit = harness.Unit(setting, [candidate("a"), candidate("b")], is_first=True)
    rows = [Row("a", *setting[:4]), Row("b", "compile", *setting[1:4])]
    assert not unit.is_in(rows)
    assert unit.is_in([*rows, Row("b", *setting[:4])])
    assert unit._replace(is_first=False).is_in([Row("b", *setting[:4])])


def test_a_benchmark_from_the_command_line(
    probed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", OURS, FULL, "pacavit_nano,wrong=1", "--sizes", "32,48", "--rounds", "2"]
    assert main([*words, "--batch-sizes", "1,2", "--out", str(tmp_path)]) == 0
    found = read_results(tmp_path / "bench.json")
    assert found.finished
    assert [row.name for row in found.rows] == [OURS] * 4 + [FULL] * 4
    first = found.rows[0]
    assert first.ratio == [1, 1, 1]
    assert first.peak_mebibytes == 12.5
    assert first.images_per_second is not None
    assert first.images_per_second[1] > 0
    assert {(row.batch_size, row.size) for row in found.rows} == {
        (1, 32),
        (2, 32),
        (1, 48),
        (2, 48),
    }
    assert all(row.error == "killed" for row in found.rows[4:])
    assert probed.count(OURS) == 4
    error = found.model("pacavit_nano,wrong=1").error
    assert error is not None
    assert "wrong" in error
    text = (tmp_path / "bench.md").read_text()
    assert "failed" in text
    assert "killed" in text
    assert "unexpected keyword argument 'wrong'" in text
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "images/s" in printed
    assert f"{FULL}, eager fp32, batch 1, 32 pixels: killed" in printed


def test_an_interrupted_benchmark_continues(
    probed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"sizes": [32], "batch_sizes": [1, 2], "rounds": 1}
    calls = []

    def interrupted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return take_turns(*args)

    monkeypatch.setattr(harness, "take_turns", interrupted)
    with pytest.raises(Interrupted, match="--resume"):
        api.bench([OURS], tmp_path, **arguments)
    begun = read_results(tmp_path / "bench.json")
    assert [row.batch_size for row in begun.rows] == [1]
    assert not begun.finished
    with pytest.raises(CheckpointError, match="continue it with --resume"):
        api.bench([OURS], tmp_path, **arguments)
    with pytest.raises(CheckpointError, match=r"begun with rounds 1, not 2"):
        api.bench([OURS], tmp_path, **{**arguments, "rounds": 2}, resume=True)
    found = api.bench([OURS], tmp_path, **arguments, resume=True)
    assert len(calls) == 3
    assert found.rows[0] == begun.rows[0]
    assert [row.batch_size for row in found.rows] == [1, 2]
    assert api.bench([OURS], tmp_path, **arguments, resume=True) == found
    assert len(calls) == 3


def test_a_benchmark_of_another_machine_is_not_continued(tmp_path: Path, probed: list[str]) -> None:
    api.bench([OURS], tmp_path, sizes=[32], rounds=0)
    path = tmp_path / "bench.json"
    content = json.loads(path.read_text())
    content["environment"]["threads"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="another machine"):
        api.bench([OURS], tmp_path, sizes=[32], rounds=0, resume=True)
    path.write_text("{}")
    with pytest.raises(CheckpointError, match="cannot read the benchmark"):
        api.bench([OURS], tmp_path, sizes=[32], rounds=0, resume=True)


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ([], {}, "give at least one MODEL"),
        ([OURS, OURS], {}, "named twice"),
        (["pacavit_nan"], {}, "did you mean 'pacavit_nano'"),
        ([OURS], {"peers": "papr"}, "did you mean 'paper'"),
        ([OURS], {"engines": ["eagr"]}, "did you mean 'eager'"),
        ([OURS], {"precisions": ["fp8"]}, "unknown precision 'fp8'"),
        ([OURS], {"sizes": [0]}, "sizes are different positive numbers"),
        ([OURS], {"batch_sizes": [4, 4]}, "batch sizes are different positive numbers"),
        ([OURS], {"rounds": -1}, "0 or more, not -1"),
        ([OURS], {"device": "abacus"}, "device 'abacus' is no device"),
        (["test_vit"], {"sizes": [32, 40]}, "test_vit cannot take images of 40 x 40 .*but of 32"),
    ],
)
def test_wrong_requests_are_refused_before_anything_runs(
    models: list[str], options: dict[str, Any], message: str, tmp_path: Path, probed: list[str]
) -> None:
    with pytest.raises(PacavitError, match=message):
        api.bench(models, tmp_path / "out", **options)
    assert not probed
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_compared_with_every_name_once(tmp_path: Path) -> None:
    with pytest.raises(PacavitError, match="did you mean 'pacavit_small' or") as caught:
        api.bench(["pacavit_smal"], tmp_path / "out")
    assert str(caught.value).count("'pacavit_small'") == 1


def test_an_engine_without_any_precision_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(PacavitError, match="onnxruntime does not compute in bf16 or fp16"):
        api.bench([OURS], tmp_path, engines=["onnxruntime"], precisions=["bf16", "fp16"])


def test_numbers_are_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", OURS, "--sizes", "224,big", "--out", str(tmp_path)]) == 2
    assert "sizes are numbers such as" in capsys.readouterr().err


def example(**changes: Any) -> Benchmark:
    """A benchmark of two networks at two sizes."""
    counts = {"swin_tiny_patch4_window7_224": (4e9, 8e9), "mine": (1e9, 4e9)}
    sizes = (224, 448)
    models = [
        Model(name, name[:4], dict.fromkeys(sizes, 28_290_000), dict(zip(sizes, macs, strict=True)))  # type: ignore[arg-type]
        for name, macs in counts.items()
    ]
    rows = [
        Row("mine", "eager", "fp32", 1, size, [speed - 1, speed, speed + 1], [1.5, 2, 2.5], peak, 0)
        for size, speed, peak in ((224, 64.0, 100.0), (448, 16.0, 800.0))
    ]
    settings = {"sizes": list(sizes), "rounds": 5}
    versions = {"torch": "2", "timm": "1"}
    environment = {"cpu": "a CPU", "threads": 2, "versions": versions}
    values: dict[str, Any] = {"before": Load(0.5, 0.02), "after": Load(0.75, 0.03), "rows": rows}
    return Benchmark(["pacavit", "bench"], settings, environment, models, **{**values, **changes})


def test_published_figures_have_columns_of_their_own() -> None:
    header, rows = counts_table(example())
    assert header == [
        "",
        "parameters (M)",
        "published (M)",
        "MACs (G), 224 pixels",
        "published (G)",
        "MACs (G), 448 pixels",
        "published top-1 (%)",
        "remark",
    ]
    differing = "MACs differ: reason unknown"
    link = "[swin](https://arxiv.org/abs/2103.14030)"
    assert rows[0] == [link, "28.29", "29", "4.00", "4.5", "8.00", "81.3", differing]
    assert rows[1] == ["mine", "28.29", "", "1.00", "", "4.00", "", ""]


def test_growth_is_an_exponent_of_the_number_of_patches() -> None:
    header, rows = growth_table(example())
    assert header == ["", "MACs", "time", "peak memory"]
    assert rows == [["swin", "0.50", "", ""], ["mine", "1.00", "1.00", "1.50"]]


def test_speeds_are_listed_by_setting() -> None:
    header, rows = speed_table(example(), [("eager", "fp32", 1, 448)])
    assert header[4:] == ["images/s (quartiles)", "times swin", "peak memory (MiB)"]
    assert rows == [["mine", "eager fp32", "1", "448", "16.0 (15.0 to 17.0)", "2.00", "800"]]


def test_a_busy_machine_is_pointed_out() -> None:
    found = example()
    assert not found.disturbed
    assert "before and after: 0.50 and 0.75." in benchmark_text(found, [])
    assert "not reliable" not in benchmark_text(found, [])
    busy = example(before=Load(3.0, 1.5))
    assert busy.disturbed
    assert "kept up to 1.5 cores busy" in benchmark_text(busy, [])


def test_results_can_be_read_again(tmp_path: Path) -> None:
    found = example()
    write_results(found, tmp_path)
    assert read_results(tmp_path / "bench.json") == found


def test_exported_networks_of_a_killed_benchmark_are_removed(
    probed: list[str], tmp_path: Path
) -> None:
    left = tmp_path / ".exported" / "0.onnx"
    left.parent.mkdir()
    left.write_bytes(b"half")
    api.bench([OURS], tmp_path, sizes=[32], batch_sizes=[1], rounds=1)
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "bench.md"}
