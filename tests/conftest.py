"""What every test gets: fixed seeds, few threads, and the real images where there are any."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries under test may draw from the global state)
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder that holds data/ (real images) and reference/ (parity tensors)."""
    folder = os.environ.get("PACAVIT_DATA")
    if not folder:
        pytest.skip("set PACAVIT_DATA to the folder that holds data/ and reference/")
    return Path(folder)
