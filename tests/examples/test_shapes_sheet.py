import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image


def test_it_draws_the_scenes(
    load_example: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "shapes.png"
    monkeypatch.setattr(sys, "argv", ["shapes_sheet.py", "--out", str(picture)])
    load_example("shapes_sheet").main()
    with Image.open(picture) as image:
        assert image.format == "PNG"
