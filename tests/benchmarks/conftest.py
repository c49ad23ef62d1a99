"""The scripts in benchmarks/, as modules."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load_benchmark(
    load_script: Callable[[Path], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], ModuleType]:
    """Import benchmarks/NAME.py, which may import others of that folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return lambda name: load_script(BENCHMARKS / f"{name}.py")
