"""The script for a machine with a GPU, at toy size on the CPU."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TINY = (
    "model.options={embed_dims=[8,8,8],num_heads=[1,1,1],stem_dims=[4,8]}"
    " train.batch_size=256 train.epochs=2 train.precision=fp32"
)


def run(folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PACAVIT_GPU_SECONDS": "2000",  # not what ends the steps, on a busy machine too
        "PACAVIT_GPU_DEVICE": "cpu",
        "PACAVIT_GPU_RECIPE": "digits",
        "PACAVIT_GPU_SET": TINY,
        "PACAVIT_GPU_TESTS": "tests/utils/test_statistics.py",
        "PACAVIT_GPU_BENCH": "--peers no-such-table",
        "PACAVIT_GPU_RECORD": str(folder / "gpu.json"),
        **changes,
    }
    return subprocess.run(
        ["sh", str(ROOT / "benchmarks" / "gpu.sh"), str(folder / "out")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_script_measures_and_continues(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads((tmp_path / "gpu.json").read_text())
    assert record["device"] == "cpu"
    assert record["tests"]["passed"] > 0
    assert {*record["tests"]} == {"passed"}
    assert record["training"]["epochs"] == int((tmp_path / "out" / "epochs").read_text()) == 2
    assert 0 <= record["training"]["test_accuracy"] <= 1
    weights = next((tmp_path / "out" / "run").glob("*.safetensors"))
    before = weights.stat().st_mtime_ns

    again = run(tmp_path)
    assert again.returncode == 0, again.stderr
    assert weights.stat().st_mtime_ns == before
    assert "== tests" not in again.stdout
    assert json.loads((tmp_path / "gpu.json").read_text()) == record


def test_without_a_device_or_packages_it_stops_in_one_line(
    load_benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu = load_benchmark("gpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"sees no CUDA device; gpu\.sh needs one"):
        gpu.device("cuda")
    assert list(gpu.missing_packages()) == []
    gpu.packages(str(tmp_path / "none"))
    monkeypatch.setattr(gpu, "NEEDED", ("no-such-package>=2", "pytest>=9999"))
    with pytest.raises(SystemExit, match="lacks no-such-package>=2, pytest>=9999; put their"):
        gpu.packages(str(tmp_path / "none"))


def test_as_many_epochs_as_fit(
    load_benchmark: Callable[[str], ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"elapsed": 40.0}, {"elapsed": 44.0}, {"elapsed": 48.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    gpu = load_benchmark("gpu")
    for seconds, expected in (("240", 45), ("10000", 150), ("5", 1)):
        gpu.epochs(str(tmp_path), "cifar10_large32", seconds)
        assert int(capsys.readouterr().out) == expected
    gpu.epochs(str(tmp_path), "cifar10_large32", "10000", "train.epochs=7")
    assert int(capsys.readouterr().out) == 7
