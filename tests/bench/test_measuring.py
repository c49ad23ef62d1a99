"""Engines, memory, the load of the machine, and a process for each network."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pacavit.bench import engines, machine
from pacavit.bench.candidates import Candidate
from pacavit.bench.engines import ENGINES, Setting, check_engine, make_step, prepare, supports
from pacavit.bench.memory import PeakMemory
from pacavit.bench.probe import probe
from pacavit.errors import PacavitError, UnknownNameError

CPU = torch.device("cpu")


def network(_: int) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(256, 5))
    return nn.Sequential(*layers).eval()


SMALL = Candidate("small", "small", network)


def output(engine: str, folder: Path, precision: str = "fp32") -> torch.Tensor:
    """What a step of an engine computes, in fp32."""
    setting = Setting(engine, precision, 2, 8, "cpu")
    file = folder / "small.onnx"
    prepare(SMALL, setting, file)
    found = make_step(SMALL, setting, file)()
    if isinstance(found, torch.Tensor):
        return found.float()
    return torch.from_numpy(np.array(found[0]))  # type: ignore[index]  # of both other engines


@pytest.mark.slow
@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "eager"])
def test_engines_compute_the_same(engine: str, tmp_path: Path) -> None:
    try:
        check_engine(engine, CPU)
    except PacavitError as error:
        pytest.skip(str(error))
    torch.testing.assert_close(
        output(engine, tmp_path), output("eager", tmp_path), atol=1e-5, rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_int8_computes_nearly_the_same(engine: str, tmp_path: Path) -> None:
    pytest.importorskip(engine)
    exact, found = output("eager", tmp_path), output(engine, tmp_path, "int8")
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.1, rtol=0.1)


def test_optimized_networks_compute_in_bf16_too(tmp_path: Path) -> None:
    exact, found = output("eager", tmp_path), output("optimized", tmp_path, "bf16")
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0.05)


def test_half_precision_is_that_of_weights_and_images(tmp_path: Path) -> None:
    half, full = output("eager", tmp_path, "bf16"), output("eager", tmp_path)
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, atol=0.05, rtol=0.05)


def test_engines_know_their_precisions() -> None:
    assert supports("eager", "fp16")
    assert not supports("onnxruntime", "bf16")
    with pytest.raises(UnknownNameError, match="did you mean 'eager'"):
        supports("eagre", "fp32")
    with pytest.raises(UnknownNameError, match="did you mean 'bf16'"):
        supports("eager", "b16")


def test_a_missing_engine_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(PacavitError, match=r"openvino.*pip install 'pacavit\[export\]'"):
        check_engine("openvino", CPU)
    check_engine("compile", CPU)


def test_exported_networks_are_measured_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: object())
    with pytest.raises(PacavitError, match="measured on the CPU only, not on cuda"):
        check_engine("onnxruntime", torch.device("cuda"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot reset the peak")
def test_peak_memory_is_what_was_taken_at_most() -> None:
    piece = b"x" * 2**20
    memory = PeakMemory(CPU)
    for _ in range(2):  # the peak stays when the pages are given back
        with mmap.mmap(-1, 64 * len(piece)) as pages:
            for _ in range(64):
                pages.write(piece)
    assert 60 < memory.mebibytes() < 200
    memory.reset()
    assert memory.mebibytes() < 60


def test_others_are_what_this_process_did_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"busy": 100.0, "own": 7.0, "clock": 50.0}
    monkeypatch.setattr(machine, "_busy_seconds", lambda: now["busy"])
    monkeypatch.setattr(machine, "_own_seconds", lambda: now["own"])
    monkeypatch.setattr("pacavit.bench.machine.time.perf_counter", lambda: now["clock"])
    watch = machine.Watch()
    now.update(busy=108.0, own=12.0, clock=54.0)
    assert watch.others() == pytest.approx(3 / 4)
    now.update(own=17.0)  # rounding of the clocks
    assert watch.others() == 0
    now.update(clock=50.4)  # too short to tell
    assert watch.others() is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")
def test_work_of_this_process_counts_as_busy() -> None:
    before, own = machine._busy_seconds(), machine._own_seconds()
    while machine._own_seconds() < own + 0.3:
        sum(range(10000))
    after = machine._busy_seconds()
    assert before is not None
    assert after is not None
    assert after - before > 0.25
    assert os.sched_getaffinity(0)


@pytest.mark.slow
def test_a_network_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    setting = Setting("eager", "fp32", 1, 32, "cpu")
    found = probe("pacavit_nano", setting, tmp_path / "none")
    assert found.error is None
    assert found.peak_mebibytes is not None
    assert 5 < found.peak_mebibytes < 300  # its weights alone take 7.6
    assert "no_argument" in (probe("pacavit_nano,no_argument=1", setting, tmp_path).error or "")
