"""The study of blood cells: cutting is tested, the runs are not."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pacavit.data import Folder, LabeledImages

LoadExample = Callable[[str], ModuleType]


def test_squares_are_cut_around_cells_and_stay_inside(load_example: LoadExample) -> None:
    cut_square = load_example("transfer_cells").cut_square
    rows, columns = np.mgrid[0:100, 0:200]
    image = Image.fromarray(np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8))
    inside = np.asarray(cut_square(image, (80, 40, 20, 10))).astype(int)
    assert inside.shape == (32, 32, 3)
    # 1.2 x 20 = 24 pixels around (90, 45).
    assert inside[..., 0].min() == pytest.approx(78, abs=1)
    assert inside[..., 0].max() == pytest.approx(101, abs=1)
    assert inside[..., 1].min() == pytest.approx(33, abs=1)
    corner = np.asarray(cut_square(image, (180, 90, 20, 10))).astype(int)
    assert corner[..., 0].max() == pytest.approx(199, abs=1)
    assert corner[..., 1].max() == pytest.approx(99, abs=1)
    whole = np.asarray(cut_square(image, (0, 0, 200, 100))).astype(int)
    assert whole[..., 1].max() == pytest.approx(99, abs=2)


def test_the_table_has_means_and_deviations(load_example: LoadExample) -> None:
    study = load_example("transfer_cells")
    rows = [
        study.Row(20, "random", "1e-3", [0.5, 0.7], [0.4, 0.4]),
        study.Row(None, "CIFAR-10", "3e-4", [0.9], [0.8]),
    ]
    lines = study.table(rows).splitlines()
    assert lines[2] == "| 20 | random | 1e-3 | 0.6000 ± 0.1414 | 0.4000 ± 0.0000 |"
    assert lines[3] == "| all | CIFAR-10 | 3e-4 | 0.9000 | 0.8000 |"


@pytest.mark.parametrize("begun", [True, False])
def test_runs_are_resumed_only_if_they_began(
    load_example: LoadExample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    study, resumed = load_example("transfer_cells"), []
    if begun:
        (tmp_path / "recipe.json").touch()

    def train(*_: Any, resume: bool, **__: Any) -> None:
        resumed.append(resume)

    monkeypatch.setattr(study.pacavit, "train", train)
    scores = SimpleNamespace(accuracy=0.5, f1_macro=0.5)
    monkeypatch.setattr(study.pacavit, "evaluate", lambda *_, **__: scores)
    study.train_and_score(tmp_path, 600, tmp_path, start="random", rate="1e-3", seed=0)
    assert resumed == [begun]


@pytest.mark.realdata
def test_real_cells_become_a_folder_of_three_classes(
    load_example: LoadExample, shared_dir: Path, tmp_path: Path
) -> None:
    bccd, out = shared_dir / "data" / "bccd", tmp_path / "cells"
    counts = load_example("transfer_cells").cut_cells(bccd, out, per_class=5)
    assert counts == {"train": 15, "val": 210, "test": 945}
    source = Folder(out, image_size=32)
    assert source.info.class_names == ("Platelets", "RBC", "WBC")
    test = source.load("test")
    assert isinstance(test, LabeledImages)
    assert test.labels.bincount().tolist() == [69, 805, 71]
    assert not test.broken
    record = json.loads((bccd / "annotations" / "instances_test2017.json").read_text())
    assert len(record["annotations"]) == len(test)
    # The middles of white cells are stained violet, those of red cells are pale.
    order = test.labels.argsort()
    middles = test.batch(order)[0][:, :, 12:20, 12:20].float().mean((2, 3))
    red_cells, white_cells = middles[69:874].mean(0), middles[874:].mean(0)
    assert white_cells[1] < red_cells[1] - 20
