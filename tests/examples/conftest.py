"""The complete scripts in examples/, as modules."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def load_example(load_script: Callable[[Path], ModuleType]) -> Callable[[str], ModuleType]:
    """Import examples/NAME.py without running its main()."""
    return lambda name: load_script(EXAMPLES / f"{name}.py")
