"""The benchmark of batch prediction with few rows."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

LoadBenchmark = Callable[[str], ModuleType]


@pytest.mark.slow
def test_a_killed_job_ends_with_all_rows(load_benchmark: LoadBenchmark, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    words = ["--rows", "1000", "--num-workers", "1", "--batch-size", "50"]
    load_benchmark("batch_prediction").main([*words, "--results", str(results)])
    record = json.loads(results.read_text())
    assert 0 < record["killed"]["rows"] <= 1_000
    assert record["resumed"]["rows"] > 0
    assert record["resumed"]["largest_own_mb"] > 10
