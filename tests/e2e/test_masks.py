"""A network trained on a folder of masks, and measured on others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacavit_cli.main import main

WritePairs = Callable[..., None]
FAST = (
    "train.epochs=1",
    "model.init=null",
    "train.batch_size=4",
    "task.head_options.channels=8",
    "model.options={embed_dims = [24, 32, 48], num_heads = [2, 2, 2], stem_dims = [8, 24]}",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_pairs: WritePairs) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    write_pairs(folder / "data" / "images", folder / "data" / "masks", 20)
    (folder / "data" / "classes.txt").write_text("0 sky\n1 road\n2 car\n")
    words = [word for change in FAST for word in ("--set", change)]
    data = str(folder / "data")
    out = str(folder / "run")
    assert main(["train", "masks_nano", "--data", data, "--out", out, *words]) == 0
    return folder / "run"


def evaluation(folder: Path) -> dict[str, float]:
    (file,) = folder.glob("**/evaluation.json")
    scores: dict[str, float] = json.loads(file.read_text())["scores"]
    return scores


def other(folder: Path, order: str, values: list[int], write_pairs: WritePairs) -> Path:
    """The training images' folder again, whose list and masks have other values."""
    write_pairs(folder / "images", folder / "masks", 20)
    for file in (folder / "masks").iterdir():
        Image.fromarray(np.array(values, np.uint8)[np.array(Image.open(file))]).save(file)
    (folder / "classes.txt").write_text(order)
    return folder


def test_classes_are_matched_by_name(
    run: Path, tmp_path: Path, write_pairs: WritePairs, capsys: pytest.CaptureFixture[str]
) -> None:
    renumbered = other(tmp_path / "data", "7 car\n9 sky\n30 road\n", [9, 30, 7], write_pairs)
    for data, name in ((run.parent / "data", "same"), (renumbered, "other")):
        words = ["--data", str(data), "--all", "--out", str(tmp_path / name)]
        assert main(["evaluate", str(run), *words]) == 0
    assert evaluation(tmp_path / "other") == evaluation(tmp_path / "same")
    assert "20 images" in capsys.readouterr().out


def test_other_classes_are_refused(
    run: Path, tmp_path: Path, write_pairs: WritePairs, capsys: pytest.CaptureFixture[str]
) -> None:
    data = other(tmp_path / "data", "0 sky\n1 road\n2 tram\n", [0, 1, 2], write_pairs)
    assert main(["evaluate", str(run), "--data", str(data)]) == 2
    line = capsys.readouterr().err.strip()
    assert "classes that the model does not know: tram; known: sky; road; car" in line
    assert "\n" not in line


def test_a_folder_without_a_list_has_the_models_values(
    run: Path, tmp_path: Path, write_pairs: WritePairs
) -> None:
    data = other(tmp_path / "data", "", [0, 1, 2], write_pairs)
    (data / "classes.txt").unlink()
    for folder, name in ((run.parent / "data", "same"), (data, "other")):
        words = ["--data", str(folder), "--all", "--out", str(tmp_path / name)]
        assert main(["evaluate", str(run), *words]) == 0
    assert evaluation(tmp_path / "other") == evaluation(tmp_path / "same")
