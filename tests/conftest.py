"""What every test gets: fixed seeds, few threads, and the real images where there are any."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium: the machine's own, for Playwright's is a download of its own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine (on Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()
