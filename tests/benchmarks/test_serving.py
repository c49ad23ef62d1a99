"""The benchmark of the server, with a few requests."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers in /proc")
def test_a_few_requests(
    load_benchmark: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "serving.json"
    words = ["--requests", "60", "--long", "60", "--rounds", "2", "--in-flight", "8"]
    words += ["--images", "1", "4", "--half-sent", "5", "--results", str(results)]
    monkeypatch.setattr(sys, "argv", ["serving.py", *words])
    load_benchmark("serving").main()
    recorded = json.loads(results.read_text("utf-8"))
    (row,) = recorded["rows"]
    assert row["model"] == "cifar10_nano_conv"
    assert [each["images"] for each in row["speed"]] == [1, 4]
    assert all(each["ratio"][1] > 0 for each in row["speed"])
    mixed = row["mixed"]
    assert mixed["malformed"] > 0
    assert mixed["malformed_answered_with_4xx"] == mixed["malformed"]
    assert mixed["statuses"]["200"] == 60 - mixed["malformed"]
    assert mixed["largest_difference"] < 1e-4
    assert row["half_sent"]["statuses"] == {"200": 60}
    killed = row["killed"]
    assert killed["lost"] <= killed["in_flight"]
    assert killed["statuses"].get("200", 0) + killed["lost"] == 60
    assert killed["statuses_later"] == {"200": 8}
    assert row["memory"]["after_mb"] > 0
