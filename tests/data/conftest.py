"""Folders of small images in class folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write noise images of differing sizes, brighter class by class, into folder/CLASS/."""

    def make(folder: str = "images", classes: str = "ant bee", num: int = 6) -> Path:
        rng = np.random.default_rng(0)
        for label, name in enumerate(classes.split()):
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(num):
                height, width = rng.integers(9, 24, 2)
                low = 60 * label
                pixels = rng.integers(low, low + 50, (height, width, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{number}.png")
        return tmp_path / folder

    return make
