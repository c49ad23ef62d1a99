import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


def test_it_draws_the_pictures_of_the_demo(
    load_example: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["draw_demo_pictures.py", "--out", str(tmp_path)])
    load_example("draw_demo_pictures").main()
    shipped = {file.name: file for file in (resources.files("pacavit.demo") / "pictures").iterdir()}
    assert sorted(shipped) == sorted(file.name for file in tmp_path.iterdir())
    for name, file in shipped.items():
        with resources.as_file(file) as path, Image.open(path) as old:
            before = np.asarray(old, float)
        with Image.open(tmp_path / name) as new:
            assert np.abs(np.asarray(new, float) - before).mean() < 2  # encoders differ a little
